"""edit-morph: changes definition files, for tests and scripts.

A file is read, changed and written back as plain block-style YAML with sorted keys: comments and
the order of keys are lost. The command line follows the same conventions as that of morph.
"""

from __future__ import annotations

import heapq
import re
import shutil
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from morphlib.commandline import parse_command_line
from morphlib.errors import Location, MorphError, Reason

Document = dict[str, Any]


class Verbatim(str):
    """A number or date as it stands in the file: the ref 0123456 must not be read as octal."""

    __slots__ = ("tag",)
    tag: str


class Loader(yaml.SafeLoader):
    """Reads what the format allows and nothing that would run code."""


class Dumper(yaml.SafeDumper):
    """Writes without anchors, since people read the files."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _construct_verbatim(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Verbatim:
    text = Verbatim(loader.construct_scalar(node))
    text.tag = node.tag
    return text


def _represent_verbatim(dumper: yaml.SafeDumper, text: Verbatim) -> yaml.ScalarNode:
    return dumper.represent_scalar(text.tag, str(text))


for _tag in ("int", "float", "timestamp"):
    Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct_verbatim)
Dumper.add_representer(Verbatim, _represent_verbatim)


def fail(message: str, path: Path | None = None, hint: str | None = None) -> MorphError:
    location = None if path is None else Location(str(path))
    return MorphError(message, reason=Reason.DEFINITION, location=location, hint=hint)


# ---- Files -----------------------------------------------------------------------------------


def parse_yaml(text: str | bytes, path: Path | None = None) -> Any:
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        place = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise fail(f"not valid YAML: {error.problem}{place}", path) from error
    except yaml.YAMLError as error:
        raise fail(f"not valid YAML: {error}", path) from error
    except RecursionError as error:
        raise fail("nested too deeply", path) from error


def load(path: Path) -> Document:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise fail("not a file", path)
        document = parse_yaml(path.read_bytes(), path)
    except OSError as error:
        raise fail(f"can't be read: {error.strerror}", path) from error
    if not isinstance(document, dict):
        raise fail("not a definition: a mapping was expected at its top", path)
    return document


def save(path: Path, document: Document) -> None:
    """Write the file anew, all or nothing, with the mode that it had."""
    target = path.resolve()
    try:
        text = yaml.dump(document, Dumper=Dumper, default_flow_style=False, allow_unicode=True)
    except RecursionError as error:
        raise fail("nested too deeply, or a value contains itself", path) from error
    try:
        with tempfile.TemporaryDirectory(prefix=".edit-morph-", dir=target.parent) as aside:
            new = Path(aside) / "new"
            new.write_text(text, encoding="utf-8")
            if target.exists():
                shutil.copymode(target, new)
            new.replace(target)
    except OSError as error:
        raise fail(f"can't be written: {error.strerror}", path) from error


@contextmanager
def editing(path: Path) -> Iterator[Document]:
    """The file's document, which is written back when the block ends without an error."""
    document = load(path)
    yield document
    save(path, document)


def entries_of(owner: Document, key: str, path: Path) -> list[Document]:
    """The list of mappings under `key`, made when there is none."""
    entries = owner.get(key)
    if entries is None:
        entries = owner[key] = []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise fail(f"{key} must be a list of mappings", path)
    return entries


def mapping_of(owner: Document, key: str, path: Path) -> Document:
    """The mapping under `key`, made when there is none."""
    mapping = owner.get(key)
    if mapping is None:
        mapping = owner[key] = {}
    if not isinstance(mapping, dict):
        raise fail(f"{key} must be a mapping", path)
    return mapping


def note_missing(what: str, path: Path) -> None:
    print(f"edit-morph: {path}: there is no {what}; nothing changed", file=sys.stderr)


# ---- Strata ----------------------------------------------------------------------------------


def name_of(spec: Document) -> str | None:
    """A spec without a name goes by that of its file."""
    name = spec.get("name")
    if name is None and isinstance(spec.get("morph"), str):
        return Path(spec["morph"]).stem
    return None if name is None else str(name)


def depends_of(chunk: Document, path: Path) -> list[str]:
    depends = chunk.get("build-depends")
    if depends is None:
        return []
    if not isinstance(depends, list):
        raise fail(f"build-depends of chunk {name_of(chunk)} must be a list", path)
    return [str(name) for name in depends]


def remove_chunk(path: Path, name: str) -> None:
    """STRATUM-FILE CHUNK: remove a chunk, and every mention of it in build-depends"""
    with editing(path) as stratum:
        chunks = entries_of(stratum, "chunks", path)
        kept = [chunk for chunk in chunks if name_of(chunk) != name]
        mentions = 0
        for chunk in kept:
            depends = depends_of(chunk, path)
            if name in depends:
                mentions += depends.count(name)
                chunk["build-depends"] = [other for other in depends if other != name]
        stratum["chunks"] = kept
    print(f"Removed: {len(chunks) - len(kept)} chunk(s) and {mentions} build depend(s).")


def sort(path: Path) -> None:
    """STRATUM-FILE: put its chunks in alphabetical order as far as dependencies let it"""
    with editing(path) as stratum:
        chunks = entries_of(stratum, "chunks", path)
        for chunk in chunks:
            if chunk.get("build-depends") is not None:
                chunk["build-depends"] = sorted(depends_of(chunk, path))
        stratum["chunks"] = sort_chunks(chunks, path)


def sort_chunks(chunks: Sequence[Document], path: Path) -> list[Document]:
    """Each chunk after those it depends on, else by name; what nothing depends on comes last."""
    by_name = {str(name_of(chunk)): chunk for chunk in chunks}
    for name, count in Counter(str(name_of(chunk)) for chunk in chunks).items():
        if count > 1:
            raise fail(f"there are {count} chunks called {name}", path)
    missing = {name: set(depends_of(chunk, path)) for name, chunk in by_name.items()}
    needed: set[str] = set()
    for name, depends in missing.items():
        for dependency in sorted(depends - by_name.keys()):
            raise fail(f"Invalid build-dependency of chunk {name}: {dependency}", path)
        needed |= depends
    order: list[str] = []
    ready = [(name.lower(), name) for name in needed if not missing[name]]
    heapq.heapify(ready)
    while ready:
        _, done = heapq.heappop(ready)
        order.append(done)
        for name, depends in missing.items():
            if done in depends:
                depends.remove(done)
                if name in needed and not depends:
                    heapq.heappush(ready, (name.lower(), name))
    stuck = sorted(needed.difference(order))
    if stuck:
        raise fail(f"Stuck in loop while sorting: {', '.join(stuck)}", path)
    order += sorted(by_name.keys() - needed, key=lambda name: (name.lower(), name))
    return [by_name[name] for name in order]


def set_stratum_match_rules(path: Path, rules: str) -> None:
    """STRATUM-FILE YAML: set products to what the YAML says"""
    products = parse_yaml(rules)
    with editing(path) as stratum:
        stratum["products"] = products


def update_stratum_chunk_ref(path: Path, name: str, ref: str) -> None:
    """STRATUM-FILE CHUNK REF: set the ref of a chunk"""
    with editing(path) as stratum:
        found = [chunk for chunk in entries_of(stratum, "chunks", path) if name_of(chunk) == name]
        for chunk in found:
            chunk["ref"] = ref
    if not found:
        note_missing(f"chunk {name}", path)


# ---- Systems ---------------------------------------------------------------------------------


def split_words(english: str) -> list[str]:
    """The names in text such as `a, b and c`."""
    return [word for word in re.split(r"[\s,]+", english) if word not in ("", "and")]


def set_system_artifact_depends(path: Path, stratum: str, artifacts: str) -> None:
    """SYSTEM-FILE STRATUM ARTIFACTS: take of a stratum only these, named as in `a, b and c`"""
    with editing(path) as system:
        found = [spec for spec in entries_of(system, "strata", path) if name_of(spec) == stratum]
        for spec in found:
            spec["artifacts"] = split_words(artifacts)
    if not found:
        note_missing(f"stratum {stratum}", path)


# ---- Clusters --------------------------------------------------------------------------------


def cluster_init(path: Path) -> None:
    """FILE: write a new cluster without systems, over whatever is there"""
    save(path, {"kind": "cluster", "name": path.stem})


def split_path(deployments: str) -> list[str]:
    names = deployments.split(".")
    if not all(names):
        raise fail(
            f"not a path of deployments: {deployments!r}",
            hint="Join the names by dots: the system's, then those of subsystems inside it.",
        )
    return names


def find_entry(systems: Sequence[Document], name: str, path: Path) -> Document | None:
    """The system with a deployment of that name."""
    for system in systems:
        if system.get("deploy") is not None and name in mapping_of(system, "deploy", path):
            return system
    return None


def cluster_system_init(path: Path, deployments: str) -> None:
    """FILE PATH: add a system, or with a PATH such as a.b subsystem b of system a"""
    names = split_path(deployments)
    with editing(path) as owner:
        for key, name in zip(["systems"] + ["subsystems"] * len(names), names, strict=False):
            systems = entries_of(owner, key, path)
            entry = find_entry(systems, name, path)
            if entry is None:
                entry = {"morph": None, "deploy": {name: {"type": None, "location": None}}}
                systems.append(entry)
            owner = entry


def edit_cluster_entry(
    path: Path, deployments: str, change: Callable[[Document, Document], None]
) -> None:
    """Call `change` with the system that PATH leads to and its deployment."""
    names = split_path(deployments)
    with editing(path) as cluster:
        systems = entries_of(cluster, "systems", path) if "systems" in cluster else []
        entry = find_entry(systems, names[0], path)
        for name in names[1:]:
            if entry is None:
                break
            systems = entries_of(entry, "subsystems", path) if "subsystems" in entry else []
            entry = find_entry(systems, name, path)
        if entry is not None:
            change(entry, mapping_of(mapping_of(entry, "deploy", path), names[-1], path))
    if entry is None:
        note_missing(f"deployment {deployments}", path)


def cluster_system_set_morphology(path: Path, deployments: str, morphology: str) -> None:
    """FILE PATH MORPH: set which system is deployed"""
    edit_cluster_entry(path, deployments, lambda system, _: system.update(morph=morphology))


def cluster_system_set_deploy_type(path: Path, deployments: str, value: str) -> None:
    """FILE PATH TYPE: set the type of a deployment"""
    cluster_system_set_deploy_variable(path, deployments, "type", value)


def cluster_system_set_deploy_location(path: Path, deployments: str, value: str) -> None:
    """FILE PATH LOCATION: set the location of a deployment"""
    cluster_system_set_deploy_variable(path, deployments, "location", value)


def cluster_system_set_deploy_variable(path: Path, deployments: str, key: str, value: str) -> None:
    """FILE PATH KEY VALUE: set any field of a deployment, to text"""
    edit_cluster_entry(path, deployments, lambda _, deployment: deployment.update({key: value}))


# ---- Command line ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Subcommand:
    run: Callable[..., None]

    @property
    def synopsis(self) -> str:
        return (self.run.__doc__ or "").partition(":")[0]

    @property
    def summary(self) -> str:
        return (self.run.__doc__ or "").partition(":")[2].strip()


SUBCOMMANDS = {
    function.__name__.replace("_", "-"): Subcommand(function)
    for function in (
        remove_chunk,
        sort,
        set_system_artifact_depends,
        set_stratum_match_rules,
        update_stratum_chunk_ref,
        cluster_init,
        cluster_system_init,
        cluster_system_set_morphology,
        cluster_system_set_deploy_type,
        cluster_system_set_deploy_location,
        cluster_system_set_deploy_variable,
    )
}


def print_help() -> None:
    print("usage: edit-morph [options] SUBCOMMAND FILE [ARGUMENT...]\n")
    print("Changes a definition file. Options are those of morph; none of them matters here.\n")
    for name, subcommand in SUBCOMMANDS.items():
        print(f"{name} {subcommand.synopsis}\n    {subcommand.summary}")


def run_subcommand(words: Sequence[str]) -> None:
    name, *arguments = words
    subcommand = SUBCOMMANDS.get(name)
    if subcommand is None:
        raise fail(
            f"unknown subcommand {name}", hint=f"The subcommands are: {', '.join(SUBCOMMANDS)}."
        )
    expected = len(subcommand.synopsis.split())
    if len(arguments) != expected:
        raise fail(
            f"{name} takes {expected} argument(s), not {len(arguments)}",
            hint=f"Usage: edit-morph {name} {subcommand.synopsis}",
        )
    subcommand.run(Path(arguments[0]), *arguments[1:])


def main(arguments: Sequence[str]) -> int:
    try:
        invocation = parse_command_line(arguments, lambda text: print(text, file=sys.stderr))
        if invocation.values.get("help") or invocation.words[:1] == ("help",):
            print_help()
        elif "version" in invocation.actions:
            from morphlib.version import describe_version

            print(describe_version())
        elif not invocation.words:
            raise fail(
                "must give subcommand", hint="See edit-morph --help for those that there are."
            )
        else:
            run_subcommand(invocation.words)
    except MorphError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2 if error.reason is Reason.USAGE else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
