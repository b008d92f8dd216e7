"""What is written from a system's artifact and the changes to it is what the tree has."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from morphlib.writeexts.base import UnknownChangeError, read_changes
from tests.deploy.world import World

LONG = "long-" * 30 + "name"
#: Writes what the tree has, as plain tar sees it.
PLAIN = """#!/bin/sh
exec tar -C "$1" --sort=name --format=posix --xattrs --xattrs-include='user.mine*' -cf "$2" .
"""
CHANGES = f"""#!/bin/sh
set -e
cd "$1"
echo changed >> etc/app.conf
touch -d @5 etc/app.conf
rm bin/tool
rmdir root
echo file > root
rm etc/odd
mkdir etc/odd
echo inside > etc/odd/inside
rm -r usr
mkdir usr
echo new > usr/new
chmod 711 etc
mkdir -p new/deep/{LONG}
echo long > new/deep/{LONG}/{LONG}
echo two > new/b
ln new/b new/a
ln -s ../{LONG}{LONG} new/link
mkfifo new/fifo
printf nl > "new/with
newline"
printf odd > "$(printf 'new/caf\\351')"
chmod 4711 new/b
truncate -s 1M new/hole
python3 -c "import os; os.setxattr('new/hole', 'user.mine', b'mine')"
"""


def members(archive: Path) -> dict[str, tuple[Any, ...]]:
    """Name -> what a tar says of it."""
    found = {}
    with tarfile.open(archive, errors="surrogateescape") as file:
        for info in file:
            content = b""
            if info.isreg():
                data = file.extractfile(info)
                assert data is not None
                content = data.read()
            attributes = {k: v for k, v in info.pax_headers.items() if k.startswith("SCHILY")}
            found[os.path.normpath(info.name)] = (
                info.type,
                info.mode,
                info.uid,
                info.gid,
                info.size,
                os.path.normpath(info.linkname) if info.islnk() else info.linkname,
                int(info.mtime),
                (info.devmajor, info.devminor) if info.isdev() else None,
                content,
                attributes,
            )
    return found


def deploy_all(world: World, script: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What a plain tar of the tree has, what ours, and what a directory."""
    world.write("plain.write", PLAIN, 0o755)
    world.write("change.configure", script, 0o755)
    world.configure_with("change")
    world.cluster(
        {"morph": "systems/sys.morph", "deploy": {"one": {"type": "plain", "location": "one.tar"}}},
        {"morph": "systems/sys.morph", "deploy": {"two": {"type": "tar", "location": "two.tar"}}},
        {"morph": "systems/sys.morph", "deploy": {"3": {"type": "sysroot", "location": "three"}}},
    )
    world.deploy()
    three = world.definitions / "three.tar"
    tar = ["tar", "-C", str(world.definitions / "three"), "--sort=name"]
    if world.trove.user == 0:
        tar += ["--format=posix", "--xattrs"]
        command = [*tar, "--xattrs-include=user.mine*", "-cf", str(three), "."]
        subprocess.run(command, check=True)
    found = [members(world.definitions / name) for name in ("one.tar", "two.tar")]
    for each in found:
        each.pop("dev/null")  # an ordinary user's tree has none
        # Written anew for each deployment.
        each.pop("baserock/deployment.meta")
        each["baserock"] = each["baserock"][:6]
    if world.trove.user == 0:
        found.append(members(three))
        found[2].pop("dev/null")
        found[2].pop("baserock/deployment.meta")
        found[2]["baserock"] = found[2]["baserock"][:6]
    else:
        found.append(found[0])
    return found[0], found[1], found[2]


def assert_equal(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    different = {name: (left[name], right[name]) for name in left if left[name] != right[name]}
    # Times of what the script made are those of its run.
    for name, (ours, theirs) in different.items():
        assert (*ours[:6], *ours[7:]) == (*theirs[:6], *theirs[7:]), name
        assert abs(ours[6] - theirs[6]) < 120, name


def test_nothing_but_the_metadata_is_changed(any_world: World) -> None:
    tree, tar, directory = deploy_all(any_world, "#!/bin/sh\n")
    assert_equal(tree, tar)
    assert_equal(tree, directory)


def test_all_kinds_of_changes(any_world: World) -> None:
    tree, tar, directory = deploy_all(any_world, CHANGES)
    assert "bin/tool" not in tree
    assert tree["etc/odd/inside"][8] == b"inside\n"
    assert set(tree) & {"usr/hello.c", "usr/new"} == {"usr/new"}
    assert_equal(tree, tar)
    assert_equal(tree, directory)
    with tarfile.open(any_world.definitions / "two.tar") as archive:
        names = archive.getnames()
    assert names[0] == "."
    assert all(name.startswith("./") for name in names[1:])


@pytest.mark.parametrize(
    "change", ["rm d/first", "echo more >> d/first", "rm -r d", "rm -r d; mkdir d; echo > d/first"]
)
def test_names_of_one_file_when_one_of_them_is_changed(any_world: World, change: str) -> None:
    tree, tar, directory = deploy_all(any_world, f'#!/bin/sh\ncd "$1"; {change}\n')
    assert_equal(tree, tar)
    assert_equal(tree, directory)


def test_holes_of_files_are_kept(any_world: World) -> None:
    """The image of a disk inside of another system."""
    world = any_world
    world.write("disk.configure", '#!/bin/sh\ntruncate -s 40G "$1/disk.img"\n')
    world.configure_with("disk")
    world.cluster(one={"type": "sysroot", "location": "one"})
    world.deploy()
    found = (world.definitions / "one/disk.img").stat()
    assert (found.st_size, found.st_blocks) == (40 << 30, 0)
    assert (world.definitions / "one/etc/app.conf").exists()


def test_equal_changes_give_equal_bytes(world: World) -> None:
    world.write("change.configure", CHANGES, 0o755)
    world.cluster(one={"type": "tar", "location": "one.tar"})
    world.deploy()
    first = (world.definitions / "one.tar").read_bytes()
    world.deploy()
    assert (world.definitions / "one.tar").read_bytes() == first


def test_what_is_not_understood_is_said(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    try:
        os.setxattr(tmp_path / "moved", "user.overlay.redirect", b"/from")
    except OSError as error:
        pytest.fail(f"temporary files need extended attributes of users: {error}")
    with pytest.raises(UnknownChangeError):
        read_changes(tmp_path)
