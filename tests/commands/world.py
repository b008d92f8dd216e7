"""A small definitions repository with sources to match, and the real program in it.

The system `demo` (systems/demo.morph) is made of two strata. `base` holds the chunk `shell`; `top`
needs `base` and holds `lib` and `app`, which needs `lib`. All of them are built with the host's
tools, so that a build of it takes no longer than it must. The system takes only top-runtime of
`top`, which leaves app-devel out: nothing needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.commandline import Ran, run_morph
from tests.sources.repositories import Repository

COPY = 'cp -a README usr "$DESTDIR"'

DEFAULTS = {
    "build-systems": {"copy": {"install-commands": [COPY]}},
    "split-rules": {
        "chunk": [
            {"artifact": "-devel", "include": ["usr/include/.*"]},
            {"artifact": "-runtime", "include": [".*"]},
        ],
        "stratum": [
            {"artifact": "-devel", "include": [".*-devel"]},
            {"artifact": "-runtime", "include": [".*"]},
        ],
    },
}

SYSTEM = "systems/demo.morph"


def chunk_file(name: str, **commands: list[str]) -> dict[str, Any]:
    """A chunk's definition; `install=[...]` are its install-commands."""
    return {
        "name": name,
        "kind": "chunk",
        **{f"{step.replace('_', '-')}-commands": given for step, given in commands.items()},
    }


class World:
    """Everything below one directory. The definitions are written and committed at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache, self.temp = root / "cache", root / "temp"
        self.sources = {name: Repository(root / "gits" / name) for name in ("shell", "lib", "app")}
        for name, repository in self.sources.items():
            repository.commit({"README": "read me\n", f"usr/include/{name}.h": "int x;\n"})
        self.definitions = Repository(root / "definitions")
        self.documents: dict[str, Any] = {"VERSION": {"version": 8}, "DEFAULTS": DEFAULTS}
        self.documents["strata/base.morph"] = {
            "name": "base",
            "kind": "stratum",
            "build-depends": [],
            "chunks": [self.spec("shell")],
        }
        self.documents["strata/top.morph"] = {
            "name": "top",
            "kind": "stratum",
            "build-depends": [{"morph": "strata/base.morph"}],
            "chunks": [
                self.spec("lib"),
                self.spec("app", morph="chunks/app.morph", **{"build-depends": ["lib"]}),
            ],
        }
        self.documents["chunks/app.morph"] = chunk_file(
            "app", build=["echo building app"], install=[COPY]
        )
        self.documents[SYSTEM] = {
            "name": "demo",
            "kind": "system",
            "arch": "x86_64",
            "strata": [
                {"name": "base", "morph": "strata/base.morph"},
                {"name": "top", "morph": "strata/top.morph", "artifacts": ["top-runtime"]},
            ],
        }
        self.commit()

    def spec(self, source: str, **fields: Any) -> dict[str, Any]:
        """A chunk spec for a source as it is now; without `morph` it is merely copied."""
        spec = {
            "name": source,
            "repo": f"test:{source}",
            "ref": self.sources[source].head,
            "build-mode": "test",
            **fields,
        }
        return spec if "morph" in spec else {"build-system": "copy", **spec}

    def chunk_spec(self, stratum: str, name: str) -> dict[str, Any]:
        """The spec of a chunk, to be changed."""
        chunks = self.documents[f"strata/{stratum}.morph"]["chunks"]
        (found,) = (spec for spec in chunks if spec["name"] == name)
        assert isinstance(found, dict)
        return found

    def write(self) -> None:
        """Write all documents to the work tree."""
        texts = {p: yaml.safe_dump(d, sort_keys=False) for p, d in self.documents.items()}
        self.definitions.write(texts)

    def commit(self) -> str:
        self.write()
        return self.definitions.commit()

    @property
    def settings(self) -> dict[str, str]:
        gits = (self.root / "gits").as_uri()
        return {
            "repo-alias": f"test={gits}/%s#{gits}/%s,defs={self.root.as_uri()}/%s#unused",
            "trove-host": "",
            "cache-server": "",
            "tarball-server": "",
            "cachedir": str(self.cache),
            "tempdir": str(self.temp),
            "cachedir-min-space": "0",
            "tempdir-min-space": "0",
            "builders": "2",
        }

    def run(
        self,
        *arguments: str | bytes,
        cwd: str | Path = "",
        env: Mapping[str, str] | None = None,
        **settings: str,
    ) -> Ran:
        """Run morph in the definitions, or in a directory below them (or any absolute path)."""
        values = self.settings | {name.replace("_", "-"): v for name, v in settings.items()}
        options = [f"--{name}={value}" for name, value in values.items()]
        where = self.definitions.path / cwd
        return run_morph(*options, *arguments, home=self.root, cwd=where, env=env)

    def data(self, *arguments: str, **more: Any) -> str:
        """What a command that has to succeed prints, with --quiet."""
        ran = self.run("--quiet", *arguments, **more)
        assert (ran.status, ran.err) == (0, ""), ran.err
        return ran.out

    def fail(self, *arguments: str, status: int = 1, **more: Any) -> str:
        """What a command that has to fail says of it."""
        ran = self.run(*arguments, **more)
        assert ran.status == status, ran.out + ran.err
        assert ran.err.startswith("ERROR: "), ran.err
        assert "internal error" not in ran.err
        assert "Traceback" not in ran.err
        return ran.err

    def build(self, *arguments: str) -> Ran:
        """Build the system, which has to succeed."""
        ran = self.run("build", SYSTEM, *arguments)
        assert ran.status == 0, ran.out + ran.err
        return ran

    def key(self, name: str, kind: str = "chunk") -> str:
        """The key of the one artifact of that name that the cache has."""
        (found,) = (self.cache / "artifacts").glob(f"*.{kind}.{name}")
        return found.name.partition(".")[0]

    def kept(self) -> list[Path]:
        """The resolved graphs that the cache keeps."""
        return sorted((self.cache / "graphs").glob("*"))
