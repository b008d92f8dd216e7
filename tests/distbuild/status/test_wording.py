"""How pages say things, and who may read them."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbuild.status.admission import refusal
from distbuild.status.history import Attempt, AttemptState
from distbuild.status.joblogs import Excerpt
from distbuild.status.stepview import news, readable
from distbuild.status.wording import say_size, say_span, say_time, show_output, ticks


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (192, "3 min 12 s"),
        (7500, "2 h 5 min"),
        (86_400, "1 d"),
        (2 * 86_400 + 3 * 3600 + 50, "2 d 3 h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert say_span(seconds) == text


def test_times_of_other_days_have_a_date() -> None:
    noon = time.mktime((2020, 5, 4, 12, 0, 5, 0, 0, -1))
    assert say_time(noon, noon + 60) == "12:00:05"
    assert say_time(noon, noon + 86_400) == "2020-05-04 12:00"
    assert (say_size(9999), say_size(123_456)) == ("9999 bytes", "123 kB")


@given(st.floats(1, 1e7))
def test_an_axis_has_few_marks(span: float) -> None:
    marks = ticks(span)
    assert marks[0] == 0
    assert 2 <= len(marks) <= 9 or span < 2
    assert marks[-1] <= span


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain\n\ttabs\n", "plain\n\ttabs\n"),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\x1b(B", "red x"),
        (b"10%\r20%\r\ndone", "10%\n20%\ndone"),
        (b"caf\xc3\xa9 \xff", "caf\u00e9 \\xff"),
        (b"a\0b\x1b", "a\\x00b\\x1b"),
        ("\u202eevil".encode(), "\\u202eevil"),
    ],
)
def test_output_is_shown_without_what_it_could_do(data: bytes, text: str) -> None:
    assert show_output(data) == text


@given(st.binary(max_size=200))
def test_no_output_does_anything(data: bytes) -> None:
    assert all(char.isprintable() or char in "\n\t" for char in show_output(data))


def test_half_a_line_is_not_shown_while_it_may_go_on() -> None:
    running = Attempt("j", "k", "w", 0, 1.0)
    over = Attempt("j", "k", "w", 0, 1.0, AttemptState.BUILT, 2.0, 3.0)
    half = Excerpt(10, b"one\ntw\xc3")
    assert readable(half, running) == Excerpt(10, b"one\n")
    assert readable(half, over) == half
    endless = Excerpt(0, b"x" * 5000)
    assert readable(endless, running) == endless
    assert news(Excerpt(10, b"one\n"), Excerpt(12, b"e\ntwo\n")) == (0, b"two\n")
    assert news(Excerpt(0, b"one\n"), Excerpt(9, b"three\n")) == (5, b"three\n")


TOKEN = b"0123456789abcdef"


def basic(password: bytes) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(b"me:" + password).decode()}


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ({"authorization": f"Bearer {TOKEN.decode()}"}, True),
        (basic(TOKEN), True),
        ({}, False),
        ({"authorization": "Bearer "}, False),
        ({"authorization": "Basic !"}, False),
        ({"authorization": "Digest x"}, False),
        (basic(b""), False),
        (basic(TOKEN + b"x"), False),
        ({"authorization": "Bearer \xe9"}, False),
    ],
)
def test_with_a_token_it_has_to_be_known(headers: dict[str, str], is_let_in: bool) -> None:
    for address in ("127.0.0.1", "192.0.2.1"):
        refused = refusal(address, headers, TOKEN)
        assert (refused is None) is is_let_in
        assert refused is None or refused[0] == 401


@pytest.mark.parametrize(
    ("address", "headers", "is_let_in"),
    [
        ("127.0.0.1", {"host": "127.0.0.1:7879"}, True),
        ("127.0.0.1", {"host": "localhost"}, True),
        ("::1", {"host": "[::1]:7879"}, True),
        ("::ffff:127.0.0.1", {"host": "LOCALHOST:1"}, True),
        ("192.0.2.1", {"host": "localhost"}, False),
        ("127.0.0.1", {"host": "evil.example"}, False),
        ("127.0.0.1", {}, False),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "192.0.2.1"}, False),
        ("", {"host": "localhost"}, False),
    ],
)
def test_without_a_token_only_this_machine_is_let_in(
    address: str, headers: dict[str, str], is_let_in: bool
) -> None:
    refused = refusal(address, headers, b"")
    assert (refused is None) is is_let_in
    assert refused is None or refused[0] == 403
