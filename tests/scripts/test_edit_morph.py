"""edit-morph: every subcommand, on files as they are in definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scripts.running import Result, run_script

STRATUM = """\
# a comment
name: core
kind: stratum
build-depends:
- morph: strata/base.morph
chunks:
- name: zlib
  repo: upstream:zlib
  ref: 0123456
  build-depends: [gcc, bash]
- name: gcc
  repo: upstream:gcc
  ref: 50893291621658f355bc5b4d450a8d06a563053d
- name: bash
  repo: upstream:bash
  ref: master
  build-depends: [gcc]
"""


@pytest.fixture
def stratum(tmp_path: Path) -> Path:
    path = tmp_path / "core.morph"
    path.write_text(STRATUM)
    return path


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "release.morph"
    edit("cluster-init", path)
    return path


def edit(*arguments: str | Path) -> Result:
    result = run_script("edit-morph", *arguments)
    assert result.status == 0, result.err
    return result


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def chunk_names(path: Path) -> list[str]:
    return [chunk["name"] for chunk in read(path)["chunks"]]


def test_files_are_written_in_block_style_with_sorted_keys(stratum: Path) -> None:
    edit("update-stratum-chunk-ref", stratum, "bash", "v5")
    assert stratum.read_text() == (
        "build-depends:\n- morph: strata/base.morph\n"
        "chunks:\n"
        "- build-depends:\n  - gcc\n  - bash\n  name: zlib\n  ref: 0123456\n  repo: upstream:zlib\n"
        "- name: gcc\n  ref: 50893291621658f355bc5b4d450a8d06a563053d\n  repo: upstream:gcc\n"
        "- build-depends:\n  - gcc\n  name: bash\n  ref: v5\n  repo: upstream:bash\n"
        "kind: stratum\nname: core\n"
    )


def test_binary_commands_survive(tmp_path: Path) -> None:
    path = tmp_path / "x.morph"
    path.write_text("kind: chunk\nchunks: []\nx: !!binary /wD+\ny: true\nz: grün\n")
    edit("sort", path)
    assert read(path) == {
        "kind": "chunk",
        "chunks": [],
        "x": b"\xff\x00\xfe",
        "y": True,
        "z": "grün",
    }


def test_a_failure_leaves_the_file_alone(stratum: Path) -> None:
    stratum.write_text(STRATUM + "- name: bad\n  build-depends: [none]\n")
    before = stratum.read_text()
    result = run_script("edit-morph", "sort", stratum)
    assert result.status == 1
    assert stratum.read_text() == before
    assert [path.name for path in stratum.parent.iterdir()] == ["core.morph"]


def test_the_mode_is_kept_and_a_symlink_followed(stratum: Path) -> None:
    stratum.chmod(0o640)
    link = stratum.parent / "link.morph"
    link.symlink_to("core.morph")
    edit("sort", link)
    assert link.is_symlink()
    assert stratum.stat().st_mode & 0o777 == 0o640
    assert chunk_names(stratum) == ["gcc", "bash", "zlib"]


def test_remove_chunk(stratum: Path) -> None:
    result = edit("remove-chunk", stratum, "gcc")
    assert result.out == "Removed: 1 chunk(s) and 2 build depend(s).\n"
    assert chunk_names(stratum) == ["zlib", "bash"]
    assert [chunk["build-depends"] for chunk in read(stratum)["chunks"]] == [["bash"], []]


def test_remove_chunk_that_is_not_there(stratum: Path) -> None:
    result = edit("remove-chunk", stratum, "perl")
    assert result.out == "Removed: 0 chunk(s) and 0 build depend(s).\n"
    assert read(stratum) == yaml.safe_load(STRATUM)


def write_chunks(path: Path, **depends: list[str]) -> None:
    chunks = [{"name": name, "build-depends": needed} for name, needed in depends.items()]
    path.write_text(yaml.safe_dump({"name": "s", "kind": "stratum", "chunks": chunks}))


def test_sort(stratum: Path) -> None:
    write_chunks(
        stratum, app=["lib", "Base"], Zeta=[], lib=["Base", "aux"], Base=[], aux=["Base"], beta=[]
    )
    edit("sort", stratum)
    assert chunk_names(stratum) == ["Base", "aux", "lib", "app", "beta", "Zeta"]
    assert read(stratum)["chunks"][3]["build-depends"] == ["Base", "lib"]


def test_sort_complains_of_a_dependency_that_is_not_there(stratum: Path) -> None:
    write_chunks(stratum, app=["lib"])
    result = run_script("edit-morph", "sort", stratum)
    assert result.status == 1
    assert "Invalid build-dependency" in result.err
    assert "app" in result.err
    assert "lib" in result.err


def test_sort_complains_of_a_loop(stratum: Path) -> None:
    write_chunks(stratum, a=["b"], b=["c"], c=["a"], d=[])
    result = run_script("edit-morph", "sort", stratum)
    assert result.status == 1
    assert "Stuck in loop while sorting: a, b, c" in result.err


def test_sort_complains_of_two_chunks_of_one_name(stratum: Path) -> None:
    stratum.write_text(STRATUM + "- name: gcc\n")
    result = run_script("edit-morph", "sort", stratum)
    assert result.status == 1
    assert "2 chunks called gcc" in result.err


def test_set_stratum_match_rules(stratum: Path) -> None:
    edit("set-stratum-match-rules", stratum, "[{artifact: core-x, include: ['a.*']}]")
    assert read(stratum)["products"] == [{"artifact": "core-x", "include": ["a.*"]}]


def test_set_stratum_match_rules_that_are_not_yaml(stratum: Path) -> None:
    result = run_script("edit-morph", "set-stratum-match-rules", stratum, "[")
    assert result.status == 1
    assert "not valid YAML" in result.err
    assert stratum.read_text() == STRATUM


def test_update_stratum_chunk_ref(stratum: Path) -> None:
    edit("update-stratum-chunk-ref", stratum, "gcc", "1" * 40)
    refs = {chunk["name"]: chunk["ref"] for chunk in read(stratum)["chunks"]}
    assert (refs["gcc"], refs["bash"]) == ("1" * 40, "master")


def test_names_that_are_not_found_are_no_error(stratum: Path) -> None:
    result = edit("update-stratum-chunk-ref", stratum, "perl", "v5")
    assert "no chunk perl" in result.err
    assert read(stratum) == yaml.safe_load(STRATUM)


@pytest.mark.parametrize(
    ("english", "names"),
    [
        ("a", ["a"]),
        ("a and b", ["a", "b"]),
        ("a, b and c", ["a", "b", "c"]),
        ("a, b, and c", ["a", "b", "c"]),
        ("a b,c", ["a", "b", "c"]),
        ("sand and candy", ["sand", "candy"]),
    ],
)
def test_set_system_artifact_depends(tmp_path: Path, english: str, names: list[str]) -> None:
    path = tmp_path / "system.morph"
    path.write_text(
        "kind: system\nstrata:\n- {name: core, morph: strata/core.morph}\n"
        "- {morph: strata/other.morph}\n"
    )
    edit("set-system-artifact-depends", path, "core", english)
    edit("set-system-artifact-depends", path, "other", "x")
    edit("set-system-artifact-depends", path, "third", "y")
    core, other = read(path)["strata"]
    assert (core["artifacts"], other["artifacts"]) == (names, ["x"])


def test_cluster_init_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "my.release.morph"
    path.write_text("anything: [")
    edit("cluster-init", path)
    assert read(path) == {"kind": "cluster", "name": "my.release"}


EMPTY = {"type": None, "location": None}


def test_cluster_system_init(cluster: Path) -> None:
    edit("cluster-system-init", cluster, "a.b.c")
    edit("cluster-system-init", cluster, "a.d")
    edit("cluster-system-init", cluster, "e")
    edit("cluster-system-init", cluster, "a.b")
    assert read(cluster)["systems"] == [
        {
            "morph": None,
            "deploy": {"a": EMPTY},
            "subsystems": [
                {
                    "morph": None,
                    "deploy": {"b": EMPTY},
                    "subsystems": [{"morph": None, "deploy": {"c": EMPTY}}],
                },
                {"morph": None, "deploy": {"d": EMPTY}},
            ],
        },
        {"morph": None, "deploy": {"e": EMPTY}},
    ]


def test_setting_fields_of_deployments(cluster: Path) -> None:
    edit("cluster-system-init", cluster, "a.b")
    edit("cluster-system-init", cluster, "c")
    edit("cluster-system-set-morphology", cluster, "a", "systems/a.morph")
    edit("cluster-system-set-morphology", cluster, "a.b", "systems/b.morph")
    edit("cluster-system-set-deploy-type", cluster, "a", "tar")
    edit("cluster-system-set-deploy-location", cluster, "a.b", "/b")
    edit("cluster-system-set-deploy-variable", cluster, "a.b", "NUMBER", "010")
    top, other = read(cluster)["systems"]
    (inner,) = top["subsystems"]
    assert (top["morph"], inner["morph"]) == ("systems/a.morph", "systems/b.morph")
    assert top["deploy"] == {"a": {"type": "tar", "location": None}}
    assert inner["deploy"] == {"b": {"type": None, "location": "/b", "NUMBER": "010"}}
    assert other == {"morph": None, "deploy": {"c": EMPTY}}


@pytest.mark.parametrize("path", ["none", "a.none", "b"])
def test_a_deployment_that_is_not_there_changes_nothing(cluster: Path, path: str) -> None:
    edit("cluster-system-init", cluster, "a.b")
    before = cluster.read_text()
    result = edit("cluster-system-set-deploy-type", cluster, path, "tar")
    assert path in result.err
    assert cluster.read_text() == before


@pytest.mark.parametrize("path", ["", "a..b", ".a"])
def test_a_path_that_is_none(cluster: Path, path: str) -> None:
    result = run_script("edit-morph", "cluster-system-init", cluster, path)
    assert result.status == 1
    assert "not a path of deployments" in result.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "must give subcommand"),
        (["frobnicate", "x"], "unknown subcommand frobnicate"),
        (["sort"], "sort takes 1 argument(s), not 0"),
        (["sort", "a", "b"], "Usage: edit-morph sort STRATUM-FILE"),
        (["remove-chunk", "a"], "Usage: edit-morph remove-chunk STRATUM-FILE CHUNK"),
        (["sort", "/nonexistent/file"], "/nonexistent/file"),
    ],
)
def test_wrong_command_lines(arguments: list[str], complaint: str) -> None:
    result = run_script("edit-morph", *arguments)
    assert result.status == 1
    assert complaint in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("text", ["[", "- a list", "kind: stratum\nchunks: text\n", "chunks: [1]"])
def test_files_that_are_no_definitions(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.morph"
    path.write_text(text)
    result = run_script("edit-morph", "remove-chunk", path, "a")
    assert result.status == 1
    assert str(path) in result.err
    assert "Traceback" not in result.err


def test_yaml_can_not_run_code(tmp_path: Path) -> None:
    path = tmp_path / "x.morph"
    mark = tmp_path / "mark"
    path.write_text(f"x: !!python/object/apply:os.system ['touch {mark}']\n")
    assert run_script("edit-morph", "sort", path).status == 1
    assert not mark.exists()


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    for path in (Path("/dev/zero"), tmp_path):
        result = run_script("edit-morph", "sort", path)
        assert (result.status, result.err) == (1, f"ERROR: {path}: not a file\n")


@pytest.mark.parametrize("text", ["x: &a [*a]", "x: " + "[" * 2000 + "]" * 2000])
def test_endless_values_are_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.morph"
    path.write_text(text)
    result = run_script("edit-morph", "sort", path)
    assert result.status == 1
    assert result.err.startswith(f"ERROR: {path}: nested too deeply")
    assert path.read_text() == text


def test_options_as_of_morph(stratum: Path) -> None:
    edit("--no-default-config", "sort", "--no-git-update", "--debug", stratum)
    assert chunk_names(stratum) == ["gcc", "bash", "zlib"]
    assert run_script("edit-morph", "--no-such-thing", "sort", stratum).status == 2


def test_help() -> None:
    result = edit("--help")
    assert "cluster-system-set-deploy-variable FILE PATH KEY VALUE" in result.out
    assert edit("help").out == result.out


def test_it_runs_from_anywhere(stratum: Path) -> None:
    link = stratum.parent / "em"
    link.symlink_to(Path(__file__).resolve().parents[2] / "scripts" / "edit-morph")
    result = run_script(str(link), "sort", stratum.name, cwd=stratum.parent)
    assert (result.status, result.err) == (0, "")
