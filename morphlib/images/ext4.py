"""Making ext4 file systems without mounting them: mke2fs makes an empty one, debugfs fills it.

`mke2fs -d` would fill it as well, but in the order in which a directory happens to be read, with
the times at which files happened to be changed, and with device nodes only for who can make them.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from morphlib import process
from morphlib.errors import MorphError, Reason
from morphlib.images.programs import Program

MKE2FS = Program("mke2fs", "e2fsprogs")
DEBUGFS = Program("debugfs", "e2fsprogs")
E2FSCK = Program("e2fsck", "e2fsprogs")

BLOCK = 4096
MIB = 1 << 20
#: Smaller ones have no room for a journal.
SMALLEST = MIB
_JOURNALS = ((8 * MIB, 0), (128 * MIB, 4), (1 << 30, 16), (2 << 30, 32))  # below this size: MiB
_LARGEST_JOURNAL = 64  # MiB
_INODE = 256
# Those that mke2fs 1.43 and all later ones give, whatever this machine's mke2fs.conf says.
_FEATURES = (
    "none,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)
#: The first inode that is free: 11 is that of lost+found.
FIRST_INODE = 12
ROOT_INODE = 2
LOST_FOUND_INODE = 11
_ALLOCATED = re.compile(r"Allocated inode: (\d+)")
_NO_SPACE = re.compile(r"Could not allocate (block|inode)|No free space")
_DISK_FULL = os.strerror(errno.ENOSPC)  # where the image lies
_LONGEST_LINE = 8000  # debugfs reads so many characters at a time


@dataclass(frozen=True, slots=True)
class Geometry:
    """`size` in bytes, and how many inodes there are at least."""

    size: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Identity:
    """`time`, in seconds, is when it was made, as it tells."""

    uuid: UUID
    label: str
    time: int


def journal_size(size: int) -> int:
    """Of a file system of so many bytes, in MiB."""
    return next((journal for below, journal in _JOURNALS if size < below), _LARGEST_JOURNAL)


def fitting_size(blocks: int, inodes: int) -> int:
    """How large a file system has to be to hold so much and a quarter more, in bytes."""
    content = (blocks * BLOCK + inodes * _INODE) * 5 // 4
    size = content + content // 32 + 2 * MIB
    while size < content + content // 32 + (2 + journal_size(size)) * MIB:
        size += MIB
    return -(-size // MIB) * MIB


def make_ext4(image: Path, geometry: Geometry, identity: Identity) -> None:
    """Make an empty file system in a file, which becomes so long. Raises MorphError."""
    with image.open("r+b") as file:
        file.truncate(0)
        file.truncate(geometry.size)
    journal = journal_size(geometry.size)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
        settings.write("[defaults]\n\tbase_features = none\n\tdefault_mntopts = acl,user_xattr\n")
        settings.flush()
        process.run(
            [
                *(str(MKE2FS), "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-I", str(_INODE)),
                *("-O", _FEATURES + (",has_journal" if journal else ""), "-L", identity.label),
                *(("-J", f"size={journal}") if journal else ()),
                *("-N", str(geometry.inodes), "-U", str(identity.uuid), "-m", "1"),
                "-E",
                f"hash_seed={identity.uuid},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0",
                # `image` can't be taken for an option: it is absolute.
                *(image.resolve(),),
            ],
            env=_environment(identity) | {"MKE2FS_CONFIG": settings.name},
        )


class Script:
    """Commands for debugfs, and the inodes that they will get."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._next = FIRST_INODE
        self._announced: list[int] = []

    def enter(self, directory: str) -> None:
        """Go to a directory, by its path from the top."""
        self._add("cd", f"/{directory}")

    def file(self, source: Path, name: str) -> int:
        self._add("write", str(source), name)
        return self._take(announced=True)

    def directory(self, name: str) -> int:
        self._add("mkdir", name)
        return self._take(announced=False)

    def symlink(self, name: str, target: str) -> int:
        self._add("symlink", name, target)
        return self._take(announced=False)

    def fifo(self, name: str) -> int:
        self._add("mknod", name, "p")
        return self._take(announced=True)

    def device(self, name: str, mode: int, number: int) -> int:
        major, minor = os.major(number), os.minor(number)
        kind = "b" if stat.S_ISBLK(mode) else "c"
        small = major < 256 and minor < 256
        self._add("mknod", name, kind, *((str(major), str(minor)) if small else ("0", "0")))
        inode = self._take(announced=True)
        if not small:
            encoded = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
            self._set(inode, "block[0]", "0")
            self._set(inode, "block[1]", str(encoded))
        return inode

    def link(self, inode: int, name: str) -> None:
        """One more name for a file. `links` has to tell it how many there are."""
        self._add("ln", f"<{inode}>", name)

    def links(self, inode: int, count: int) -> None:
        self._set(inode, "links_count", str(count))

    def attributes(self, inode: int, mode: int, uid: int, gid: int, mtime: int) -> None:
        self._set(inode, "mode", f"0{mode:o}")
        self._set(inode, "uid", str(uid))
        self._set(inode, "gid", str(gid))
        self._set(inode, "mtime", f"@{mtime}")

    def extended(self, inode: int, name: str, value: Path) -> None:
        """An extended attribute; the value is in a file."""
        self._add("ea_set", "-f", str(value), f"<{inode}>", name)

    def _set(self, inode: int, field: str, value: str) -> None:
        self._add("set_inode_field", f"<{inode}>", field, value)

    def _take(self, *, announced: bool) -> int:
        inode, self._next = self._next, self._next + 1
        if announced:
            self._announced.append(inode)
        return inode

    def _add(self, *words: str) -> None:
        line = b" ".join(_quoted(word) for word in words)
        if b"\n" in line or len(line) > _LONGEST_LINE:
            what = words[1] if len(words[1]) < 300 else words[1][:300] + "..."
            raise MorphError(
                f"{what!r} can't be in an ext4 image that is made here: its name or target is too "
                "long or has a newline in it",
                reason=Reason.DEPLOY,
            )
        self.lines.append(line)

    def check_inodes(self, said: str) -> None:
        found = [int(number) for number in _ALLOCATED.findall(said)]
        if found != self._announced:
            raise MorphError(
                "debugfs gives other inodes than were expected of it: this is an error of Morph",
                reason=Reason.DEPLOY,
            )


def fill_ext4(image: Path, script: Script, identity: Identity) -> None:
    """Carry out a script on an empty file system that `make_ext4` made. Raises MorphError."""
    with (
        tempfile.NamedTemporaryFile(suffix=".debugfs") as commands,
        tempfile.TemporaryFile() as out,
    ):
        commands.write(b"\n".join(script.lines) + b"\n")
        commands.flush()
        argv = [str(DEBUGFS), "-w", "-f", commands.name, str(image.resolve())]
        with (
            tempfile.TemporaryFile() as complaints,
            process.spawn(
                argv, env=_environment(identity), stdout=out.fileno(), stderr=complaints.fileno()
            ) as child,
        ):
            try:
                status = child.wait()
            except BaseException:
                child.terminate()
                raise
            complaints.seek(0)
            _raise_complaints(argv, status, complaints.read())
        out.seek(0)
        script.check_inodes(out.read().decode("utf-8", "replace"))
    process.run([str(E2FSCK), "-f", "-n", image.resolve()], env=_environment(identity))


def _raise_complaints(argv: list[str], status: int, complaints: bytes) -> None:
    """debugfs goes on after errors and ends as if there had been none."""
    lines = complaints.decode("utf-8", "replace").splitlines()
    bad = [line for line in lines if line.strip() and not line.startswith("debugfs 1.")]
    if any(_DISK_FULL in line for line in bad):
        raise OSError(errno.ENOSPC, _DISK_FULL)
    if any(_NO_SPACE.search(line) for line in bad):
        raise MorphError(
            "the system does not fit into the ext4 image",
            reason=Reason.DEPLOY,
            hint="give it a larger DISK_SIZE, or none: then it is made large enough",
        )
    if bad or status != 0:
        raise process.ProcessError(argv, status or 1, "\n".join(bad[:20]).encode())


def _quoted(word: str) -> bytes:
    return b'"' + word.encode("utf-8", "surrogateescape").replace(b'"', b'""') + b'"'


def _environment(identity: Identity) -> dict[str, str]:
    # To these programs, a time of 0 is none.
    return {**os.environ, "E2FSPROGS_FAKE_TIME": str(max(identity.time, 1)), "LC_ALL": "C"}
