"""A package archive in a directory, made of packages that are built on the spot."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

DATE = "Thu, 01 Jan 2026 00:00:00 +0100"
DATE_SECONDS = 1767222000

_CHANGELOG = """\
hello ({version}) unstable; urgency=low

  * Something.

 -- Somebody <somebody@example.com>  {date}
"""


def _run(directory: Path, *argv: str) -> bytes:
    environment = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": str(DATE_SECONDS)}
    return subprocess.run(
        argv, cwd=directory, env=environment, check=True, capture_output=True
    ).stdout


def add_source_package(archive: Path, version: str) -> None:
    """`hello`, whose one patch says which Debian revision it is."""
    upstream = version.rsplit("-", 1)[0]
    tree = archive / f"work-{version}" / f"hello-{upstream}"
    tree.mkdir(parents=True)
    (tree / "hello.c").write_text("int main(void) { return 1; }\n")
    (tree / "configure").write_text("#!/bin/sh\n")
    (tree / "configure").chmod(0o755)
    _run(tree.parent, "tar", "-czf", f"hello_{upstream}.orig.tar.gz", tree.name)
    debian = tree / "debian"
    (debian / "source").mkdir(parents=True)
    (debian / "patches").mkdir()
    (debian / "source/format").write_text("3.0 (quilt)\n")
    (debian / "changelog").write_text(_CHANGELOG.format(version=version, date=DATE))
    (debian / "rules").write_text("#!/usr/bin/make -f\n")
    (debian / "control").write_text(
        textwrap.dedent("""\
            Source: hello
            Maintainer: Somebody <somebody@example.com>

            Package: hello
            Architecture: all
            Description: says hello
            """)
    )
    (debian / "patches/series").write_text("one.patch\n")
    (debian / "patches/one.patch").write_text(
        textwrap.dedent(f"""\
            --- a/hello.c
            +++ b/hello.c
            @@ -1 +1 @@
            -int main(void) {{ return 1; }}
            +int main(void) {{ return 0; }} // {version}
            """)
    )
    _run(tree.parent, "dpkg-source", "-b", tree.name)
    for file in tree.parent.glob("hello_*"):
        file.rename(archive / file.name)


def add_binary_package(archive: Path, version: str) -> None:
    """`hello-bin` with a program, a symlink to an absolute path, and documentation."""
    tree = archive / f"work-bin-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: hello-bin\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: Somebody <somebody@example.com>\nDescription: says hello\n"
    )
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/share/doc").mkdir(parents=True)
    (tree / "usr/bin/hello").write_text("#!/bin/sh\necho hello\n")
    (tree / "usr/bin/hello").chmod(0o755)
    (tree / "usr/bin/hi").symlink_to("/usr/bin/hello")
    (tree / "usr/share/doc/README").write_text(version)
    for path in tree.rglob("*"):
        os.utime(path, (DATE_SECONDS, DATE_SECONDS), follow_symlinks=False)
    _run(archive, "dpkg-deb", "--root-owner-group", "-b", tree.name, f"hello-bin_{version}_all.deb")


def index(archive: Path) -> None:
    (archive / "Packages").write_bytes(_run(archive, "dpkg-scanpackages", "-m", "."))
    (archive / "Sources").write_bytes(_run(archive, "dpkg-scansources", "."))
