"""morph list-artifacts on a large set of real definitions, against the rules stated once more.

The reference below reads the YAML itself and shares no code with the program. It is as plain as
possible rather than fast, checks nothing, and knows only what these definitions use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.trove import serve
from tests.commandline import Ran, run_morph
from tests.sources.repositories import Repository, git_environment

DATA = Path(__file__).parents[3] / "shared/data/baserock-definitions"

#: They have two different chunks of one name.
UNSOUND = {
    *(
        f"systems/cross-bootstrap-system-{arch}-generic.morph"
        for arch in ("armv5l", "armv7lhf", "armv8b64", "armv8l64", "ppc64", "x86_64")
    ),
    "systems/cxmanage-system-x86_64-generic.morph",
}

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"there is no {DATA}")

Artifact = tuple[str, str, str]  # kind, source, artifact name


@cache
def read(path: str) -> Any:
    return yaml.load((DATA / path).read_text(), Loader=yaml.CSafeLoader)


def rules_of(document: Any, name: str, kind: str) -> list[tuple[str, list[str]]]:
    """(artifact, patterns): products first, then defaults whose name no product has."""
    products = [(p["artifact"], p["include"]) for p in document.get("products") or []]
    taken = [artifact for artifact, _ in products]
    defaults = [(name + r["artifact"], r["include"]) for r in read("DEFAULTS")["split-rules"][kind]]
    return products + [rule for rule in defaults if rule[0] not in taken]


class Reference:
    """What a system needs, by following dependencies from its root artifact."""

    def __init__(self, system: str) -> None:
        self.system = read(system)
        self.strata: list[str] = []
        for entry in self.system["strata"]:
            self.add_stratum(entry["morph"])

    def add_stratum(self, path: str) -> None:
        if path not in self.strata:
            self.strata.append(path)
            for needed in read(path).get("build-depends") or []:
                self.add_stratum(needed["morph"])

    def chunk_artifacts(self, spec: Any) -> list[Artifact]:
        chunk = read(spec["morph"]) if "morph" in spec else {"name": spec["name"]}
        rules = rules_of(chunk, chunk["name"], "chunk")
        return [("chunk", chunk["name"], artifact) for artifact, _ in rules]

    def stratum_contents(self, path: str) -> dict[Artifact, list[Artifact]]:
        """The artifacts of a stratum and the chunk artifacts that go into each."""
        stratum = read(path)
        rules = rules_of(stratum, stratum["name"], "stratum")
        assigned = {
            (spec["name"], artifact): target
            for spec in stratum["chunks"]
            for artifact, target in sorted((spec.get("artifacts") or {}).items())
        }
        contents: dict[Artifact, list[Artifact]] = {
            ("stratum", name, name): []
            for name in [*assigned.values(), *(artifact for artifact, _ in rules)]
        }
        for spec in stratum["chunks"]:
            for chunk_artifact in self.chunk_artifacts(spec):
                name = chunk_artifact[2]
                target = assigned.get((spec["name"], name))
                for artifact, patterns in rules:
                    if target is None and any(re.match(p, name) for p in patterns):
                        target = artifact
                if target is not None:
                    contents["stratum", target, target].append(chunk_artifact)
        return contents

    def needed_strata(self, path: str) -> list[Artifact]:
        needed = read(path).get("build-depends") or []
        return [artifact for n in needed for artifact in self.stratum_contents(n["morph"])]

    def edges(self) -> Iterator[tuple[str, list[Artifact]]]:
        """For each source (as KIND:NAME) some of the artifacts that it depends on."""
        for path in self.strata:
            stratum = read(path)
            by_name = {spec["name"]: self.chunk_artifacts(spec) for spec in stratum["chunks"]}
            for artifact, content in self.stratum_contents(path).items():
                yield f"stratum:{artifact[1]}", self.needed_strata(path) + content
            for spec in stratum["chunks"]:
                own = [a for name in spec.get("build-depends") or [] for a in by_name[name]]
                source = by_name[spec["name"]][0][1]
                yield f"chunk:{source}", self.needed_strata(path) + own

    def root_needs(self) -> Iterator[Artifact]:
        for entry in self.system["strata"]:
            for artifact in self.stratum_contents(entry["morph"]):
                if entry.get("artifacts") is None or artifact[2] in entry["artifacts"]:
                    yield artifact

    def artifacts(self) -> set[tuple[str, str]]:
        """(kind, name) of all artifacts that are reached."""
        depends: dict[str, list[Artifact]] = {}
        for source, artifacts in self.edges():
            depends.setdefault(source, []).extend(artifacts)
        found: set[Artifact] = set()
        queue = list(self.root_needs())
        while queue:
            artifact = queue.pop()
            if artifact not in found:
                found.add(artifact)
                queue += depends[f"{artifact[0]}:{artifact[1]}"]
        root = ("system", f"{self.system['name']}-rootfs")
        return {root, *((kind, name) for kind, _, name in found)}


def find_systems() -> list[str]:
    paths = sorted(str(path.relative_to(DATA)) for path in DATA.rglob("*.morph"))
    return [path for path in paths if re.search("^kind: system", (DATA / path).read_text(), re.M)]


def listed_artifacts(ran: Ran) -> set[tuple[str, str]]:
    assert ran.status == 0, ran.err
    names = set(ran.out.splitlines())
    found = set()
    for line in names:
        key, kind, *name = line.split(".", 2)
        assert re.fullmatch("[0-9a-f]{64}", key)
        if name and not (kind == "stratum" and line.endswith(".meta")):
            found.add((kind, name[0]))
            assert f"{key}.meta" in names
            assert (f"{key}.build-log" in names) == (kind == "chunk")
            assert (f"{line}.meta" in names) == (kind == "stratum")
    return found


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name, value in git_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    repository = Repository(tmp_path / "definitions")
    for path in DATA.rglob("*"):
        if path.is_file():
            copy = repository.path / path.relative_to(DATA)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    repository.commit()
    return repository


@needs_data
def test_all_systems(tmp_path: Path, definitions: Repository) -> None:
    systems = find_systems()
    assert len(systems) == 87
    assert set(systems) > UNSOUND

    def listing(system: str) -> Ran:
        options = (f"--cachedir={tmp_path}/cache", f"--cache-server={url}", "--quiet")
        return run_morph(*options, "list-artifacts", system, home=tmp_path, cwd=definitions.path)

    with serve() as url, ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(systems, pool.map(listing, systems), strict=True))
    for system, ran in results.items():
        if system not in UNSOUND:
            assert listed_artifacts(ran) == Reference(system).artifacts(), system
            continue
        assert (ran.status, ran.out) == (1, ""), system
        place = r"(?:strata|systems)/[\w./-]+\.morph:\d+:\d+"
        said = re.search(rf"Multiple '(\S+)' chunks detected .*: ({place}) and ({place}) ", ran.err)
        assert said, ran.err
        assert said[2] != said[3]
        for found in (said[2], said[3]):
            path, line, _ = found.split(":")
            text = (DATA / path).read_text().splitlines()[int(line) - 1]
            assert text.strip() == f"- name: {said[1]}", found
