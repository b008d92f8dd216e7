"""Staging areas: the trees of several layers as one.

A staging area is an overlay mount, read-only for building and writable for putting a system
together. What is in it is what unpacking the layers' archives one after the other would give;
layers for which overlayfs would do something else are rearranged first. Where there is no overlayfs
a staging area is made of hard links, or of copies if it is to be written to.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from morphlib.build import syscalls
from morphlib.build.layers import Layer, load_layer
from morphlib.build.ldconfig import needs_ldconfig, run_ldconfig
from morphlib.build.members import MTIME_NS, Member
from morphlib.build.merging import Arrangement, Stack
from morphlib.build.overlay import MAX_LAYERS, OverlayUnavailable, mount_overlay
from morphlib.build.removal import remove_tree
from morphlib.build.trees import donor, fold_stacked, lay_out, merged_devices, rearrange_layer
from morphlib.errors import MorphError, Reason

#: Layers to an overlay, leaving room for the mount points and changes.
_MOST = MAX_LAYERS - 10

#: What a layer became on top of others, by the serials of its index and theirs.
_prepared: dict[tuple[int, ...], Layer] = {}


@dataclass(frozen=True, slots=True)
class Staged:
    """A staging area that is there: where its tree is, and the device nodes of its layers, which
    in the tree are empty files. `changed` has, at the same paths, at least what was changed in the
    tree. `fallback` says why it is no overlay, if it is none."""

    root: Path
    devices: tuple[Member, ...]
    changed: Path
    fallback: str | None = None


@contextlib.contextmanager
def stage(
    layers: Sequence[Layer],
    mountpoints: Sequence[str],
    work: Path,
    *,
    ldconfig_log: int | None = None,
    use_overlay: bool = True,
) -> Iterator[Staged]:
    """A read-only staging area of layers in the order in which they would be unpacked.

    `mountpoints` are paths at which it has directories, whatever the layers have there. It appears
    as `work`/root; `work` is an existing directory, left as it was. If `ldconfig_log` is given,
    ldconfig is run for it where it has etc/ld.so.conf, with its output going to this descriptor.
    Nothing else keeps what has the area from being written to where it has: a sandbox does.
    Raises MorphError.
    """
    fit = prepare_layers(layers)
    top = work / "top"
    try:
        _make_mount_points(top, mountpoints)
    except OSError as error:
        raise _failure(work, error) from error
    writable = ldconfig_log is not None and needs_ldconfig(_stack(fit).kind)
    with _staged(fit, top, work, writable=writable, use_overlay=use_overlay) as staged:
        if ldconfig_log is not None and writable:
            run_ldconfig(staged.root, work, ldconfig_log)
        yield staged


def _stack(layers: Sequence[Layer]) -> Stack:
    stack = Stack()
    for layer in layers:
        stack.push(layer.index)
    return stack


@contextlib.contextmanager
def stage_writable(
    layers: Sequence[Layer],
    work: Path,
    *,
    use_overlay: bool = True,
    changes: Path | None = None,
) -> Iterator[Staged]:
    """A staging area of layers that can be changed; the layers can't. See `stage`.

    With `changes`, a directory that need not exist yet, what is changed stays there, and what was
    changed of the same layers before is there again.
    """
    fit = prepare_layers(layers)
    with _staged(
        fit, None, work, writable=True, use_overlay=use_overlay, changes=changes
    ) as staged:
        yield staged


@contextlib.contextmanager
def _staged(
    layers: Sequence[Layer],
    top: Path | None,
    work: Path,
    *,
    writable: bool,
    use_overlay: bool,
    changes: Path | None = None,
) -> Iterator[Staged]:
    root, upper = work / "root", work / "upper"
    kept_upper, kept_root = (changes / "upper", changes / "root") if changes else (None, None)
    lower = [layer.root for layer in layers] + ([top] if top is not None else [])
    fallback = None
    try:
        try:
            root.mkdir()
            if not use_overlay:
                raise OverlayUnavailable("overlay mounts are switched off")
            if writable and not _take_back(kept_upper, upper):
                _make_upper(upper, layers)
            mount_overlay(
                lower or [_empty(work)], root, upper=upper if writable else None, scratch=work
            )
        except OverlayUnavailable as reason:
            fallback = str(reason)
            if not _take_back(kept_root, root):
                _lay_out_instead(layers, root, top, writable=writable)
        except OSError as error:
            raise _failure(work, error) from error
        yield Staged(root, merged_devices(layers), root if fallback else upper, fallback)
    finally:
        if fallback is None:
            with contextlib.suppress(OSError):
                syscalls.unmount(os.fspath(root))
            _put_aside(upper, kept_upper)
        else:
            _put_aside(root, kept_root)
        for each in (root, upper, top, work / "overlay-work", work / "empty"):
            if each is not None:
                remove_tree(each)


def _take_back(kept: Path | None, place: Path) -> bool:
    """Move what was kept to its place, which may be an empty directory. False if there is none."""
    if kept is None or not kept.is_dir():
        return False
    kept.rename(place)
    return True


def _put_aside(tree: Path, kept: Path | None) -> None:
    if kept is not None and tree.is_dir():
        with contextlib.suppress(OSError):  # at worst there is less to look at later
            kept.parent.mkdir(exist_ok=True)
            tree.rename(kept)


def _lay_out_instead(
    layers: Sequence[Layer], root: Path, top: Path | None, *, writable: bool
) -> None:
    try:
        root.rmdir()
        lay_out(layers, root, writable=writable)
        if top is not None:
            _add_directories(root, top)
    except OSError as error:
        raise _failure(root.parent, error) from error


def _empty(work: Path) -> Path:
    empty = work / "empty"
    empty.mkdir()
    return empty


def _make_upper(upper: Path, layers: Sequence[Layer]) -> None:
    """The top of a writable area is that of the last layer that has one of its own."""
    upper.mkdir(mode=0o755)
    deciding = [layer for layer in layers if layer.index.has_top]
    if deciding:
        found = deciding[-1].root.lstat()
        os.chown(upper, found.st_uid, found.st_gid)
        upper.chmod(found.st_mode & 0o7777)
    os.utime(upper, ns=MTIME_NS)


def _make_mount_points(top: Path, mountpoints: Sequence[str]) -> None:
    top.mkdir()
    for mountpoint in mountpoints:
        (top / mountpoint.strip("/")).mkdir(parents=True, exist_ok=True)
    for directory, _, _ in os.walk(top):
        os.utime(directory, ns=MTIME_NS)  # builds see when `/` was changed


def _add_directories(root: Path, top: Path) -> None:
    """Make the directories of `top` in a tree of hard links, in place of what else is there."""
    for directory, _, _ in os.walk(top):
        path = root / os.path.relpath(directory, top)
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            path.mkdir(mode=0o755)


def prepare_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The same layers, fit to be stacked: rearranged where needed, and not too many."""
    stack = Stack()
    fit: list[Layer] = []
    for layer in layers:
        layer = _fit_for(stack, layer, fit)
        fit.append(layer)
        stack.push(layer.index)
    if len(fit) <= _MOST:
        return tuple(fit)
    many = fit[: len(fit) - _MOST + 1]
    names = "\0".join(layer.directory.name for layer in many)
    folded = _kept(many[0].directory, "folded", _sum(names), lambda into: fold_stacked(many, into))
    return (folded, *fit[len(many) :])


def fold_layers(layers: Sequence[Layer], into: Path) -> Layer:
    """One layer that comes to what unpacking several gives, made by hard links, or the one that is
    there already. Safe when several processes do it at once.

    It can stand for `layers` where these would be unpacked one right after the other. Raises
    MorphError.
    """
    return load_layer(into) or fold_stacked(prepare_layers(layers), into)


def _fit_for(stack: Stack, layer: Layer, below: Sequence[Layer]) -> Layer:
    if not stack.clashes_with(layer.index):
        return layer
    situation = (layer.index.serial, *(index.serial for index in stack.indexes))
    fit = _prepared.get(situation)
    if fit is None or not fit.directory.exists():
        arrangement = stack.arrange(layer.index)
        fit = layer if arrangement is None else _rearranged(layer, arrangement, below)
        _prepared[situation] = fit
    return fit


def _rearranged(layer: Layer, arrangement: Arrangement, below: Sequence[Layer]) -> Layer:
    """The rearranged copy of a layer; it is kept beside it for others that need the same."""
    lines = []
    for place, path in arrangement.entries:
        lines.append(f"{place}\0{path or ''}")
        if path is None:
            found = os.lstat(donor(place, below))
            lines.append(f"{found.st_mode} {found.st_uid} {found.st_gid}")
    return _kept(
        layer.directory,
        "placed",
        _sum("\0\0".join(lines)),
        lambda into: rearrange_layer(layer, arrangement, below, into),
    )


def _sum(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]


def _kept(beside: Path, what: str, digest: str, make: Callable[[Path], Layer]) -> Layer:
    """A layer made of others. Its name begins like theirs, with a key that keeps it from being
    collected while that is in use."""
    stem = beside.name.partition(".")[0]
    into = beside.with_name(f"{stem}.{what}-{digest}.d")
    return load_layer(into) or make(into)


def _failure(work: Path, error: OSError) -> MorphError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return MorphError(
        f"Can't make a staging area in {work}: {error}",
        reason=Reason.SPACE if full else Reason.SANDBOX,
        hint="Run morph gc, or free some space." if full else None,
    )
