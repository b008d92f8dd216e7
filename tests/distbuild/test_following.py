"""What an initiator makes of a controller's messages, one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from distbuild import messages as m
from distbuild.following import Follower
from distbuild.steplogs import StepLogs
from morphlib import events as e
from morphlib.errors import MorphError
from morphlib.progress.state import BuildState

BUILD = "build-1"
KEYS = {name: f"{number:064x}" for number, name in enumerate(("lib", "app", "demo"))}


def started(name: str, worker: str = "w1", elapsed: float = 0.0) -> m.StepStarted:
    return m.StepStarted(
        build=BUILD,
        step_name=name,
        worker_name=worker,
        kind="chunk",
        key=KEYS[name],
        elapsed=elapsed,
    )


def already(name: str, worker: str = "w1", elapsed: float = 0.0) -> m.StepAlreadyStarted:
    return m.StepAlreadyStarted(
        build=BUILD,
        step_name=name,
        worker_name=worker,
        kind="chunk",
        key=KEYS[name],
        elapsed=elapsed,
    )


def finished(name: str, worker: str = "w1") -> m.StepFinished:
    return m.StepFinished(build=BUILD, step_name=name, worker_name=worker)


def state_of(unbuilt: int, built: int = 0) -> m.CacheState:
    return m.CacheState(build=BUILD, unbuilt=unbuilt, total=5, built=built, system="demo")


class Followed:
    """A follower, the events that it told, and what a view makes of them."""

    def __init__(self, logs: Path) -> None:
        self.now = 100.0
        self.events: list[e.AnyEvent] = []
        self.view = BuildState()
        self.logs = StepLogs(str(logs))
        self.follower = Follower(self._take, "it", self.logs, "", clock=lambda: self.now)

    def _take(self, event: e.AnyEvent) -> None:
        self.events.append(event)
        self.view.update(event, self.now)

    def take(self, *messages: m.ToInitiator) -> None:
        for message in messages:
            self.follower.take(message)

    @property
    def shown(self) -> dict[int, tuple[str, str]]:
        return {n: (slot.name, slot.worker) for n, slot in self.view.slots.items()}

    def finishes(self) -> list[tuple[str, str]]:
        found = (each for each in self.events if isinstance(each, e.SourceFinished))
        return [(each.name, each.outcome) for each in found]


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path / "logs")


def test_rows_are_used_again(followed: Followed) -> None:
    followed.take(state_of(3), started("lib"), started("app", "w2"))
    assert followed.shown == {0: ("lib", "w1"), 1: ("app", "w2")}
    followed.take(finished("lib"), started("demo"))
    assert followed.shown == {0: ("demo", "w1"), 1: ("app", "w2")}
    assert (followed.view.built, followed.view.cached, followed.view.total) == (1, 2, 5)


def test_what_is_told_again_is_told_once(followed: Followed) -> None:
    followed.take(state_of(3), started("lib"), already("lib"), already("lib"))
    starts = [each for each in followed.events if isinstance(each, e.SourceStarted)]
    assert len(starts) == 1
    assert not followed.finishes()


def test_a_controller_that_was_away_tells_how_it_is_now(followed: Followed) -> None:
    followed.take(state_of(3), started("lib"))
    followed.now = 110.0
    followed.follower.lose()
    assert followed.shown == {}
    assert followed.finishes() == [("lib", "lost")]
    # Meanwhile lib was built, and app was begun.
    followed.take(state_of(3, built=1), already("app", "w2", elapsed=4.0))
    assert followed.view.done == 3
    assert followed.view.slots[0].since == 106.0
    followed.take(finished("app", "w2"), started("demo"), finished("demo"))
    followed.take(m.BuildFinished(build=BUILD, urls=("http://h/1.0/artifacts?filename=k.chunk.a",)))
    assert followed.view.done == 5
    ends = [each for each in followed.events if isinstance(each, e.BuildFinished)]
    assert [(each.built, each.cached, each.skipped) for each in ends] == [(2, 3, 0)]


def test_a_controller_that_was_restarted_counts_anew(followed: Followed) -> None:
    followed.take(state_of(3), started("lib"), finished("lib"), started("app"))
    followed.follower.lose()
    followed.take(state_of(2), already("app"))
    assert (followed.view.built, followed.view.cached, followed.view.done) == (1, 2, 3)


def test_an_end_that_was_told_without_a_beginning_counts(followed: Followed) -> None:
    followed.take(state_of(3), finished("lib", "w7"))
    assert followed.finishes() == [("lib", "built")]
    assert followed.view.built == 1
    assert followed.shown == {}


def test_a_retry_frees_the_row(followed: Followed) -> None:
    retry = m.BuildProgress(build=BUILD, message="again", step_name="lib", doing="retry")
    followed.take(state_of(3), started("lib"), retry)
    assert followed.shown == {}
    assert e.Status(text="Progress: again") in followed.events
    followed.take(started("lib", "w2"))
    assert followed.shown == {0: ("lib", "w2")}


def test_a_failure_has_the_end_of_its_log(followed: Followed, tmp_path: Path) -> None:
    output = m.StepOutput(build=BUILD, step_name="lib", stdout=b"one\ntwo \xff\n")
    failure = m.StepFailed(build=BUILD, step_name="lib", phase="build", exit_code=3)
    followed.take(state_of(3), started("lib"), output, failure)
    (failed,) = (each for each in followed.events if isinstance(each, e.SourceFailed))
    assert failed.tail[1:] == ("one", "two \\xff")
    assert failed.log == str(tmp_path / "logs" / "build-step-lib.log")
    assert (failed.name, failed.key, failed.worker) == ("lib", KEYS["lib"], "w1")
    assert (failed.step, failed.exit_code) == ("build", 3)
    with pytest.raises(MorphError, match="Failed to build it: lib fails"):
        followed.take(m.BuildFailed(build=BUILD, reason="lib fails"))
    (end,) = (each for each in followed.events if isinstance(each, e.BuildFinished))
    assert (end.failed, end.built, end.skipped, end.succeeded) == (1, 0, 2, False)


def test_messages_without_what_is_optional_are_enough(followed: Followed) -> None:
    bare = m.StepStarted(build=BUILD, step_name="lib", worker_name="w")
    followed.take(m.CacheState(build=BUILD, unbuilt=1, total=1), bare, finished("lib", "w"))
    followed.take(m.BuildFinished(build=BUILD, urls=()))
    assert followed.follower.is_done
    assert followed.view.done == 1
