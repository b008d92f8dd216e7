"""The rooms of the house, and that arrows between them go down only.

Every import counts: those inside functions and those for type checkers too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

GROUND = {"errors", "events", "process", "text"}
BELOW_STAGES = GROUND | {"architecture", "version"}
LEAVES = BELOW_STAGES | {"cache"}

#: What each room may import, besides itself. Rooms that are not here are parts of the command line:
#: they may import everything but `app`, and no room that stands here may import them.
MAY_IMPORT = {
    "errors": set[str](),
    "events": set[str](),
    "process": {"errors"},
    "text": set[str](),
    "credentials": set[str](),
    "rooted": {"errors"},
    "architecture": GROUND,
    "version": GROUND,
    "cache": GROUND,
    "writeexts": GROUND | {"architecture", "credentials", "rooted", "cache", "images"},
    "exts": GROUND | {"architecture", "rooted", "cache", "writeexts", "images"},
    "util": GROUND | {"writeexts"},
    "definitions": BELOW_STAGES,
    "sources": LEAVES | {"definitions"},
    "graph": BELOW_STAGES | {"definitions", "sources"},
    "build": LEAVES | {"rooted", "definitions", "sources", "graph"},
    "images": GROUND,
    "deploy": LEAVES
    | {"rooted", "credentials", "definitions", "sources", "graph", "build", "images"},
    "cacheserver": LEAVES | {"sources", "rows", "sideprogram", "manpage", "logs"},
    "distbuild": LEAVES
    | {"definitions", "sources", "graph", "build"}
    | {"rows", "sideprogram", "logs", "credentials"},
}
#: Programs beside Morph: they use its rooms, and none of these uses them.
PROGRAMS = {"cacheserver", "distbuild"}
#: But for commands that start such programs, which import them when they run.
STARTED_BY_COMMANDS = {"distbuild"}
PACKAGES = ("morphlib", *sorted(PROGRAMS))
#: Only these may import the top of the house.
ABOVE_APP = {"__main__"}


def module_name(path: Path) -> str:
    """`morphlib/cache/store.py` as `morphlib.cache.store`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imported_modules(tree: ast.Module, package: str) -> Iterator[tuple[str, int]]:
    """Each module of ours that is imported anywhere in a module of `package`, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in MODULES else base), node.lineno


def imports_of(name: str) -> list[tuple[str, int]]:
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_bytes(), filename=str(path))
    found = imported_modules(tree, package)
    return [(module, line) for module, line in found if module.split(".")[0] in PACKAGES]


def room_of(module: str) -> str:
    """The part of a module's name that names its room; empty for the package itself."""
    if module.split(".")[0] in PROGRAMS:
        return module.split(".")[0]
    return [*module.split("."), ""][1]


def is_allowed(importer: str, imported: str) -> bool:
    if imported in ("", importer):
        return True
    if imported in PROGRAMS:
        return importer == "commands" and imported in STARTED_BY_COMMANDS
    if imported == "app":
        return importer in ABOVE_APP
    return importer not in MAY_IMPORT or imported in MAY_IMPORT[importer]


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    path = MODULES[name].relative_to(ROOT)
    wrong = [
        f"{path}:{line}: {room_of(name)} must not import {module}"
        for module, line in imports_of(name)
        if not is_allowed(room_of(name), room_of(module))
    ]
    assert not wrong, "\n".join(wrong)


def test_commands_load_what_they_start_only_when_they_run() -> None:
    """A command that is asked for its help must not load what talks to other machines."""
    for name, path in MODULES.items():
        if room_of(name) == "commands":
            head = ast.parse(path.read_bytes())
            found = [each for each in head.body if isinstance(each, ast.Import | ast.ImportFrom)]
            imported = imported_modules(ast.Module(body=list(found), type_ignores=[]), name)
            wrong = [line for module, line in imported if room_of(module) in PROGRAMS]
            assert not wrong, f"{path}:{wrong[0]}: import it in the function that uses it"


def cycles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The ways from modules back to themselves: one for each knot of modules."""
    found: list[list[str]] = []
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        pending: list[tuple[str, int]] = [(start, 0)]
        while pending:
            module, depth = pending.pop()
            del path[depth:]
            if module in path:
                found.append([*path[path.index(module) :], module])
            elif module not in done:
                path.append(module)
                done.add(module)
                pending += [(each, depth + 1) for each in graph[module]]
    return found


def test_no_module_needs_itself() -> None:
    """Imports inside functions count: what needs them late is in the wrong place."""
    graph = {
        name: {each for each, _ in imports_of(name) if each in MODULES and each != name}
        for name in MODULES
    }
    assert not cycles(graph), "\n".join(" -> ".join(cycle) for cycle in cycles(graph))


def test_cycles_are_found() -> None:
    assert cycles({"a": "bc", "b": "d", "c": "d", "d": ""}) == []
    assert cycles({"a": "b", "b": "c", "c": "b"}) == [["b", "c", "b"]]
    assert cycles({"a": "a"}) == [["a", "a"]]


def parse(text: str, package: str = "morphlib.cache") -> list[str]:
    return [module for module, _ in imported_modules(ast.parse(text), package)]


def test_no_import_escapes_notice() -> None:
    """The reader of imports itself: functions, blocks for type checkers, relative and plain."""
    assert parse("def f():\n    import morphlib.app\n") == ["morphlib.app"]
    assert parse("if TYPE_CHECKING:\n    from morphlib.app import x\n") == ["morphlib.app"]
    assert parse("from morphlib import errors, process") == ["morphlib.errors", "morphlib.process"]
    assert parse("from . import store") == ["morphlib.cache.store"]
    assert parse("from .store import ArtifactStore") == ["morphlib.cache.store"]
    assert parse("from ..errors import MorphError") == ["morphlib.errors"]


def test_rooms_know_what_is_above_them() -> None:
    assert is_allowed("build", "cache")
    assert is_allowed("commands", "build")
    assert is_allowed("reporting", "commands")
    assert is_allowed("commands", "distbuild")
    assert is_allowed("distbuild", "build")
    for importer, imported in (
        ("definitions", "sources"),
        ("graph", "cache"),
        ("cache", "definitions"),
        ("build", "commands"),
        ("build", "settings"),
        ("commands", "app"),
        ("build", "distbuild"),
        ("app", "distbuild"),
        ("distbuild", "commands"),
        ("distbuild", "cacheserver"),
        ("commands", "cacheserver"),
        ("cacheserver", "commands"),
    ):
        assert not is_allowed(importer, imported)
