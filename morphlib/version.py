"""Which Morph this is."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def describe_version() -> str:
    """The commit of the checkout that runs, `-unreproducible` appended when it was modified.

    An installed Morph has the version that packaging gave it.
    """
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / ".git").exists():
        return _commit(checkout) or "unknown"
    from importlib import import_module

    try:
        return str(import_module("morphlib._version").version)  # written when it is packaged
    except ModuleNotFoundError:
        return "unknown"


def _commit(checkout: Path) -> str | None:
    from morphlib.process import ProcessError, run

    # The caller's GIT_DIR and the like speak of another repository. A checkout that belongs to
    # somebody else is fine: its code is running already.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    command += ["-C", str(checkout), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        described = run([*command, "--dirty=-unreproducible"], env=environment)
    except ProcessError:
        return None
    return described.stdout.decode("ascii", "replace").strip() or None


def version_details() -> dict[str, str]:
    """Branch (`ref`), `commit` and `tree` of the checkout that runs, and its `version`.

    Those that are not known, as of an installed Morph, are empty.
    """
    from morphlib.process import ProcessError, run

    checkout = Path(__file__).resolve().parent.parent
    details = {"ref": "", "commit": "", "tree": "", "version": describe_version()}
    if not (checkout / ".git").exists():
        return details
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-c", "safe.directory=*", "-C", str(checkout), "rev-parse"]
    try:
        found = run([*command, "--abbrev-ref", "HEAD"], env=environment).stdout.decode()
        ids = run([*command, "HEAD", "HEAD^{tree}"], env=environment).stdout.decode()
    except ProcessError:
        return details
    commit, tree = ids.split()
    return details | {"ref": found.strip(), "commit": commit, "tree": tree}
