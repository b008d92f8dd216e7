"""What the machine says about a disk, turned into errors that tell people what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphlib.errors import MorphError, Reason

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_WRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def storage_error(error: OSError, doing: str, path: Path) -> MorphError:
    """The error to raise when `doing` (such as "store zlib-libs") met `error` at `path`."""
    what = error.strerror or str(error)
    if error.errno in _FULL:
        return MorphError(
            f"no room left on disk: can't {doing} in {path}: {what}",
            reason=Reason.SPACE,
            hint="Run `morph gc`, remove other files, or choose a larger disk with --cachedir and "
            "--tempdir. What was stored before is intact.",
        )
    if error.errno == errno.EFBIG:
        return MorphError(
            f"can't {doing} in {path}: {what}",
            reason=Reason.SPACE,
            hint="Raise the limit for the size of files (ulimit -f), or choose a file system that "
            "takes larger ones with --cachedir.",
        )
    if error.errno in _NOT_WRITABLE:
        return MorphError(
            f"can't {doing} in {path}: {what}",
            reason=Reason.CACHE,
            hint="Make that directory writable for you, or choose another with --cachedir.",
        )
    return MorphError(
        f"can't {doing} in {path}: {what}",
        reason=Reason.CACHE,
        hint="Look at the disk, or choose another place with --cachedir.",
    )


@contextmanager
def explain_failure(doing: str, path: Path) -> Iterator[None]:
    """Let an OSError of the block appear as the MorphError that `storage_error` makes of it."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing, path) from error
