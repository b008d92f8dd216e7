"""Which cache servers are asked, and who hears of it when they fail."""

from __future__ import annotations

import io
import socket

import pytest

from morphlib.commands import cacheservers
from morphlib.commands.session import Session
from morphlib.events import AnyEvent, Status
from morphlib.settings import Settings, default_values, derive_settings


def levels(url: str) -> list[str]:
    """Of what is told when the server at a URL can't be asked."""
    told: list[AnyEvent] = []
    settings = derive_settings(Settings(**default_values()))  # type: ignore[arg-type]
    session = Session("morph", settings, io.StringIO(), io.StringIO(), told.append, told.append)  # type: ignore[arg-type]
    server = cacheservers.open_cache_server(session, url)
    assert server is not None
    assert server.find(["0" * 64 + ".chunk.c"]) == frozenset()
    return [event.level for event in told if isinstance(event, Status)]


@pytest.fixture
def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}/"


def test_a_server_that_was_asked_for_is_missed(nobody: str) -> None:
    assert levels(nobody) == ["warning"]


def test_one_that_nobody_asked_for_is_not(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cacheservers, "default_server", lambda: nobody)
    assert levels(nobody) == ["chatty"]


def test_the_default_is_what_follows_from_no_settings() -> None:
    assert cacheservers.default_server() == "http://git.baserock.org:8080/"
