"""Functions that extensions for older Morphs know as `morphlib.util`. Nothing else uses them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.aside import new_file

_PACKAGE = Path(__file__).parent


def write_from_dict(
    path: str | os.PathLike[str],
    mapping: Mapping[str, str],
    validate: Callable[[str, str], object] = lambda key, value: True,
) -> None:
    """Append the values to a text file, one a line, in the order of their code points.

    `validate` gets each key and value before anything is written, and raises for what is wrong. The
    file is made if it is missing, and gets mode 0644 and, from root, owner 0:0. A symlink in its
    place is refused. Raises MorphError if it can't be written.
    """
    pairs = sorted(mapping.items(), key=lambda pair: pair[1])
    for key, value in pairs:
        validate(key, value)
    target = Path(path)
    if target.is_symlink():
        raise MorphError(f"{target} is a symlink", reason=Reason.DEPLOY)
    content = target.read_bytes() if target.exists() else b""
    if content and not content.endswith(b"\n"):
        content += b"\n"
    with new_file(target, mode=0o644) as part:
        part.write_bytes(content + b"".join(os.fsencode(value) + b"\n" for _, value in pairs))
        if os.geteuid() == 0:
            os.chown(part, 0, 0)


def parse_environment_pairs(env: Mapping[str, str], pairs: Iterable[str]) -> dict[str, str]:
    """The environment with `KEY=VALUE` pairs added. Raises MorphError for keys that it has."""
    added = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise MorphError(f"{pair!r} is not KEY=VALUE", reason=Reason.DEPLOY)
        added[key] = value
    known = sorted(added.keys() & env.keys())
    if known:
        raise MorphError(f"Keys {known} are already set in the environment", reason=Reason.DEPLOY)
    return {**env, **added}


def get_data_path(relative_path: str) -> str:
    """Where a file that comes with Morph is: below its package, or among its extensions."""
    for directory in (_PACKAGE, _PACKAGE / "exts"):
        if (directory / relative_path).exists():
            return str(directory / relative_path)
    return str(_PACKAGE / relative_path)


def get_data(relative_path: str) -> str:
    """The text of a file that comes with Morph. Raises OSError if there is none."""
    return Path(get_data_path(relative_path)).read_text()
