"""What builds leave behind, removed when there is time for it.

File systems make new files slowly right after many were removed (ext4 looks for inodes that were
not in use lately), so a builder that removes one chunk's directories before it builds the next pays
twice. The leavings of quick builds, which are small, wait until the builder has nothing to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from morphlib.build.removal import remove_tree

#: Seconds after which a build is no quick one.
QUICK = 2.0
_MOST = 500


@dataclass(slots=True)
class Leavings:
    waiting: list[Path] = field(default_factory=list)

    def discard(self, path: Path, duration: float) -> None:
        """Remove a tree: now, or later if the build that made it took few seconds."""
        self.waiting.append(path)
        if duration > QUICK or len(self.waiting) > _MOST:
            self.remove_one()

    def remove_one(self) -> bool:
        """Remove the tree that came last. Says whether there was one.

        If a signal interrupts that, what is left of the tree still waits.
        """
        if not self.waiting:
            return False
        path = self.waiting[-1]
        try:
            remove_tree(path)
        except Exception:
            self.waiting.remove(path)
            raise
        self.waiting.remove(path)
        return True
