"""Layers: the unpacked trees of chunk artifacts, of which staging areas and systems are stacked.

A layer is a directory NAME.d that holds `root`, the tree, and `index`, which tells whether the tree
is still what it was and holds the device nodes: these are never on disk, an empty file stands for
each. A layer is put together aside and renamed into place, so it is there whole or not at all, and
of several processes that make one the first wins. Nobody writes to a layer afterwards.
"""

# Plain text paths here: making Path objects takes longer than the system calls.
# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH116

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from morphlib.build.members import DIRECTORY_MODE, MTIME_NS, Member, walk_tree
from morphlib.build.removal import remove_tree
from morphlib.build.treelines import UnfitTreeError, digest, lines_of_members, lines_of_tree
from morphlib.build.unpack import make_placeholder, unpack_tar
from morphlib.errors import MorphError, Reason

_VERSION = 1
_KINDS = 0o170000
_serials = itertools.count()


@dataclass(frozen=True, slots=True, eq=False)
class LayerIndex:
    """Which paths of a layer are directories and which are something else.

    `links` holds the targets of symlinks, `devices` the nodes; both are among `others` as well.
    `has_top` says whether the top is a member, that is, decides owner and mode of the root.
    """

    directories: frozenset[str]
    others: frozenset[str]
    links: Mapping[str, str]
    devices: Mapping[str, Member]
    has_top: bool = True
    serial: int = field(default_factory=lambda: next(_serials))

    @classmethod
    def of(
        cls, members: Iterable[Member], devices: Iterable[Member] = (), *, has_top: bool = True
    ) -> LayerIndex:
        directories, others, links = [], [], {}
        for member in members:
            if member.is_directory:
                directories.append(member.path)
                continue
            others.append(member.path)
            if member.target is not None:
                links[member.path] = member.target
        nodes = {device.path: device for device in devices}
        directories.remove(".")
        return cls(frozenset(directories), frozenset(others), links, nodes, has_top)

    @classmethod
    def of_lines(
        cls, lines: Sequence[str], devices: Iterable[Member], *, has_top: bool
    ) -> LayerIndex:
        """The same from what `treelines` makes of a tree."""
        directories, others, links = [], [], {}
        for line in lines[1:]:  # but for the top
            path, mode, _, _, _, target = line.split("\0")
            if int(mode) & _KINDS == stat.S_IFDIR:
                directories.append(path)
                continue
            others.append(path)
            if target:
                links[path] = target
        nodes = {device.path: device for device in devices}
        return cls(frozenset(directories), frozenset(others), links, nodes, has_top)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer on disk."""

    directory: Path
    index: LayerIndex
    root: Path = field(init=False)  # asked for by all that stages it

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.directory / "root")


@dataclass(frozen=True, slots=True)
class Part:
    """What goes into one layer: its directory's name, and the members of its artifact."""

    name: str
    members: tuple[Member, ...]


class _Stored(msgspec.Struct, frozen=True):
    """The file `index`."""

    version: int
    digest: bytes
    has_top: bool
    devices: list[tuple[bytes, int, int, int, int]]  # path, mode, uid, gid, number


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode
_loaded: dict[tuple[str, int], Layer] = {}


def layer_name(artifact: str) -> str:
    """The name of the layer of an artifact, given the name of the artifact's file."""
    return artifact + ".d"


def load_layer(directory: Path, *, may_fork: bool = False) -> Layer | None:
    """A layer that was made before; None if there is none, or its tree was altered.

    The whole tree is looked at, once per process. With `may_fork`, for callers that have a single
    thread and nothing else to do meanwhile, in half the time if it is large.
    """
    try:
        identity = _identity(directory)
        known = _loaded.get(identity)
        if known is not None:
            return known
        stored = _decode((directory / "index").read_bytes())
        lines = lines_of_tree(os.fspath(directory / "root"), may_fork=may_fork)
        if stored.version != _VERSION or digest(lines) != stored.digest:
            return None
    except (OSError, UnfitTreeError, msgspec.DecodeError):
        return None
    devices = [
        Member(os.fsdecode(path), mode, uid, gid, device=number)
        for path, mode, uid, gid, number in stored.devices
    ]
    layer = Layer(directory, LayerIndex.of_lines(lines, devices, has_top=stored.has_top))
    _loaded[identity] = layer
    return layer


def layer_from_tar(tar: Path, into: Path) -> Layer:
    """Make the layer `into` of an archive. Raises MorphError if that is damaged or hostile."""
    with layer_in_making(into) as making:
        devices = unpack_tar(tar, making.root)
        # What is unpacked has no attributes to lose; this brings the times of directories.
        members = walk_tree(making.root)
        making.finish(members, devices, has_top=True)
    return making.layer


def layers_from_install(
    install: Path, parts: Sequence[Part], into: Path, *, members: Sequence[Member]
) -> tuple[Layer, ...]:
    """Make layers below `into` of what a chunk installed, which is `members`.

    The files are moved: nothing is left of `install`. Members with content are written, and for
    device nodes there are empty files. Parts share no file: see `separate_links`.
    """
    installed = {member.path for member in members}
    if len(parts) == 1 and installed.issubset(member.path for member in parts[0].members):
        return (_move_whole(install, parts[0], into, installed),)
    layers = tuple(_move_members(install, part, into) for part in parts)
    remove_tree(install)
    return layers


def separate_links(
    install: Path, artifacts: Mapping[str, tuple[Member, ...]]
) -> dict[str, tuple[Member, ...]]:
    """The same members, with a file of its own for each artifact that has a name of one.

    Hard links are kept within an artifact only: archives can't have others, and layers have to be
    what archives are. All but the first artifact get copies, in `install`. Raises OSError.
    """
    owners: dict[tuple[int, int], str] = {}
    result = {}
    for artifact, members in artifacts.items():
        copies: dict[tuple[int, int], Member] = {}
        result[artifact] = tuple(
            member
            if member.inode is None or owners.setdefault(member.inode, artifact) == artifact
            else _copy_once(install, member, copies)
            for member in members
        )
    return result


def _copy_once(install: Path, member: Member, copies: dict[tuple[int, int], Member]) -> Member:
    """Put a copy, or a link to the copy that was made before, in the place of a file."""
    assert member.inode is not None
    full = os.fspath(install / member.path)
    aside = os.fspath(install / f".{os.urandom(12).hex()}")
    made = copies.get(member.inode)
    if made is None:
        copy_file(full, aside, member)
        found = os.lstat(aside)
        made = copies[member.inode] = member._replace(inode=(found.st_dev, found.st_ino))
    else:
        os.link(install / made.path, aside, follow_symlinks=False)
    os.rename(aside, full)
    return member._replace(inode=made.inode)


def _move_whole(install: Path, part: Part, into: Path, installed: set[str]) -> Layer:
    with layer_in_making(into / part.name) as making:
        os.rename(install, making.root)
        for member in part.members:
            full = making.top + member.path
            if member.is_directory:
                if member.path not in installed:
                    _make_directory(full, member)
            elif member.content is not None or member.is_device:
                if member.path in installed:
                    os.unlink(full)
                _create(full, member)
        _finish_part(making, part)
    return making.layer


def _move_members(install: Path, part: Part, into: Path) -> Layer:
    """Move the files of one of several artifacts."""
    source = os.fspath(install) + "/"
    with layer_in_making(into / part.name) as making:
        os.mkdir(making.root, 0o755)
        for member in part.members:
            full = making.top + member.path
            if member.is_directory:
                _make_directory(full, member)
            elif member.content is not None or member.is_device:
                _create(full, member)
            else:
                os.rename(source + member.path, full)
        _finish_part(making, part)
    return making.layer


def _finish_part(making: LayerInMaking, part: Part) -> None:
    devices = [member for member in part.members if member.is_device]
    has_top = bool(part.members) and part.members[0].path == "."
    members = part.members if has_top else (Member(".", DIRECTORY_MODE), *part.members)
    making.finish(members, devices, has_top=has_top)


def _make_directory(full: str, member: Member) -> None:
    if member.path != ".":
        os.mkdir(full, 0o700)
    set_owner(full, member)


def _create(full: str, member: Member) -> None:
    if member.is_device:
        make_placeholder(full)
        return
    assert member.content is not None
    fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(member.content)
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)
    set_owner(full, member)
    os.utime(full, ns=MTIME_NS)


def set_owner(full: str, member: Member) -> None:
    """Give a new file, no symlink, the owner and mode of a member."""
    # Also to 0: the group of a new file can come from its directory.
    os.chown(full, member.uid, member.gid)
    os.chmod(full, member.mode & 0o7777)


def copy_file(source: str, full: str, member: Member) -> None:
    """Copy a regular file with owner and mode, as a new one."""
    shutil.copyfile(source, full, follow_symlinks=False)
    set_owner(full, member)
    os.utime(full, ns=MTIME_NS)


class LayerInMaking:
    """A layer that is being made aside."""

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        token = f"{os.getpid()}-{next(_serials)}-{os.urandom(4).hex()}"
        # The name begins with the key, so garbage collection knows whose it is.
        self.directory = destination.with_name(f"{destination.name}.tmp-{token}")
        self.root = self.directory / "root"
        self.top = os.fspath(self.root) + "/"
        self._index: LayerIndex | None = None
        self._layer: Layer | None = None

    @property
    def layer(self) -> Layer:
        assert self._layer is not None
        return self._layer

    def finish(
        self, members: Sequence[Member], devices: Iterable[Member], *, has_top: bool
    ) -> None:
        """Give directories their time and write the index. The tree holds `members`."""
        nodes = tuple(devices)
        for member in reversed(members):
            if member.is_directory:
                os.utime(self.top + member.path, ns=MTIME_NS)
        stored = _Stored(
            version=_VERSION,
            digest=digest(lines_of_members(members)),
            has_top=has_top,
            devices=[
                (os.fsencode(node.path), node.mode, node.uid, node.gid, node.device)
                for node in nodes
            ],
        )
        (self.directory / "index").write_bytes(_encode(stored))
        self._index = LayerIndex.of(members, nodes, has_top=has_top)

    def publish(self) -> None:
        """Rename the layer into place; if one is there already and intact, take that."""
        assert self._index is not None
        while True:
            try:
                os.rename(self.directory, self.destination)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            existing = load_layer(self.destination)
            if existing is not None:
                self._layer = existing
                return
            discard_layer(self.destination)
        self._layer = Layer(self.destination, self._index)
        _loaded[_identity(self.destination)] = self._layer


@contextlib.contextmanager
def layer_in_making(destination: Path) -> Iterator[LayerInMaking]:
    making = LayerInMaking(destination)
    try:
        # Nobody else may come by the set-user-id programs of a tree.
        making.directory.mkdir(mode=0o700, parents=True)
        yield making
        making.publish()
    except OSError as error:
        raise _failure(destination, error) from error
    finally:
        remove_tree(making.directory)


def discard_layer(directory: Path) -> None:
    """Remove a layer that is damaged, at once for all that look for it."""
    aside = directory.with_name(f"{directory.name}.tmp-{os.getpid()}-{os.urandom(4).hex()}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory, aside)
    remove_tree(aside)


def _identity(directory: Path) -> tuple[str, int]:
    return os.fspath(directory), os.stat(directory).st_ino


def _failure(directory: Path, error: OSError) -> MorphError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return MorphError(
        f"Can't make layer {directory}: {error.strerror or error}",
        reason=Reason.SPACE if full else Reason.CACHE,
        hint="Run morph gc, or free some space." if full else None,
    )
