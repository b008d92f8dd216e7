"""Labels of system versions, which name directories beside each other on the target."""

from __future__ import annotations

import re

from morphlib.writeexts.parameters import Parameter

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_MAX = 200


def version_label(
    help: str, default: str = "", *, required: bool = False, missing: str = ""
) -> Parameter[str]:
    """The parameter VERSION_LABEL: letters, digits and hyphens."""
    return Parameter(
        "VERSION_LABEL",
        help,
        _parse,
        default,
        required=required,
        shown=default,
        missing=missing,
    )


def _parse(text: str) -> str:
    label = text.strip()
    if not _LABEL.fullmatch(label) or len(label) > _MAX:
        raise ValueError(
            f"VERSION_LABEL {text!r} is not made of letters, digits and hyphens (at most {_MAX})"
        )
    if label == "default":
        raise ValueError("VERSION_LABEL can't be default: that names the version that boots")
    return label
