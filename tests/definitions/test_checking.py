from __future__ import annotations

import re
from pathlib import Path

import pytest

from morphlib.definitions import (
    DirectoryReader,
    MappingReader,
    check_system,
    load_all,
    load_systems,
    locate_errors,
    validate,
)
from morphlib.definitions.cycles import find_cycles
from tests.definitions.helpers import failure, failures, ignore, repository

REAL = Path(__file__).parents[3] / "shared" / "data" / "baserock-definitions"


def stratum(name: str, *specs: str, needs: str = "") -> str:
    depends = ", ".join(f"{{morph: {path}}}" for path in needs.split())
    listing = "".join(f"- {{{spec}}}\n" for spec in specs)
    return f"name: {name}\nkind: stratum\nbuild-depends: [{depends}]\nchunks:\n{listing}"


def spec(name: str, *, ref: str = "abc", needs: str = "", more: str = "") -> str:
    depends = ", ".join(needs.split())
    return (
        f"name: {name}, repo: r, ref: {ref}, build-system: manual, build-depends: [{depends}]{more}"
    )


def system(*strata: str, name: str = "x") -> str:
    listing = "".join(f"- {entry}\n" for entry in strata)
    return f"name: {name}\nkind: system\narch: x86_64\nstrata:\n{listing}"


def only(**files: str) -> MappingReader:
    """A repository of these files: `a` is `a.morph`."""
    gone = {"systems/base.morph": None, "strata/tools.morph": None, "strata/tools/zlib.morph": None}
    return repository({**gone, **{f"{name}.morph": text for name, text in files.items()}})


def check(reader: MappingReader) -> list[str]:
    """The errors of system x.morph, located, and those of a validation, which must be the same."""
    errors = check_system(load_systems(reader, ["x.morph"], warn=ignore), "x.morph")
    located = sorted(str(locate_errors(reader, error)) for error in errors)
    told = failures(lambda: validate(reader, warn=ignore)) if errors else []
    assert located == sorted(map(str, told))
    return located


def test_sound_definitions_pass() -> None:
    definitions = validate(repository(), warn=pytest.fail)
    assert check_system(definitions, "systems/base.morph") == []


def test_two_chunks_of_one_name_are_told_with_both_places() -> None:
    (error,) = check(
        only(
            a=stratum("a", spec("same")),
            b=stratum("b", spec("other"), spec("same", ref="def"), needs="a"),
            x=system("morph: b"),
        )
    )
    assert error.startswith(
        "x.morph:5:3: Multiple 'same' chunks detected in system x: b.morph:6:3 and a.morph:5:3 "
        "differ in ref"
    )


def test_one_chunk_in_two_strata_is_fine() -> None:
    reader = only(
        a=stratum("a", spec("same")),
        b=stratum("b", spec("same"), spec("other")),
        x=system("morph: a", "morph: b"),
    )
    assert check(reader) == []


def test_chunks_conflict_by_the_name_in_their_file() -> None:
    (error,) = check(
        only(
            a=stratum("a", spec("one")),
            b=stratum("b", "name: two, repo: r, ref: abc, morph: c.morph"),
            c="name: one\nkind: chunk",
            x=system("morph: a", "morph: b"),
        )
    )
    assert "Multiple 'one' chunks detected" in error
    assert "differ in morph and build-system" in error


def test_two_strata_with_one_artifact() -> None:
    errors = check(
        only(
            a=stratum("same", spec("c")),
            b=stratum("same", spec("d")),
            x=system("morph: a", "morph: b"),
        )
    )
    assert [re.sub(r"\n.*", "", error) for error in errors] == [
        "x.morph:6:3: Multiple strata produce a 'same-devel' artifact in system x: a.morph:1:1 "
        "and b.morph:1:1",
        "x.morph:6:3: Multiple strata produce a 'same-runtime' artifact in system x: a.morph:1:1 "
        "and b.morph:1:1",
    ]


def test_only_bootstrap_chunks() -> None:
    (error,) = check(
        only(a=stratum("a", spec("c", more=", build-mode: bootstrap")), x=system("morph: a"))
    )
    assert "No non-bootstrap chunks found in system x" in error


def test_undefined_dependency() -> None:
    (error,) = check(only(a=stratum("a", spec("c", needs="d")), x=system("morph: a")))
    assert error.startswith("a.morph:5:")
    assert "Chunk c references a dependency d that is not defined in stratum a" in error


def test_strata_in_a_circle() -> None:
    (error,) = check(
        only(
            a=stratum("a", spec("ca"), needs="b"),
            b=stratum("b", spec("cb"), needs="c"),
            c=stratum("c", spec("cc"), needs="a"),
            x=system("morph: a"),
        )
    )
    assert (
        "Cyclic dependency between stratum a and stratum c:\n"
        "    stratum a (a.morph:1:1) needs\n"
        "    stratum b (b.morph:1:1) needs\n"
        "    stratum c (c.morph:1:1) needs\n"
        "    stratum a"
    ) in error


def test_chunks_in_a_circle() -> None:
    (error,) = check(
        only(a=stratum("a", spec("c", needs="d"), spec("d", needs="c")), x=system("morph: a"))
    )
    assert "Cyclic dependency between chunk c and chunk d" in error
    assert "chunk d (a.morph:6:3) needs\n    chunk c" in error


def test_a_chunk_that_needs_itself() -> None:
    (error,) = check(only(a=stratum("a", spec("c", needs="c")), x=system("morph: a")))
    assert "Cyclic dependency between chunk c:" in error


def test_a_chunk_shared_with_a_stratum_that_it_is_built_with() -> None:
    (error,) = check(
        only(
            a=stratum("a", spec("c")),
            b=stratum("b", spec("c"), needs="a"),
            x=system("morph: b"),
        )
    )
    assert "Cyclic dependency between chunk c and stratum a" in error


def test_a_bootstrap_chunk_may_be_shared() -> None:
    mode = ", build-mode: bootstrap"
    reader = only(
        a=stratum("a", spec("c", more=mode), spec("d")),
        b=stratum("b", spec("c", more=mode), spec("e"), needs="a"),
        x=system("morph: b"),
    )
    assert check(reader) == []


def test_a_circle_through_strata_that_nothing_uses_together_is_none() -> None:
    reader = only(
        a=stratum("a", spec("shared")),
        b=stratum("b", spec("shared"), needs="c"),
        c=stratum("c", spec("other"), needs=""),
        d=stratum("d", spec("other"), needs="a"),
    )
    assert len(validate(reader, warn=pytest.fail).strata) == 4


def test_circles_are_found_however_deep_the_graph_is() -> None:
    needs = {node: [node + 1] for node in range(50_000)} | {50_000: [49_998]}
    assert list(find_cycles([0], lambda node: needs[node])) == [[49_998, 49_999, 50_000]]


def test_diamonds_are_walked_once() -> None:
    calls: list[int] = []

    def needs(node: int) -> list[int]:
        calls.append(node)
        return [node + 1] * 2 if node < 500 else []

    assert list(find_cycles([0], needs)) == []
    assert len(calls) == 501


def test_deep_strata_load_and_check() -> None:
    depth = 3000
    files = {
        f"s{index}": stratum(f"s{index}", spec(f"c{index}"), needs=f"s{index + 1}")
        for index in range(depth)
    }
    files[f"s{depth}"] = stratum(f"s{depth}", spec("last"))
    reader = only(**files, x=system("morph: s0"))
    definitions = load_systems(reader, ["x.morph"], warn=ignore)
    assert check_system(definitions, "x.morph") == []
    assert len(definitions.strata) == depth + 1


class TestValidate:
    def test_unknown_artifacts_are_errors(self) -> None:
        reader = only(
            a=stratum("a", spec("c", more=", artifacts: {c-odd: a-runtime}")),
            x=system("{morph: a, artifacts: [a-runtime, a-odd]}"),
        )
        errors = failures(lambda: validate(reader, warn=ignore))
        assert [error.message for error in errors] == [
            "No rule of chunk c produces the artifact 'c-odd'",
            "No rule of stratum a produces the artifact 'a-odd'",
        ]
        assert errors[1].hint == "It has a-devel, a-runtime."

    @pytest.mark.parametrize(
        ("files", "phrase"),
        [
            (
                {"x": system("morph: c"), "c": "name: c\nkind: chunk"},
                "x.morph references c.morph which is a chunk, instead of a stratum",
            ),
            (
                {"a": stratum("a", "name: c, repo: r, ref: a, morph: a.morph")},
                "a.morph references a.morph which is a stratum, instead of a chunk",
            ),
            (
                {"x": "name: x\nkind: cluster\nsystems: [{morph: x, deploy: {}}]"},
                "x.morph references x.morph which is a cluster, instead of a system",
            ),
            (
                {"x": system("morph: none")},
                "x.morph:5:3: Couldn't find definition file to build: none.morph referenced in x",
            ),
            (
                {"x": "name: x\nkind: cluster\nsystems: [{morph: y, deploy: {}}]"},
                "x.morph:3:12: Couldn't find definition file to build: y.morph referenced in x",
            ),
        ],
    )
    def test_references(self, files: dict[str, str], phrase: str) -> None:
        assert phrase in str(failure(lambda: validate(only(**files), warn=ignore)))

    def test_files_that_are_named_and_what_they_reach(self) -> None:
        reader = repository(
            {
                "broken.morph": "{",
                "strata/tools/zlib.morph": "name: zlib\nkind: chunk\nbuild-commands: make",
            }
        )
        error = failure(lambda: validate(reader, ["systems/base.morph"], warn=ignore))
        assert str(error.location) == "strata/tools/zlib.morph:3:1"
        assert len(failures(lambda: validate(reader, warn=ignore))) == 2

    def test_a_file_that_is_not_there(self) -> None:
        error = failure(lambda: validate(repository(), ["no.morph"], warn=ignore))
        assert "Couldn't find definition file: no.morph" in str(error)

    def test_version_and_defaults_may_be_named(self) -> None:
        reader = repository({"DEFAULTS": "other: 1"})
        error = failure(lambda: validate(reader, ["DEFAULTS", "VERSION"], warn=ignore))
        assert "Invalid DEFAULTS file: " in error.message


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no definitions in {REAL}")
class TestRealDefinitions:
    def test_all_load(self) -> None:
        warnings: list[str] = []
        definitions = load_all(DirectoryReader(REAL), warn=warnings.append)
        assert warnings == []
        kinds = (definitions.systems, definitions.strata, definitions.chunks, definitions.clusters)
        assert [len(kind) for kind in kinds] == [87, 146, 503, 40]

    def test_the_seven_unsound_systems_are_told(self) -> None:
        errors = failures(lambda: validate(DirectoryReader(REAL), warn=ignore))
        conflicts = [error for error in errors if "chunks detected" in error.message]
        assert len({error.location.path for error in conflicts if error.location}) == 7
        for error in conflicts:
            assert len(re.findall(r"strata/[\w.-]+\.morph:\d+:\d+", error.message)) == 2
        (other,) = [error for error in errors if error not in conflicts]
        assert "produces the artifact 'core-openssl'" in other.message
