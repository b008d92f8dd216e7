"""A table of file systems in a file, for extensions that change it line by line."""

from __future__ import annotations

import os
from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.aside import new_file
from morphlib.writeexts.fstab import read_mounts


class Fstab:
    """The table in the file at `path`, which may be missing.

    A symlink at `path` is refused: in a system it could lead to the table of this machine. Where
    other parts of a path may be hostile too, use `Tree.read_text` and `fstab.complete_fstab`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.is_symlink():
            raise MorphError(f"{self.path} is a symlink", reason=Reason.DEPLOY)
        self._found = self.path.stat() if self.path.exists() else None
        content = self.path.read_bytes() if self._found is not None else b""
        self.text = content.decode("utf-8", "surrogateescape")

    def get_mounts(self) -> dict[str, str]:
        """Mount point -> device; see `fstab.read_mounts`."""
        return read_mounts(self.text)

    def add_line(self, text: str) -> None:
        """Add a line at the end. `write` puts it into the file."""
        if not self.text.endswith("\n"):
            self.text += "\n"
        self.text += text.rstrip("\n") + "\n"

    def write(self) -> None:
        """Replace the file at once; it keeps its owner and mode. Raises MorphError."""
        mode = 0o644 if self._found is None else self._found.st_mode & 0o7777
        with new_file(self.path, mode=mode) as part:
            part.write_bytes(self.text.encode("utf-8", "surrogateescape"))
            if self._found is not None and os.geteuid() == 0:
                os.chown(part, self._found.st_uid, self._found.st_gid)
