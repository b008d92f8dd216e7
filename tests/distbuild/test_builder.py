"""The real program that workers keep for building, with a worker that is played by the test."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from distbuild.faults import STATUS_MACHINE
from distbuild.framing import LineDecoder, encode
from distbuild.helper import session_members
from distbuild.messages import Message, Ping
from distbuild.workermessages import (
    CancelStep,
    Fault,
    FromBuilder,
    JobBuilt,
    JobFailed,
    JobOutput,
    JobPhase,
    RunStep,
    Step,
)
from morphlib.process import wait_until
from tests.commandline import MORPH
from tests.commands.world import COPY, SYSTEM, World, chunk_file

PATIENCE = 60.0


class Builder:
    """One that runs, and the steps of a world."""

    def __init__(self, world: World, **settings: str) -> None:
        self.world = world
        values = {**world.settings, "builders": "1", "artifact-cache-server": "", **settings}
        options = [f"--{name}={value}" for name, value in values.items()]
        options += ["--no-default-configs", "--progress=plain", "--build-log-on-stdout"]
        self.child = subprocess.Popen(
            [str(MORPH), *options, "worker-builder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": str(world.root)},
            start_new_session=True,
            bufsize=0,  # what was read but not taken could not be waited for
        )
        self._decoder = LineDecoder[Any](FromBuilder)
        self._jobs = 0
        self.pings = 0
        self.phases: list[str] = []

    def step(self, name: str) -> Step:
        """The step of that name, of the definitions as they are committed."""
        repo, ref = str(self.world.definitions.path), self.world.definitions.head
        ran = self.world.run("calculate-build-graph", "--quiet", repo, ref, SYSTEM)
        (found,) = (s for s in json.loads(ran.out)["sources"] if s["name"] == name)
        return Step(repo=repo, ref=ref, morphology=SYSTEM, key=found["key"], name=name)

    def say(self, message: Message) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(encode(message))
        self.child.stdin.flush()

    def begin(self, step: Step) -> str:
        self._jobs += 1
        job = f"j-{self._jobs}"
        self.say(RunStep(job=job, step=step))
        return job

    def hear(self) -> Any:
        """What it says next, signs of life and what it is at aside: these are noted."""
        assert self.child.stdout is not None
        while True:
            assert select.select([self.child.stdout], [], [], PATIENCE)[0], "it says nothing"
            message = self._decoder.decode(self.child.stdout.readline())
            match message:
                case Ping():
                    self.pings += 1
                case JobPhase(phase=phase):
                    self.phases.append(phase)
                case _:
                    return message

    def result(self, job: str) -> tuple[bytes, JobBuilt | JobFailed]:
        """What a job printed, and what came of it."""
        printed = b""
        while True:
            message = self.hear()
            assert message.job == job
            if not isinstance(message, JobOutput):
                return printed, message
            printed += message.stdout + message.stderr

    def build(self, step: Step) -> tuple[bytes, JobBuilt | JobFailed]:
        return self.result(self.begin(step))

    def wait_for(self, job: str, text: bytes) -> None:
        printed = b""
        while text not in printed:
            message = self.hear()
            assert isinstance(message, JobOutput), message
            assert message.job == job
            printed += message.stdout

    @property
    def bench(self) -> int:
        """The process in which it builds."""
        path = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
        (pid,) = path.read_text().split()
        return int(pid)

    def close(self) -> None:
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGCONT)
            assert self.child.stdin is not None
            self.child.stdin.close()
            self.child.wait(30)
        for pipe in (self.child.stdout, self.child.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def builders(tmp_path: Path) -> Iterator[Callable[..., Builder]]:
    made: list[Builder] = []

    def make(*commands: str, **settings: str) -> Builder:
        world = World(tmp_path / "world")
        if commands:
            app = chunk_file("app", build=list(commands), install=[COPY])
            world.documents["chunks/app.morph"] = app
            world.commit()
        made.append(Builder(world, **settings))
        return made[-1]

    yield make
    for builder in made:
        builder.close()


def test_steps_are_built_one_after_another_by_the_same_processes(
    builders: Callable[..., Builder],
) -> None:
    builder = builders()
    printed, result = builder.build(builder.step("shell"))
    assert result == JobBuilt(job="j-1")
    assert b"Starting actual build: shell" in printed
    bench = builder.bench
    children = Path(f"/proc/{bench}/task/{bench}/children")
    inner = children.read_text()
    assert inner
    for name in ("lib", "app", "top-runtime", "base-runtime", "demo"):
        printed, result = builder.build(builder.step(name))
        assert isinstance(result, JobBuilt), printed
        if name == "app":
            assert b"building app\n" in printed
    assert (builder.bench, children.read_text()) == (bench, inner)
    # As the same program would have it that builds all by itself.
    names = {path.name for path in (builder.world.cache / "artifacts").iterdir()}
    assert any(name.endswith(".system.demo-rootfs") for name in names)
    ran = builder.world.run("build", SYSTEM)
    assert (ran.status, "Starting actual build" in ran.out) == (0, False)


def test_a_step_that_fails_harms_no_other(builders: Callable[..., Builder]) -> None:
    builder = builders("echo about to fail", "exit 3")
    app = builder.step("app")
    printed, result = builder.build(app)
    assert b"about to fail\n" in printed
    assert isinstance(result, JobFailed)
    assert result.fault is Fault.BUILD
    assert "failed (exit_code=3) while building app" in result.reason
    assert (result.phase, result.exit_code) == ("build", 3)
    assert builder.phases[-1] == "build"
    other = Step(repo=app.repo, ref=app.ref, morphology=SYSTEM, key="0" * 64, name="app")
    _, result = builder.build(other)
    assert isinstance(result, JobFailed)
    assert (result.fault, "has the key 000" in result.reason) == (Fault.MACHINE, True)
    assert (result.phase, result.exit_code) == (None, None)
    assert isinstance(builder.build(builder.step("top-runtime"))[1], JobFailed)
    assert isinstance(builder.build(builder.step("base-runtime"))[1], JobBuilt)


def test_another_commit_is_another_graph(builders: Callable[..., Builder]) -> None:
    builder = builders()
    assert isinstance(builder.build(builder.step("app"))[1], JobBuilt)
    for number in range(6):
        app = chunk_file("app", build=[f"echo change {number}"], install=[COPY])
        builder.world.documents["chunks/app.morph"] = app
        builder.world.commit()
        printed, result = builder.build(builder.step("app"))
        assert isinstance(result, JobBuilt)
        assert b"change %d\n" % number in printed


def test_what_is_cancelled_ends_and_leaves_nothing(builders: Callable[..., Builder]) -> None:
    builder = builders("echo begun", "sleep 1000")
    step = builder.step("app")
    job = builder.begin(step)
    builder.wait_for(job, b"begun\n")
    builder.say(CancelStep(job="another"))
    builder.say(CancelStep(job=job))
    began = time.monotonic()
    _, result = builder.result(job)
    assert (result.job, getattr(result, "fault", None)) == (job, Fault.CANCELLED)
    assert time.monotonic() - began < 30
    assert session_members(builder.child.pid) == [builder.child.pid]
    staging = builder.world.temp / "staging"
    assert list(staging.iterdir()) == []
    # The next step has a bench of its own.
    assert isinstance(builder.build(builder.step("base-runtime"))[1], JobBuilt)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_builder_ends_with_its_bench(builders: Callable[..., Builder], number: int) -> None:
    builder = builders("echo begun", "sleep 1000")
    job = builder.begin(builder.step("app"))
    builder.wait_for(job, b"begun\n")
    os.kill(builder.bench, number)
    assert builder.child.wait(PATIENCE) == 1
    assert builder.child.stderr is not None
    assert b"ERROR: the process that was building " in builder.child.stderr.read()
    assert wait_until(lambda: session_members(builder.child.pid) == [], 30)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_is_built_ends_with_its_builder(builders: Callable[..., Builder], number: int) -> None:
    builder = builders("echo begun", "sleep 1000")
    job = builder.begin(builder.step("app"))
    builder.wait_for(job, b"begun\n")
    builder.child.send_signal(number)
    builder.child.wait(PATIENCE)
    assert wait_until(lambda: session_members(builder.child.pid) == [], 30)
    lock = builder.world.cache / "locks"
    # What it was building can be built by another.
    assert lock.exists()
    again = Builder(builder.world)
    with closing(again):
        job = again.begin(again.step("app"))
        again.wait_for(job, b"begun\n")
        again.say(CancelStep(job=job))
        assert again.result(job)[1] == JobFailed(job=job, fault=Fault.CANCELLED, reason="cancelled")


def test_the_end_of_its_input_is_its_own(builders: Callable[..., Builder]) -> None:
    builder = builders("echo begun", "sleep 1000")
    job = builder.begin(builder.step("app"))
    builder.wait_for(job, b"begun\n")
    assert builder.child.stdin is not None
    builder.child.stdin.close()
    assert builder.child.wait(PATIENCE) == 0
    assert session_members(builder.child.pid) == []


def test_silent_commands_are_no_silence(builders: Callable[..., Builder]) -> None:
    builder = builders("echo begun", "sleep 4")
    _, result = builder.build(builder.step("app"))
    assert isinstance(result, JobBuilt)
    assert builder.pings >= 3


def inner_process(builder: Builder, depth: int) -> int:
    """The bench, the process that builds (1), what starts its sandboxes (2), or what holds the
    one that is open (3)."""
    pid = builder.bench
    for _ in range(depth):
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_what_was_stopped_gives_no_signs_of_life(
    builders: Callable[..., Builder], depth: int
) -> None:
    builder = builders("echo begun", "sleep 6")
    job = builder.begin(builder.step("app"))
    builder.wait_for(job, b"begun\n")
    pid = inner_process(builder, depth)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1)
    assert builder.child.stdout is not None
    while select.select([builder.child.stdout], [], [], 0)[0]:
        builder.child.stdout.readline()
    assert not select.select([builder.child.stdout], [], [], 3.5)[0]
    os.kill(pid, signal.SIGCONT)
    assert isinstance(builder.result(job)[1], JobBuilt)


@pytest.mark.parametrize("line", [b"{}\n", b"hello\n", b"\n", b"x" * 100 + b"\n"])
def test_what_is_no_step_is_refused(builders: Callable[..., Builder], line: bytes) -> None:
    builder = builders()
    assert builder.child.stdin is not None
    builder.child.stdin.write(line)
    builder.child.stdin.flush()
    assert builder.child.wait(PATIENCE) == 2
    assert builder.child.stderr is not None
    assert builder.child.stderr.read().startswith(b"ERROR: standard input has no step: ")


def test_a_single_step_is_built_by_a_program_of_its_own(builders: Callable[..., Builder]) -> None:
    builder = builders()
    step = builder.step("app")

    def build(given: bytes) -> subprocess.CompletedProcess[bytes]:
        options = [f"--{name}={value}" for name, value in builder.world.settings.items()]
        options += ["--no-default-configs", "--artifact-cache-server=", "--build-log-on-stdout"]
        return subprocess.run(
            [str(MORPH), *options, "worker-build", "--", step.name],
            input=given,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "HOME": str(builder.world.root)},
            timeout=PATIENCE,
            check=False,
        )

    built = build(encode(step))
    assert (built.returncode, built.stderr) == (0, b"")
    assert b"building app\n" in built.stdout
    failed = build(encode(Step(**{**asdict(step), "key": "0" * 64})))
    assert failed.returncode == STATUS_MACHINE
    assert failed.stderr.startswith(b"ERROR: no source of systems/demo.morph at ")
    assert build(b"nonsense\n").returncode == 2
