"""Labels of system versions, which name directories beside each other on the target."""

from __future__ import annotations

import re

from morphlib.writeexts.parameters import Parameter

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_MAX = 200


def version_label(
    help: str,
    default: str = "",
    *,
    name: str = "VERSION_LABEL",
    required: bool = False,
    missing: str = "",
) -> Parameter[str]:
    """A parameter that names a version: letters, digits and hyphens."""

    def parse(text: str) -> str:
        label = text.strip()
        if not _LABEL.fullmatch(label) or len(label) > _MAX:
            raise ValueError(
                f"{name} {text!r} is not made of letters, digits and hyphens (at most {_MAX})"
            )
        if label == "default":
            raise ValueError(f"{name} can't be default: that names the version that boots")
        return label

    return Parameter(name, help, parse, default, required=required, shown=default, missing=missing)
