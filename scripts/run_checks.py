"""Runs the checks of this checkout: style, unit tests and acceptance scenarios.

`check` is what people run: it makes sure that everything needed is installed, then starts this.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

#: Step implementations that projects have for an earlier Morph, where a copy lies beside us.
EARLIER_STEPS = CHECKOUT.parent / "shared" / "seeds" / "morph-implementations.yarn.txt"

PARTS = ("style", "unit-tests", "example", "yarns")

#: Messages are read by programs, and nobody is there to answer git's questions.
CLEAN = {"LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0"}


@dataclass(frozen=True, slots=True)
class Score:
    passed: int = 0
    failed: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(self.passed + other.passed, self.failed + other.failed)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed"


def parse_arguments(arguments: Sequence[str]) -> tuple[frozenset[str], bool]:
    """The parts to run, and whether scenarios leave snapshots of their directories."""
    parser = argparse.ArgumentParser(
        prog="check", description="Runs all checks, or those that are named."
    )
    for part in PARTS:
        parser.add_argument(
            f"--{part}",
            action=argparse.BooleanOptionalAction,
            default=None,
            help={
                "style": "lint, formatting and types",
                "unit-tests": "tests/, by pytest",
                "example": "the example is built, deployed, booted and upgraded, by pytest",
                "yarns": "the scenarios of yarns/, by yarn",
            }[part],
        )
    parser.add_argument(
        "--snapshot", action="store_true", help="keep the directories of scenarios, step by step"
    )
    given = parser.parse_args(arguments)
    choices = {part: getattr(given, part.replace("-", "_")) for part in PARTS}
    wanted = {part for part, choice in choices.items() if choice}
    if not wanted:
        wanted = {part for part, choice in choices.items() if choice is None}
    if not wanted:
        parser.error("nothing is left to check")
    return frozenset(wanted), given.snapshot


def announce(text: str) -> None:
    print(f"\n==> {text}", flush=True)


def count_processors() -> int:
    return len(os.sched_getaffinity(0))


# ---- Style -----------------------------------------------------------------------------------


def is_python_program(path: Path) -> bool:
    """Whether a file without a suffix is one by its first line."""
    if path.suffix or not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(200)
    return first.startswith(b"#!") and b"python" in first


def list_scripts() -> list[str]:
    """Python programs that linters don't find by their suffix."""
    found = [*CHECKOUT.iterdir(), *(CHECKOUT / "scripts").iterdir()]
    return sorted(str(path.relative_to(CHECKOUT)) for path in found if is_python_program(path))


def check_style() -> Score:
    scripts = list_scripts()
    modules = sorted(
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / "scripts").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    )
    score = Score()
    for command in (
        ["ruff", "check", ".", *scripts],
        ["ruff", "format", "--check", ".", *scripts],
        ["mypy"],
        ["mypy", "--scripts-are-modules", *modules, *scripts],
    ):
        announce(" ".join(command))
        done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=CHECKOUT, check=False)
        score += Score(passed=1) if done.returncode == 0 else Score(failed=1)
    return score


# ---- Unit tests ------------------------------------------------------------------------------


def read_report(path: Path, status: int) -> Score:
    """What pytest's report in JUnit's format counts; a run without one failed as a whole."""
    try:
        suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return Score(failed=1)
    total, skipped, failed = (
        sum(int(suite.get(name, 0)) for suite in suites for name in names)
        for names in (("tests",), ("skipped",), ("failures", "errors"))
    )
    score = Score(passed=max(0, total - skipped - failed), failed=failed)
    return score if status == 0 or failed else score + Score(failed=1)


def run_pytest(scratch: Path, *arguments: str) -> Score:
    report = scratch / "report.xml"
    report.unlink(missing_ok=True)  # that of another run
    command = [str(BIN / "python"), "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
    announce(" ".join(["pytest", *arguments]))
    done = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **CLEAN}, check=False)
    return read_report(report, done.returncode)


def check_unit_tests(scratch: Path) -> Score:
    # A file's tests stay together: what they share is made once.
    return run_pytest(scratch, "-n", str(min(2, count_processors())), "--dist", "loadfile")


def check_example(scratch: Path) -> Score:
    # One after the other: building it takes the whole machine.
    return run_pytest(scratch, "-m", "example", "tests/boot")


# ---- Scenarios -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """One file of scenarios and the one that implements its steps."""

    scenarios: Path
    steps: Path

    @property
    def name(self) -> str:
        return str(self.scenarios.relative_to(CHECKOUT))


def list_scenario_runs() -> list[ScenarioRun]:
    own_steps = CHECKOUT / "yarns" / "implementations.yarn"
    files = sorted((CHECKOUT / "yarns").glob("*.yarn"))
    runs = [ScenarioRun(path, own_steps) for path in files if path != own_steps]
    if EARLIER_STEPS.exists():
        compat = sorted((CHECKOUT / "yarns" / "compat").glob("*.yarn"))
        runs += [ScenarioRun(path, EARLIER_STEPS) for path in compat]
    else:
        announce(f"{EARLIER_STEPS} is not there: scenarios in yarns/compat are left out")
    return runs


def read_scenario_output(output: str, status: int) -> Score:
    """Count the scenarios in what yarn prints."""
    lines = output.splitlines()
    run = sum(line.startswith("Running scenario ") for line in lines)
    failed = 0
    if "Failed scenarios:" in lines:
        names = lines[lines.index("Failed scenarios:") + 1 :]
        failed = sum(line.startswith("    - ") for line in names)
    if status != 0 and not failed:
        failed = 1  # yarn itself did, such as over a step that nothing implements
    return Score(passed=max(0, run - failed), failed=failed)


def run_scenarios(run: ScenarioRun, scratch: Path, snapshot: bool) -> tuple[Score, str]:
    """The score, and all that yarn printed."""
    place = scratch / run.name.replace("/", "-").removesuffix(".yarn")
    place.mkdir()
    command = ["yarn", "--no-default-configs", "--verbose", "--timings"]
    # Steps of both kinds use what bash has over sh.
    command += ["--shell=bash", "--shell-arg=-xeu", "--shell-library=yarns/morph.shell-lib"]
    if snapshot:
        command += ["--snapshot", f"--tempdir={place / 'snapshots'}"]
    done = subprocess.run(
        [*command, str(run.steps), run.name],
        cwd=CHECKOUT,
        env={**os.environ, **CLEAN, "TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # no terminal, so no status line that is drawn over itself
        check=False,
    )
    return read_scenario_output(done.stdout, done.returncode), done.stdout


def check_yarns(scratch: Path, snapshot: bool) -> Score:
    announce("yarn")
    score = Score()

    def run_timed(run: ScenarioRun) -> tuple[ScenarioRun, Score, str, float]:
        began = time.monotonic()
        return run, *run_scenarios(run, scratch, snapshot), time.monotonic() - began

    with ThreadPoolExecutor(min(2, count_processors())) as threads:
        for run, part, output, seconds in threads.map(run_timed, list_scenario_runs()):
            if part.failed:
                print(output)
            print(f"{run.name}: {part} in {seconds:.0f} s", flush=True)
            score += part
    if snapshot:
        print(f"The directories of scenarios are below {scratch}")
    return score


# ---- All of them -----------------------------------------------------------------------------


def remove_tree(tree: Path) -> None:
    """Remove a tree of which some directories may not be written to."""
    for directory, names, _ in os.walk(tree):
        for path in (Path(directory, name) for name in names):
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(tree, ignore_errors=True)


@contextmanager
def scratch_directory(keep: bool) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix="morph-check-"))
    try:
        yield scratch
    finally:
        if not keep:
            remove_tree(scratch)


def main(arguments: Sequence[str]) -> int:
    parts, snapshot = parse_arguments(arguments)
    scores: dict[str, Score] = {}
    with scratch_directory(keep=snapshot) as scratch:
        if "style" in parts:
            scores["style"] = check_style()
        if "unit-tests" in parts:
            scores["unit-tests"] = check_unit_tests(scratch)
        if "example" in parts:
            scores["example"] = check_example(scratch)
        if "yarns" in parts:
            scores["yarns"] = check_yarns(scratch, snapshot)
    announce("summary")
    for part, score in scores.items():
        print(f"{part}: {score}")
    total = sum(scores.values(), Score())
    print(total)
    return 0 if total.failed == 0 and total.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
