"""What is remembered of attempts, as the policy's own events and commands tell it."""

from __future__ import annotations

import pytest

from distbuild.policy import events as e
from distbuild.status import history as history_module
from distbuild.status.history import AttemptState
from distbuild.status.joblogs import Excerpt, JobLogs
from distbuild.workermessages import Fault
from tests.distbuild.status.game import Game, key_of, source


def test_an_attempt_has_times() -> None:
    game = Game()
    game.join("w0")
    game.ask(source("a"))
    game.clock = 1012.0
    game.tell(e.JobBuilt(game.jobs["a"]))
    (attempt,) = game.attempts("a")
    assert (attempt.state, attempt.built, attempt.ended) == ("transferring", 1012.0, None)
    game.clock = 1013.0
    game.tell(e.JobBuilt(game.jobs["a"]))  # said twice
    game.tell(e.JobStored(game.jobs["a"]))
    (attempt,) = game.attempts("a")
    assert attempt.worker == "w0"
    assert (attempt.began, attempt.built, attempt.ended) == (1000.0, 1012.0, 1013.0)
    assert attempt.state is AttemptState.BUILT


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (Fault.BUILD, AttemptState.FAILED),
        (Fault.SPACE, AttemptState.UNABLE),
        (Fault.MACHINE, AttemptState.UNABLE),
        (Fault.CANCELLED, AttemptState.STOPPED),
    ],
)
def test_failures_differ_by_whose_they_are(fault: Fault, state: AttemptState) -> None:
    game = Game()
    game.join("w0")
    game.ask(source("a"))
    game.clock += 5
    game.tell(e.JobFailed(game.jobs["a"], fault, "because"))
    attempt = game.attempts("a")[0]
    assert (attempt.state, attempt.reason, attempt.ended) == (state, "because", 1005.0)


def test_what_a_lost_worker_did_is_lost_until_it_comes_back_with_it() -> None:
    game = Game()
    game.join("w0")
    game.ask(source("a"))
    job = game.jobs["a"]
    game.clock = 1005.0
    game.tell(e.WorkerLost("w0"))
    (attempt,) = game.attempts("a")
    assert (attempt.state, attempt.ended) == (AttemptState.LOST, 1005.0)
    assert game.overview().workers[0].since == 1005.0
    game.join("w0", a=job)
    (attempt,) = game.attempts("a")
    assert (attempt.job, attempt.state, attempt.ended) == (job, AttemptState.BUILDING, None)
    game.join("w0")  # and without it
    assert [each.state for each in game.attempts("a")] == ["lost", "building"]


def test_what_was_begun_before_a_restart_has_no_certain_time() -> None:
    game = Game()
    game.state.settled = False
    game.join("w0", a="old-1")
    game.ask(source("a"))
    (attempt,) = game.attempts("a")
    assert (attempt.job, attempt.certain) == ("old-1", False)
    (job,) = game.overview().workers[0].jobs
    assert (job.name, job.build, job.began) == ("a", "build-1", None)


def test_what_is_stopped_and_what_is_fetched_in_vain() -> None:
    game = Game()
    game.join("w0")
    game.ask(source("a"), source("b"))
    game.tell(e.JobBuilt(game.jobs["a"]))
    game.tell(e.TransferFailed(game.jobs["a"], "gone", hopeless=True))
    assert (game.attempts("a")[0].state, game.attempts("a")[0].reason) == ("unable", "gone")
    game.tell(e.RequestCancelled("build-1"))
    assert game.attempts("b")[0].state is AttemptState.STOPPING
    game.tell(e.JobFailed(game.jobs["b"], Fault.CANCELLED, "told to"))
    assert game.attempts("b")[0].state is AttemptState.STOPPED


def test_what_runs_side_by_side_has_slots() -> None:
    game = Game()
    game.join("w0", capacity=2)
    game.ask(source("a"), source("b"), source("c"))
    assert [game.attempts(name)[0].slot for name in "ab"] == [0, 1]
    game.build("a")
    assert game.attempts("c")[0].slot == 0


def test_no_more_is_remembered_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MOST_ATTEMPTS", 5)
    monkeypatch.setattr(history_module, "MOST_STEPS", 4)
    monkeypatch.setattr(history_module, "MOST_BUILDS", 3)
    game = Game()
    game.join("w0")
    for number in range(10):
        game.ask(source(f"a{number}"), source(f"b{number}"), name=f"build-{number}")
        game.build(f"a{number}")
        game.build(f"b{number}")
    assert sorted(game.history.planned) == ["build-8", "build-9"]
    assert sorted(game.history.done) == ["build-8", "build-9"]
    assert len(game.history.attempts) == len(game.history.by_key) == 5
    for number in range(10, 20):
        game.ask(source("b9"), name=f"build-{number}", present="b9")  # nothing to do
    assert sorted(game.history.planned) == ["build-17", "build-18", "build-19"]
    # A build of which all was forgotten is still told to have ended well.
    game.history.attempts.clear()
    game.history.by_key.clear()
    game.ask(source("x"), name="last")
    game.build("x")
    game.history.attempts.clear()
    game.history.by_key.clear()
    assert game.states("last") == {"x": "built"}


def test_an_earlier_attempt_at_a_key_belongs_to_the_earlier_build() -> None:
    game = Game()
    game.join("w0")
    game.ask(source("a"), name="early")
    game.build("a")
    game.clock += 100
    game.ask(source("a"), name="late")  # somebody emptied the cache
    assert game.states("early") == {"a": "built"}
    assert game.states("late") == {"a": "building"}
    assert len(game.view("late").timeline.bars) == 1
    assert len(game.attempts("a")) == 2


# ---- Logs ----------------------------------------------------------------------------------------


def test_of_a_log_the_newest_is_kept() -> None:
    logs = JobLogs(of_one=10, of_all=25)
    for number in range(5):
        logs.add("a", b"%d234" % number)
    assert logs.read("a") == Excerpt(12, b"32344234")
    assert logs.read("a", 14) == Excerpt(14, b"344234"[0:])
    assert logs.read("a", 100) == Excerpt(20, b"")
    assert logs.end("a") == 20
    assert logs.read("never") == Excerpt(0, b"")
    logs.add("b", b"x" * 8)
    logs.add("a", b"")
    logs.add("c", b"y" * 8)
    assert logs.size == 24
    logs.add("d", b"z" * 8)
    assert logs.read("a").data == b""  # silent for longest
    assert (logs.size, logs.end("b"), logs.end("d")) == (24, 8, 8)


def test_keys_have_names_in_the_plan() -> None:
    game = Game()
    game.ask(source("a"), source("b", "a"))
    planned = game.history.planned["build-1"]
    assert [planned.names[task.id].name for task in planned.tasks] == ["a", "b"]
    assert planned.tasks[1].needs == (key_of("a"),)


def test_what_is_said_again_is_kept_once() -> None:
    logs = JobLogs()
    assert [logs.add("a", b"one", 0), logs.add("a", b"two", 3)] == [True, True]
    assert [logs.add("a", b"one", 0), logs.add("a", b"two", 3)] == [False, False]
    assert logs.read("a") == Excerpt(0, b"onetwo")
    # Of what came before that nothing is known.
    assert logs.add("a", b"four", 100)
    assert (logs.read("a"), logs.size) == (Excerpt(100, b"four"), 4)
    assert logs.add("b", b"late", 50)
    assert logs.read("b") == Excerpt(50, b"late")
