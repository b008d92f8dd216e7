"""Which ids a user namespace has: maps from the ids inside to those outside."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from morphlib.process import run

IdMap = tuple[tuple[int, int, int], ...]  # (first id inside, first id outside, how many)


def own_maps() -> tuple[IdMap, IdMap]:
    """Root's maps, of uids and gids: every id that there is here keeps its number."""
    return _own_map("uid"), _own_map("gid")


def _own_map(which: str) -> IdMap:
    lines = Path(f"/proc/self/{which}_map").read_text().splitlines()
    rows = [tuple(map(int, line.split())) for line in lines]
    return tuple((inside, inside, count) for inside, _, count in rows)


def user_maps(problems: list[str]) -> tuple[IdMap, IdMap]:
    """A user's maps: itself as 0, and its subordinate ids as 1 and up.

    What keeps the user from having any goes to `problems`.
    """
    own_uid: IdMap = ((0, os.geteuid(), 1),)
    own_gid: IdMap = ((0, os.getegid(), 1),)
    names = {str(os.getuid()), _user_name()}
    uids = subordinate_ranges(Path("/etc/subuid"), names)
    gids = subordinate_ranges(Path("/etc/subgid"), names)
    who = _user_name()
    why = "Without subordinate ids, builds that give files to other users than root fail. "
    if not uids or not gids:
        problems.append(
            f"{why}Run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}"
        )
    elif shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        problems.append(f"{why}Install newuidmap and newgidmap (package uidmap).")
    else:
        return own_uid + _after_zero(uids), own_gid + _after_zero(gids)
    return own_uid, own_gid


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def subordinate_ranges(file: Path, names: set[str]) -> tuple[tuple[int, int], ...]:
    """The (first, count) ranges that a file such as /etc/subuid gives to a user."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    ranges = []
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit():
            ranges.append((int(fields[1]), int(fields[2])))
    return tuple(each for each in ranges if each[1] > 0)


def _after_zero(ranges: tuple[tuple[int, int], ...]) -> IdMap:
    rows, first = [], 1
    for outside, count in ranges:
        rows.append((first, outside, count))
        first += count
    return tuple(rows)


def write_maps(target: int, uids: IdMap, gids: IdMap) -> None:
    """Give the process `target`, which made a user namespace, these ids. Called outside of it."""
    directory = Path(f"/proc/{target}")
    if os.geteuid() == 0:
        (directory / "uid_map").write_text(_as_text(uids))
        (directory / "gid_map").write_text(_as_text(gids))
        return
    if len(uids) == 1:
        (directory / "setgroups").write_text("deny")
        (directory / "uid_map").write_text(_as_text(uids))
        (directory / "gid_map").write_text(_as_text(gids))
        return
    for program, rows in (("newuidmap", uids), ("newgidmap", gids)):
        run([program, str(target), *(str(number) for row in rows for number in row)])


def _as_text(rows: IdMap) -> str:
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)
