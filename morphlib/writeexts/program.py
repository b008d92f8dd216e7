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


def main(program: str) -> None:
    """Run the extension that the program's file name tells."""
    name, _, kind = Path(program).name.rpartition(".")
    try:
        extension = load_extension(name, kind)
    except ModuleNotFoundError as error:
        _try_own_python(program)
        complain(f"ERROR: {name}.{kind} needs the Python library {error.name}")
        sys.exit(1)
    extension.run()


def _try_own_python(program: str) -> None:
    """Run by hand, with a Python that lacks libraries: go on with that of the checkout."""
    python = _CHECKOUT / ".venv" / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != (_CHECKOUT / ".venv").resolve():
        os.execv(python, [str(python), "-X", "utf8", program, *sys.argv[1:]])
