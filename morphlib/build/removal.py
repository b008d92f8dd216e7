"""Removing trees that builds left, whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path

from morphlib.build.namespace import enter_build_namespace
from morphlib.cache.trees import delete_tree
from morphlib.errors import MorphError, Reason

_DENIED = 77  # status of a child that could not remove a tree


def remove_tree(path: Path) -> None:
    """Remove a file or a tree; nothing happens if it is not there.

    A tree may have directories that can't be entered, and, where the caller is an ordinary user,
    files of its subordinate ids: for these a child enters a user namespace. Nothing may be
    added to the tree meanwhile, or be mounted in it. Raises MorphError if something can't be
    removed.
    """
    try:
        delete_tree(path)
    except PermissionError:
        if os.geteuid() == 0 or not _remove_in_namespace(path):
            raise _failure(path, "some of it belongs to somebody else") from None
    except OSError as error:
        raise _failure(path, error.strerror or str(error)) from error


def _remove_in_namespace(path: Path) -> bool:
    child = os.fork()
    if child == 0:
        status = _DENIED
        try:
            enter_build_namespace()
            delete_tree(path)
            status = 0
        except (MorphError, OSError):
            status = _DENIED
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _failure(path: Path, why: str) -> MorphError:
    return MorphError(
        f"Can't remove {path}: {why}",
        reason=Reason.CACHE,
        hint="Remove it by hand (as root, if need be).",
    )
