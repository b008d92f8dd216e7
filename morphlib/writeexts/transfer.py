"""Sending disk images to other machines without their holes.

The stream is a sequence of records in the order of the file, "DATA\\nN\\n" and N bytes, or
"HOLE\\nN\\n"; `morphlib/exts/recv-hole` makes a file of it again. Nothing needs to be installed on
the other side: the text of that program is an argument of the remote shell.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from morphlib import process
from morphlib.errors import MorphError, Reason
from morphlib.writeexts.remote import Remote
from morphlib.writeexts.ssh import spawn_remote
from morphlib.writeexts.undo import undone_on_failure

#: Called with the bytes of the image that are done, and all of them.
Progress = Callable[[int, int], None]

_RECEIVER = Path(__file__).parents[1] / "exts" / "recv-hole"
_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)
#: Seconds between two lines that tell how far it has come.
_PATIENCE = 10.0

# A hard link can't replace what somebody has put there meanwhile; some file systems have none.
_PUBLISH = """
if [ -e "$2" ] || [ -L "$2" ]; then echo "$2 exists" >&2; exit 1; fi
if ln -- "$1" "$2" 2>/dev/null; then rm -f -- "$1"; else mv -- "$1" "$2"; fi
"""
_DIGEST = 'command -v sha256sum >/dev/null || exit 44; sha256sum <"$1"'
_NO_SHA256SUM = 44


def find_records(fd: int) -> Iterator[tuple[bool, int]]:
    """What a file consists of, from start to end: (whether it is data, number of bytes)."""
    size = os.fstat(fd).st_size
    place = 0
    while place < size:
        data = _seek(fd, place, os.SEEK_DATA, size)
        if data > place:
            yield False, data - place
        end = _seek(fd, data, os.SEEK_HOLE, size)
        if end > data:
            yield True, end - data
        place = end


def _seek(fd: int, place: int, whence: int, size: int) -> int:
    """The next data or hole; the end of the file if there is none."""
    if place >= size:
        return size
    try:
        return min(os.lseek(fd, place, whence), size)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size


def write_stream(image: BinaryIO, stream: BinaryIO, progress: Progress) -> str:
    """Write the description of an image. Returns the SHA-256 of its whole content, in hex.

    Raises BrokenPipeError if nobody reads, MorphError if the image gets shorter meanwhile.
    """
    digest = hashlib.sha256()
    fd = image.fileno()
    size = os.fstat(fd).st_size
    records = list(find_records(fd))
    image.seek(0)
    for is_data, length in records:
        stream.write(b"%s\n%d\n" % (b"DATA" if is_data else b"HOLE", length))
        if not is_data:
            image.seek(length, os.SEEK_CUR)
        for piece in _pieces(image, length) if is_data else _zeros(length):
            digest.update(piece)
            if is_data:
                stream.write(piece)
                progress(image.tell(), size)
    stream.flush()
    return digest.hexdigest()


def _pieces(image: BinaryIO, length: int) -> Iterator[bytes]:
    while length:
        piece = image.read(min(length, _PIECE))
        if not piece:
            raise MorphError("the image got shorter while it was sent", reason=Reason.DEPLOY)
        length -= len(piece)
        yield piece


def _zeros(length: int) -> Iterator[bytes]:
    for _ in range(length // _PIECE):
        yield _ZEROS
    yield _ZEROS[: length % _PIECE]


def data_size(image: Path) -> int:
    """How many bytes of a file are no holes."""
    with image.open("rb") as file:
        return sum(length for is_data, length in find_records(file.fileno()) if is_data)


def tell_progress(tell: Callable[[str], None], what: str) -> Progress:
    """A progress that tells a line now and then, not for each piece."""
    next_time = time.monotonic() + _PATIENCE

    def progress(done: int, size: int) -> None:
        nonlocal next_time
        if time.monotonic() >= next_time:
            next_time = time.monotonic() + _PATIENCE
            tell(f"{what}: {100 * done // max(size, 1)}%")

    return progress


def send(remote: Remote, image: Path, receiver: tuple[str, ...], progress: Progress) -> str:
    """Run recv-hole with some arguments there and feed it an image. Returns the image's SHA-256.

    Raises MorphError if either end fails.
    """
    argv = ["sh", "-c", _RECEIVER.read_text(), "recv-hole", *receiver]
    with tempfile.TemporaryFile() as complaints, image.open("rb") as file:
        child = spawn_remote(
            remote.host, argv, stdin=process.PIPE, stdout=complaints.fileno(), stderr=process.STDOUT
        )
        with child:
            assert child.stdin is not None
            digest = None
            try:
                digest = write_stream(file, child.stdin, progress)  # type: ignore[arg-type]
                child.stdin.close()
            except BrokenPipeError:  # what the other side says tells more
                with suppress(BrokenPipeError):
                    child.stdin.close()
            except BaseException:
                child.kill()
                raise
            status = child.wait()
        complaints.seek(0)
        if status != 0 or digest is None:
            raise remote.failure(f"receiving {' '.join(receiver)}", status, complaints.read())
    return digest


def place_file(remote: Remote, image: Path, path: str, progress: Progress) -> None:
    """Send an image so that it is at `path` there, whole and right, or not at all.

    Raises MorphError if something is there already, or the content is another in the end.
    """
    size = image.stat().st_size
    with partial_file(remote, path) as part:
        digest = send(remote, image, ("file", part, str(size)), progress)
        check_content(remote, part, size, digest)
        publish(remote, part, path)


@contextmanager
def partial_file(remote: Remote, path: str) -> Iterator[str]:
    """The name of a file beside `path`, which is removed if the block fails."""
    directory, _, name = path.rpartition("/")
    part = f"{directory}/.{name[:50]}.{secrets.token_hex(6)}.morph-part"
    with undone_on_failure(f"remove {part}", lambda: remove(remote, part)):
        yield part


def check_content(remote: Remote, path: str, size: int, digest: str) -> None:
    """Raises MorphError if a file there is not what was sent."""
    done = remote.script(_DIGEST, path, check=False, what=f"sha256sum {path}")
    if done.status == _NO_SHA256SUM:
        found = remote.output("stat", "-c", "%s", path).strip()
        right = found == str(size)
    elif done.status == 0:
        right = done.stdout.split()[:1] == [digest.encode()]
    else:
        raise remote.failure(f"sha256sum {path}", done.status, done.stderr)
    if not right:
        raise MorphError(
            f"{path} on {remote} is not what was sent: its disk may be bad", reason=Reason.DEPLOY
        )


def publish(remote: Remote, part: str, path: str) -> None:
    """Give a file there its name. Raises MorphError if something has that name."""
    remote.script(_PUBLISH, part, path, what=f"renaming {part} to {path}")


def remove(remote: Remote, path: str) -> None:
    remote.run("rm", "-f", "--", path)
