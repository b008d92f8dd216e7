"""Morph builds whole Linux systems from definitions kept in git."""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """What extensions for older Morphs find after `import morphlib`, loaded when it is used."""
    match name:
        case "util" | "writeexts":
            return importlib.import_module(f"{__name__}.{name}")
        case "Error":
            return importlib.import_module(f"{__name__}.writeexts.ported").ExtensionError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
