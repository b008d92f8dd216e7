"""Messages and lines: what goes in comes out, and nothing that comes in makes a traceback."""

from __future__ import annotations

import json
import typing
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distbuild import messages, workermessages
from distbuild.framing import MAX_LINE, BadLine, LineDecoder, encode
from distbuild.messages import Message, StepOutput
from distbuild.oldprotocol import answer_old, encode_old, is_old, read_old

UNIONS: tuple[Any, ...] = (
    messages.FromInitiator,
    messages.ToInitiator,
    workermessages.ToWorker,
    workermessages.FromWorker,
    workermessages.ToHelper,
    workermessages.FromHelper,
    workermessages.ToBuilder,
    workermessages.FromBuilder,
)
ALL = sorted(
    {each for union in UNIONS for each in typing.get_args(union)}
    | {messages.Hello, messages.Proof},
    key=lambda each: each.__name__,
)
KEY = "0f" * 32

names = st.text(
    st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]),
    min_size=1,
    max_size=20,
)
ids = st.from_regex(r"\A[0-9A-Za-z][0-9A-Za-z._:-]{0,20}\Z")
keys = st.from_regex(r"\A[0-9a-f]{64}\Z")

st.register_type_strategy(
    workermessages.Step,
    st.builds(
        workermessages.Step,
        repo=names,
        ref=names,
        morphology=names,
        key=keys,
        name=names,
        original_ref=st.none() | names,
    ),
)
STEPS = st.from_type(workermessages.Step)
RUNS = st.builds(workermessages.RunStep, job=ids, step=STEPS)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": ids,
    "build": ids,
    "job": ids,
    "worker": st.none() | ids,
    "role": st.sampled_from(messages.Role),
    "protocol": st.integers(-(2**53), 2**53),
    "program": names,
    "nonce": st.text(st.characters(exclude_categories=["Cs"]), min_size=16, max_size=99),
    "value": keys,
    "reason": st.text(st.characters(exclude_categories=["Cs"])),
    "message": st.text(st.characters(exclude_categories=["Cs"])),
    "repo": names,
    "ref": names,
    "morphology": names,
    "original_ref": st.none() | names,
    "components": st.lists(names).map(tuple),
    "allow_detach": st.booleans(),
    "keeps_input": st.booleans(),
    "is_last": st.booleans(),
    "offset": st.integers(0, 2**53),
    "data": st.binary(),
    "priority": st.integers(-100, 100),
    "unbuilt": st.integers(0, 9999),
    "total": st.integers(0, 9999),
    "step_name": names,
    "worker_name": names,
    "stdout": st.binary(),
    "stderr": st.binary(),
    "urls": st.lists(names).map(tuple),
    "found": st.booleans(),
    "built": st.integers(0, 9999),
    "system": st.none() | names,
    "estimate": st.none() | st.floats(0, 10**9),
    "elapsed": st.floats(0, 10**9),
    "kind": st.none() | names,
    "doing": st.sampled_from([None, "transfer", "retry"]),
    "step": STEPS,
    "key": keys,
    "name": names,
    "architectures": st.lists(names).map(tuple),
    "capacity": st.integers(1, 10_000),
    "running": st.lists(st.builds(workermessages.RunStep, job=ids, step=STEPS), max_size=2).map(
        tuple
    ),
    "fault": st.sampled_from(workermessages.Fault),
    "argv": st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), min_size=1).map(
        tuple
    ),
    "stdin": st.binary(),
    "exit": st.integers(-64, 255),
    "exit_code": st.none() | st.integers(-64, 255),
    "phase": names,
}


def values_of(message: type[Message]) -> st.SearchStrategy[Message]:
    return st.builds(message, **{name: FIELDS[name] for name in message.__struct_fields__})


#: Making up messages takes its time on a machine that has other work.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=9,
)


@unhurried
@given(st.sampled_from(ALL).flatmap(values_of))
def test_what_is_said_is_what_is_heard(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert LineDecoder[Message](type(message)).decode(line[:-1]) == message
    for union in UNIONS:
        if type(message) in typing.get_args(union):
            assert LineDecoder[Message](union).decode(line[:-1]) == message


def test_every_message_has_a_type_of_its_own() -> None:
    tags = [each.__struct_config__.tag for each in ALL]
    assert len(tags) == len(set(tags))
    assert {"build-request", "step-already-started", "exec-response"} <= set(tags)


def refused(decoder: LineDecoder[Message], line: bytes) -> bool:
    try:
        decoder.decode(line)
    except BadLine as error:
        assert "\n" not in str(error)
        return True
    return False


@unhurried
@given(st.sampled_from(UNIONS), st.binary(max_size=200))
def test_bytes_do_no_harm(union: Any, line: bytes) -> None:
    assert refused(LineDecoder(union), line)


@unhurried
@given(st.sampled_from(UNIONS), st.sampled_from(ALL).flatmap(values_of), st.data())
def test_damaged_lines_do_no_harm(union: Any, message: Message, data: st.DataObject) -> None:
    """Cut short, with bytes exchanged, or with a field of another shape."""
    line = encode(message)[:-1]
    cut = data.draw(st.integers(0, len(line) - 1))
    assert refused(LineDecoder(union), line[:cut])
    changed = bytearray(line)
    changed[cut] = data.draw(st.integers(0, 255))
    refused(LineDecoder(union), bytes(changed))
    fields = json.loads(line)
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(anything)
    refused(LineDecoder(union), json.dumps(fields).encode())


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"ping","more":1}',
        b'{"type":"pong"}',
        b'{"type":"build-cancel","id":"../x","build":"b"}',
        b'{"type":"build-cancel","id":"a\\nb","build":"b"}',
        b'{"type":"build-cancel","id":"-x","build":"b"}',
        b'{"type":"build-attach","id":"a\\n","build":"b"}',
        b"[" * 100_000,
        b'{"type":"ping"' + b" " * MAX_LINE + b"}",
    ],
    ids=lambda line: repr(line[:50]),
)
def test_what_no_initiator_may_say(line: bytes) -> None:
    assert refused(LineDecoder(messages.FromInitiator), line)


def test_text_that_is_no_unicode_travels_as_escapes() -> None:
    line = encode(messages.BuildFailed(build="b", reason="no file \udcff"))
    assert LineDecoder[messages.BuildFailed](messages.BuildFailed).decode(line).reason == (
        "no file \\udcff"
    )


def test_output_is_bytes() -> None:
    message = StepOutput(build="b", step_name="s", stdout=bytes(range(256)))
    assert LineDecoder[StepOutput](StepOutput).decode(encode(message)) == message


# ---- The old protocol ------------------------------------------------------------------------


def read_as_old_initiator(line: bytes) -> Any:
    """As the programs of version 4 do it."""
    return yaml.safe_load(json.loads(line))


def test_an_old_initiator_is_told_what_is_wrong() -> None:
    request = {"type": "build-request", "id": "0a1b", "protocol_version": 4, "repo": "r", "x": [1]}
    for line in (encode_old(request), json.dumps(json.dumps(request)).encode()):
        assert is_old(line)
        answer = read_as_old_initiator(answer_old(read_old(line)))
        assert answer == {
            "type": "build-failed",
            "id": "0a1b",
            "reason": "Bad request\nProtocol version mismatch between server and initiator:"
            " distbuild network uses distbuild protocol version 5, but client uses version 4."
            " Update the client.",
        }


def test_an_old_message_without_id_or_version_is_refused_too() -> None:
    answer = read_as_old_initiator(answer_old(read_old(encode_old({"type": "list-requests"}))))
    assert answer == {"type": "build-failed", "id": "000", "reason": "Bad request"}


def test_new_lines_are_not_old() -> None:
    assert not is_old(encode(messages.Ping()))


@unhurried
@given(st.text(st.characters(exclude_categories=["Cs"])) | anything.map(json.dumps))
def test_no_old_line_does_harm(text: str) -> None:
    line = json.dumps(text).encode()
    try:
        message = read_old(line)
    except BadLine as error:
        assert "\n" not in str(error)
    else:
        assert read_as_old_initiator(answer_old(message))["type"] == "build-failed"


@unhurried
@given(st.dictionaries(st.text(max_size=5), anything, max_size=4))
def test_what_an_old_party_sends_is_read_as_it_reads_it(fields: dict[str, Any]) -> None:
    fields = {"id": "7", **{k: v for k, v in fields.items() if k != "id"}}
    assert read_old(encode_old(fields))["id"] == "7"


@pytest.mark.parametrize(
    "text", ["- " * 30_000, "[" * 30_000, "{a: " * 15_000, "&a [*a]", "*a", "? [x]\n: y"]
)
def test_deep_and_strange_yaml_is_only_scanned(text: str) -> None:
    with pytest.raises(BadLine):
        read_old(json.dumps(text).encode())


def test_an_endless_old_line_is_refused() -> None:
    with pytest.raises(BadLine, match="70002 bytes"):
        read_old(b'"' + b"x" * 70_000 + b'"')


def test_structs_are_frozen() -> None:
    with pytest.raises(AttributeError):
        setattr(messages.BuildCancelled(build="b"), "build", "c")  # noqa: B010 - mypy knows it too
    assert issubclass(messages.Ping, msgspec.Struct)
