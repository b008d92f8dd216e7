"""From settings to what the stages take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from morphlib.settings import Settings, derive_settings

if TYPE_CHECKING:
    from morphlib.sources.aliases import Aliases


def aliases_of(settings: Settings) -> Aliases:
    from morphlib.sources.aliases import Aliases

    return Aliases.from_settings(settings.trove_host, settings.trove_id, settings.repo_alias)


def process_settings(settings: Settings) -> Settings:
    """The settings as they are worked with, all aliases included."""
    aliases = tuple(aliases_of(settings).as_settings())
    return replace(derive_settings(settings), repo_alias=aliases)
