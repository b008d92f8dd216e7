"""A controller in this process, with a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from distbuild import controller as controllers
from distbuild.builds import Build
from distbuild.controller import Controller, Means
from distbuild.framing import MAX_LINE, encode
from distbuild.graphs import Graph, GraphSource, plan_work
from distbuild.journal import Journal
from distbuild.messages import BuildCancelled, BuildFinished, BuildRequest, Message
from distbuild.sharedcache import SharedCache
from morphlib.cache.records import Records
from morphlib.definitions.models import Kind

GRACE = 120.0


class Follower:
    """An initiator."""

    is_slow = False

    def __init__(self) -> None:
        self.told: list[Message] = []

    def tell(self, message: Message) -> None:
        encode(message)
        self.told.append(message)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    make: Any = Clock
    clock = make()
    monkeypatch.setattr(controllers, "reactor", clock)
    return clock


@pytest.fixture
def controller(tmp_path: Path, clock: Any) -> Iterator[Controller]:
    shared = SharedCache("http://127.0.0.1:1/", "http://127.0.0.1:1/")
    with Records(tmp_path / "records.sqlite", print) as records:
        means = Means(shared, ("morph",), 1, records, print, grace=GRACE)
        journal = Journal(tmp_path / "journal", print)
        yield Controller(means, journal, "j")
        journal.close()


def source(number: int, files: int) -> GraphSource:
    key = f"{number:064x}"
    names = tuple(f"{key}.chunk.{'a' * 100}-{each}" for each in range(files))
    return GraphSource(key, f"chunk-{number}", f"chunk-{number}", Kind.CHUNK, (), names, (), 1.0)


def begin(
    controller: Controller, follower: Any, *sources: GraphSource, present: bool = False
) -> Build:
    """A build of all sources, whose graph is known, and of which nothing or all is there."""
    request = BuildRequest(id="r", repo="r", ref="f" * 40, morphology="m")
    build = controller.builds.new(request, "127.0.0.1:1")
    build.graph = Graph(5, "x86_64", sources[-1].key, sources)
    build.by_key = {each.key: each for each in sources}
    build.targets = sources
    build.work = plan_work(build.graph, sources, build.by_key if present else ())
    build.followers.append(follower)
    controller.schedule(build)
    return build


def test_who_falls_silent_again_is_waited_for_as_long_again(
    controller: Controller, clock: Any
) -> None:
    first, second = Follower(), Follower()
    build = begin(controller, first, source(1, 1))
    controller.unfollow(build, first, may_return=True)  # type: ignore[arg-type]
    clock.advance(10)
    controller.follow(build, second)  # type: ignore[arg-type]
    clock.advance(GRACE - 20)
    controller.unfollow(build, second, may_return=True)  # type: ignore[arg-type]
    clock.advance(GRACE - 10)
    assert not build.is_over
    clock.advance(20)
    assert isinstance(build.last, BuildCancelled)


def test_who_came_back_and_leaves_is_not_waited_for_longer_than_before(
    controller: Controller, clock: Any
) -> None:
    first, second = Follower(), Follower()
    build = begin(controller, first, source(1, 1))
    controller.unfollow(build, first, may_return=True)  # type: ignore[arg-type]
    clock.advance(10)
    controller.follow(build, second)  # type: ignore[arg-type]
    controller.unfollow(build, second, may_return=False)  # type: ignore[arg-type]
    clock.advance(GRACE - 11)
    assert not build.is_over
    clock.advance(2)
    assert isinstance(build.last, BuildCancelled)


def test_more_artifacts_than_a_message_has_room_for(controller: Controller) -> None:
    follower = Follower()
    sources = [source(number, 10) for number in range(600)]
    build = begin(controller, follower, *sources, present=True)
    assert build.is_over
    more, last = follower.told[-2:]
    assert isinstance(last, BuildFinished)
    assert 3000 < len(last.urls) < 6000
    assert len(encode(last)) <= MAX_LINE
    assert getattr(more, "message", "").startswith(f"{6000 - len(last.urls)} more artifacts ")
