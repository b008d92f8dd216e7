"""The programs `morphlib/exts/NAME.KIND`: each is a few lines that call `main` with its own name.

What they do stands in the module `morphlib.exts.NAME` (hyphens as underscores), whose `WRITE` and
`CONFIGURE` are the extensions of these kinds.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from morphlib.writeexts.extension import Extension
from morphlib.writeexts.output import complain

_CHECKOUT = Path(__file__).resolve().parents[2]


def load_extension(name: str, kind: str) -> Extension:
    """A built-in extension; `kind` is `write`, `check` or `configure`."""
    module = importlib.import_module("morphlib.exts." + name.replace("-", "_"))
    extension: Extension = module.CONFIGURE if kind == "configure" else module.WRITE
    return extension


_program: str | None = None


def main(program: str) -> None:
    """Run the extension that the program's file name tells."""
    global _program
    _program = program
    name, _, kind = Path(program).name.rpartition(".")
    try:
        extension = load_extension(name, kind)
    except ModuleNotFoundError as error:
        use_own_python()
        complain(f"ERROR: {name}.{kind} needs the Python library {error.name}")
        sys.exit(1)
    extension.run()


def use_own_python() -> None:
    """Where a library is missing: begin again with the Python of the checkout, which has it.

    Happens when an extension is run by hand. Returns if that would be no better; must be called
    before anything is changed.
    """
    python = _CHECKOUT / ".venv" / "bin" / "python"
    own = Path(sys.prefix).resolve() == (_CHECKOUT / ".venv").resolve()
    if _program is not None and python.exists() and not own:
        os.execv(python, [str(python), "-X", "utf8", _program, *sys.argv[1:]])
