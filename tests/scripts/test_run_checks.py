"""What `check` makes of its options and of what other programs report."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts.running import CHECKOUT, SCRIPTS


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_checks", SCRIPTS / "run_checks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_checks"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], {"style", "unit-tests", "example", "yarns"}),
        (["--style"], {"style"}),
        (["--style", "--yarns"], {"style", "yarns"}),
        (["--no-yarns"], {"style", "unit-tests", "example"}),
        (["--no-style", "--no-unit-tests"], {"example", "yarns"}),
        (["--unit-tests", "--no-style"], {"unit-tests"}),
    ],
)
def test_options(checks: ModuleType, arguments: list[str], parts: set[str]) -> None:
    assert checks.parse_arguments(arguments) == (parts, False)


def test_nothing_left_to_check(checks: ModuleType) -> None:
    with pytest.raises(SystemExit) as ended:
        checks.parse_arguments(["--no-style", "--no-unit-tests", "--no-example", "--no-yarns"])
    assert ended.value.code == 2


def test_score_of_pytest(checks: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite tests="9" failures="1" errors="2" skipped="2"/></testsuites>'
    )
    assert checks.read_report(report, 1) == checks.Score(4, 3)


def test_a_run_of_pytest_that_breaks_off_fails(checks: ModuleType, tmp_path: Path) -> None:
    assert checks.read_report(tmp_path / "none.xml", 3) == checks.Score(0, 1)
    report = tmp_path / "report.xml"
    report.write_text('<testsuite tests="5" failures="0" errors="0" skipped="0"/>')
    assert checks.read_report(report, 2) == checks.Score(5, 1)


def test_score_of_yarn(checks: ModuleType) -> None:
    output = (
        "Running scenario one\n    Running step x\nRunning scenario two\nRunning scenario three\n"
        "Failed scenarios:\n    - two\nERROR: Test suite FAILED in 1 scenarios\n"
    )
    assert checks.read_scenario_output(output, 1) == checks.Score(2, 1)
    assert checks.read_scenario_output("Running scenario one\n", 0) == checks.Score(1, 0)


def test_a_step_that_nothing_implements_fails(checks: ModuleType) -> None:
    output = 'ERROR: Scenario "x", step "THEN y" has no matching implementation\n'
    assert checks.read_scenario_output(output, 1) == checks.Score(0, 1)


def test_programs_without_suffix_are_found(checks: ModuleType) -> None:
    scripts = checks.list_scripts()
    assert "scripts/git-daemon-wrap" in scripts
    assert "scripts/list-tree" not in scripts


def test_every_file_of_scenarios_is_run(checks: ModuleType) -> None:
    names = {run.name for run in checks.list_scenario_runs()}
    files = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "yarns").glob("*.yarn")}
    assert files - names == {"yarns/implementations.yarn"}


def test_removing_trees_that_are_not_writable(checks: ModuleType, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sealed" / "inner").mkdir(parents=True)
    (tree / "sealed").chmod(0o555)
    (tree / "link").symlink_to("/")
    checks.remove_tree(tree)
    assert not tree.exists()
