"""The receiving end of image transfers, under the shells that other machines have."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphlib.writeexts.transfer import write_stream
from tests.exts.programs import EXTS

RECEIVER = (EXTS / "recv-hole").read_text()
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash"]}
K = 1024

# Made as VirtualBox does it: a new file, of as many bytes as were announced.
VBOXMANAGE = """
[ "$1 $2" = "convertfromraw stdin" ] && [ "$#" = 4 ] && [ ! -e "$3" ] || exit 2
head -c "$4" >"$3"
[ "$(stat -c %s "$3")" = "$4" ]
"""


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return SHELLS[request.param]


def receive(
    shell: list[str], stream: bytes, *args: str, path: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the text as it is run over there."""
    return subprocess.run(
        [*shell, "-c", RECEIVER, "recv-hole", *args],
        input=stream,
        capture_output=True,
        timeout=60,
        check=False,
        env={"PATH": path or os.environ["PATH"]},
    )


def describe(image: Path) -> bytes:
    stream = io.BytesIO()
    with image.open("rb") as file:
        write_stream(file, stream, lambda done, size: None)
    return stream.getvalue()


@pytest.fixture
def vbox(tmp_path: Path) -> str:
    """A PATH with a converter."""
    return add_vboxmanage(tmp_path / "bin", VBOXMANAGE)


def add_vboxmanage(directory: Path, script: str) -> str:
    directory.mkdir(exist_ok=True)
    program = directory / "VBoxManage"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def test_the_format(shell: list[str], tmp_path: Path) -> None:
    target = tmp_path / "a 'b\n$c"
    target.write_text("what was there before")
    stream = b"DATA\n6\nhello\nHOLE\n3\nDATA\n1\nxHOLE\n0\nDATA\n0\nHOLE\n2\n"
    done = receive(shell, stream, "file", str(target))
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == b"hello\n\0\0\0x\0\0"


def test_empty(shell: list[str], tmp_path: Path) -> None:
    assert receive(shell, b"", "file", str(tmp_path / "x")).returncode == 0
    assert (tmp_path / "x").read_bytes() == b""


def test_holes_take_no_room(shell: list[str], tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.seek(5 << 20)
        file.write(os.urandom(3 * K * K + 17))
        file.truncate(200 << 20)
    stream = describe(image)
    assert len(stream) < 4 << 20
    target = tmp_path / "target"
    assert receive(shell, stream, "file", str(target), str(200 << 20)).returncode == 0
    assert target.stat().st_size == 200 << 20
    assert target.stat().st_blocks * 512 < 5 << 20
    assert subprocess.run(["cmp", image, target], check=False).returncode == 0


def test_slow_streams_lose_nothing(shell: list[str], tmp_path: Path) -> None:
    """dd takes what a pipe holds at the moment for a block, unless told otherwise."""
    data = os.urandom(300_000)
    child = subprocess.Popen(
        [*shell, "-c", RECEIVER, "recv-hole", "file", tmp_path / "x"], stdin=subprocess.PIPE
    )
    assert child.stdin is not None
    child.stdin.write(b"DATA\n300000\n")
    for at in range(0, len(data), 7001):
        child.stdin.write(data[at : at + 7001])
        child.stdin.flush()
    child.stdin.close()
    assert child.wait(timeout=60) == 0
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"DATA\n5\nhell", "in the middle of its data"),
        (b"DATA\n3000000\n" + bytes(2_000_000), "in the middle of its data"),
        (b"DATA\n", "ends after DATA"),
        (b"DATA\n5", "ends after DATA"),
        (b"HOLE", "in the middle of a line"),
        (b"HOLE\n-5\n", "Not a number of bytes: -5"),
        (b"HOLE\n$(id)\n", "Not a number of bytes"),
        (b"HOLE\n09\n", "Not a number of bytes"),
        (b"HOLE\n9999999999999999999\n", "Not a number of bytes"),
        (b"FOO\n5\n", "Unknown instruction: FOO"),
        (b"DATA\n1\nxy\n", "Unknown instruction: y"),
        (b"DATA\n5\nhello", "got 5 bytes instead of 6"),
    ],
)
@pytest.mark.parametrize("what", ["file", "vbox"])
def test_broken_streams(
    shell: list[str], stream: bytes, message: str, what: str, tmp_path: Path, vbox: str
) -> None:
    target = tmp_path / "target"
    size = "6" if "instead" in message else "4000000"
    done = receive(shell, stream, what, str(target), size, path=vbox)
    assert done.returncode == 1
    assert message in done.stderr.decode()
    assert not target.exists()


@pytest.mark.parametrize(
    "args", [(), ("file",), ("vbox", "/x"), ("tape", "/x"), ("file", "/x", "1k")]
)
def test_wrong_arguments(shell: list[str], args: tuple[str, ...]) -> None:
    done = receive(shell, b"", *args)
    assert done.returncode == 1
    assert done.stderr.startswith(b"recv-hole: ")


def test_conversion(shell: list[str], tmp_path: Path, vbox: str) -> None:
    target = tmp_path / "a b"
    stream = b"HOLE\n2000000\nDATA\n5\nhelloHOLE\n4\n"
    done = receive(shell, stream, "vbox", str(target), "2000009", path=vbox)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == bytes(2_000_000) + b"hello" + bytes(4)
    assert receive(shell, stream, "vbox", str(target), "2000009", path=vbox).returncode == 1
    assert target.exists(), "it belongs to somebody else"


def test_failing_conversion(shell: list[str], tmp_path: Path) -> None:
    path = add_vboxmanage(tmp_path / "bin", 'echo >"$3"; cat >/dev/null; echo no >&2; exit 3\n')
    done = receive(shell, b"HOLE\n5\n", "vbox", str(tmp_path / "x"), "5", path=path)
    assert done.returncode == 1
    assert b"no\nrecv-hole: VBoxManage convertfromraw failed" in done.stderr
    assert not (tmp_path / "x").exists()


def test_no_room(shell: list[str]) -> None:
    """/dev/full takes nothing, and is not removed either."""
    done = receive(shell, b"DATA\n5\nhello", "file", "/dev/full")
    assert done.returncode == 1
    assert b"dd failed" in done.stderr
    assert Path("/dev/full").exists()


parts = st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=8)


@settings(max_examples=25, deadline=None)
@given(parts, st.integers(0, 4000))
def test_what_is_sent_arrives(parts: list[tuple[bool, int]], tail: int) -> None:
    directory = Path("/tmp") if not Path("/dev/shm").is_dir() else Path("/dev/shm")
    image = directory / f"morph-image-{os.getpid()}"
    target = image.with_suffix(".target")
    try:
        with image.open("wb") as file:
            for is_data, blocks in parts:
                if is_data:
                    file.write(os.urandom(blocks * 4096))
                else:
                    file.seek(blocks * 4096, os.SEEK_CUR)
            file.truncate(file.tell() + tail)
        done = receive(["dash"], describe(image), "file", str(target))
        assert done.returncode == 0, done.stderr
        assert target.read_bytes() == image.read_bytes()
    finally:
        image.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


def test_the_shells_are_there() -> None:
    assert all(shutil.which(words[0]) for words in SHELLS.values()), "scripts/setup --test"
