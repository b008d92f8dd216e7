"""Fetching exact versions of Debian packages, with an apt of our own.

The machine's package sources are read and copied into a private directory, with `deb-src` beside
every `deb`, so the machine needs no `deb-src` entries and nothing below /etc or /var changes. All
state and caches are private too, so an ordinary user can do this. apt checks what it fetches
against the signed indexes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from morphlib.errors import MorphError, Reason
from morphlib.process import Completed, run

#: Scripts that distributions let apt run after its work; they are meant for the system's own apt.
_HOOKS = (
    "APT::Update::Pre-Invoke",
    "APT::Update::Post-Invoke",
    "APT::Update::Post-Invoke-Success",
    "DPkg::Pre-Invoke",
    "DPkg::Post-Invoke",
    "DPkg::Pre-Install-Pkgs",
)


def sources_with_deb_src(text: str, *, deb822: bool) -> str:
    """A package source file with sources as well as binaries; `deb822` for the *.sources form."""
    return _deb822_with_sources(text) if deb822 else _lines_with_sources(text)


def _lines_with_sources(text: str) -> str:
    lines: list[str] = []
    for line in text.splitlines():
        entry = re.match(r"\s*deb(-src)?(\s.*)", line)
        if entry and "cdrom:" not in line:  # nobody is there to change discs
            lines += [f"deb{entry[2]}", f"deb-src{entry[2]}"]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def _deb822_with_sources(text: str) -> str:
    without_comments = [line for line in text.splitlines() if not line.startswith("#")]
    stanzas = re.split(r"\n[ \t]*\n", "\n".join(without_comments))
    kept = []
    for stanza in stanzas:
        disabled = re.search(r"(?im)^enabled:\s*(no|false|0|off|disable)\s*$", stanza)
        if stanza.strip() and not disabled:
            kept.append(re.sub(r"(?im)^types:.*$", "Types: deb deb-src", stanza.strip()))
    return "\n\n".join(kept) + "\n" if kept else ""


@dataclass
class PrivateApt:
    """An apt whose configuration, lists and caches are below `directory`.

    `etc` is the machine's /etc/apt, which is only read. Methods may be called from several threads.
    """

    directory: Path
    etc: Path = Path("/etc/apt")
    _complaint: str | None = field(default=None, init=False)  # of the update, once it was tried
    _lock: Lock = field(default_factory=Lock, init=False)

    def fetch_source(self, package: str, version: str, into: Path) -> None:
        """Download the files of a source package into `into`, which exists."""
        self._fetch(["source", "--download-only", "--only-source"], package, version, into)

    def fetch_binary(self, package: str, version: str, into: Path) -> None:
        """Download a binary package into `into`, which exists."""
        self._fetch(["download"], package, version, into)

    def _fetch(self, command: Sequence[str], package: str, version: str, into: Path) -> None:
        with self._lock:
            self._update()
            argv = ["apt-get", "--quiet=2", *command, "--", f"{package}={version}"]
            done = self._run(argv, cwd=into)
            if done.status == 0:
                return
            offered = self._offered(package, source=command[0] == "source")
        complaint = done.stderr.decode("utf-8", "replace").strip()
        if self._complaint:
            raise MorphError(
                f"can't fetch {package} {version}, nor the lists of packages:\n{self._complaint}",
                reason=Reason.SOURCE,
                hint=f"is the network there, and does `apt-get update` work with {self.etc}?",
            )
        if version in offered:
            raise MorphError(
                f"can't download {package} {version}:\n{complaint}", reason=Reason.SOURCE
            )
        there = ", ".join(offered) or "no version of it"
        raise MorphError(
            f"the package sources of this machine do not have {package} {version}; "
            f"they have {there}",
            reason=Reason.SOURCE,
            hint="set the version that is there in the manifest, then run "
            "scripts/import-sources --update on it: the pinned commits follow"
            if offered
            else f"does {self.etc} name the distribution that the manifest was made for?",
        )

    def _offered(self, package: str, *, source: bool) -> list[str]:
        if source:
            done = self._run(["apt-cache", "showsrc", "--only-source", "--", package])
        else:
            done = self._run(["apt-cache", "show", "--", package])
        versions = re.findall(r"(?m)^Version: (\S+)$", done.stdout.decode("utf-8", "replace"))
        return list(dict.fromkeys(versions))

    def _update(self) -> None:
        """Fetch the lists of packages, once. A failure may concern archives that nobody needs, so
        it is kept until something can't be fetched."""
        if self._complaint is not None:
            return
        self._configure()
        done = self._run(["apt-get", "--quiet=2", "update"])
        self._complaint = done.stderr.decode("utf-8", "replace").strip() if done.status else ""

    def _configure(self) -> None:
        for name in ("lists", "lists.d", "conf.d", "state/lists/partial", "cache/archives/partial"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        found = self._copy_sources()
        if not found:
            raise MorphError(
                f"{self.etc} names no package sources",
                reason=Reason.SOURCE,
                hint="packages come from where this machine gets its own",
            )
        self._copy_options()

    def _copy_sources(self) -> bool:
        target = self.directory / "lists.d"
        for stale in target.iterdir():
            stale.unlink()
        found = False
        parts = sorted((self.etc / "sources.list.d").glob("*"))
        for file in [self.etc / "sources.list", *parts]:
            deb822 = file.suffix == ".sources"
            if file.is_file() and file.suffix in (".list", ".sources"):
                text = sources_with_deb_src(_read(file), deb822=deb822)
                # sources.list itself must not hide a part of the same name
                name = file.name if file.parent != self.etc else "00-main.list"
                (target / name).write_text(text, encoding="utf-8")
                found = found or bool(text)
        return found

    def _copy_options(self) -> None:
        """The machine's options (proxies, say) count; its hooks and its directories do not."""
        target = self.directory / "conf.d"
        for stale in target.iterdir():
            stale.unlink()
        for file in sorted((self.etc / "apt.conf.d").glob("*")):
            plain = re.fullmatch(r"[A-Za-z0-9_.-]+", file.name) and not file.name.startswith(".")
            if plain and file.suffix in ("", ".conf") and os.access(file, os.R_OK):
                (target / file.name).write_bytes(file.read_bytes())
        main = self.etc / "apt.conf"
        text = _read(main) if main.is_file() and os.access(main, os.R_OK) else ""
        options = {
            "Dir::State": self.directory / "state",
            "Dir::State::lists": self.directory / "state/lists",
            "Dir::State::status": Path("/var/lib/dpkg/status"),
            "Dir::Cache": self.directory / "cache",
            "Dir::Cache::archives": self.directory / "cache/archives",
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "Dir::Log": self.directory / "state",
            # the private directory need not be open to apt's own user
            "APT::Sandbox::User": "root",
            # the sizes of indexes that nothing here reads
            "Acquire::Languages": "none",
        }
        text += "\n" + "".join(f'{name} "{value}";\n' for name, value in options.items())
        text += "".join(f"#clear {name};\n" for name in _HOOKS)
        (self.directory / "main.conf").write_text(text, encoding="utf-8")
        (self.directory / "apt.conf").write_text(
            f'Dir::Etc::main "{self.directory}/main.conf";\n'
            f'Dir::Etc::parts "{self.directory}/conf.d";\n'
            'Dir::Etc::sourcelist "/dev/null";\n'
            f'Dir::Etc::sourceparts "{self.directory}/lists.d";\n',
            encoding="utf-8",
        )

    def _run(self, argv: Sequence[str], *, cwd: Path | None = None) -> Completed:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME") or name.lower().endswith("_proxy")
        }
        environment.update(LC_ALL="C", APT_CONFIG=str(self.directory / "apt.conf"))
        return run(argv, env=environment, cwd=cwd, check=False)


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def files_present(names: Iterable[str], directory: Path) -> bool:
    """Whether `directory` has all the files; no names at all count as not there."""
    wanted = list(names)
    return bool(wanted) and all((directory / name).is_file() for name in wanted)
