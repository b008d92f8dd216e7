"""Cache servers as the settings name them, with what they want to see."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from morphlib.cache.remote import Access, RemoteArtifacts
from morphlib.commands.session import Session
from morphlib.errors import MorphError, Reason
from morphlib.events import AnyEvent, Listener, Status
from morphlib.settings import Settings, default_values, derive_settings

if TYPE_CHECKING:
    from morphlib.cache.signing import SigningKey

_OF_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def open_cache_server(session: Session, url: str) -> RemoteArtifacts | None:
    """The server at a URL, None for an empty one. Nothing is asked yet.

    Raises MorphError (CONFIG) if the URL, or a file that the settings name for it, is of no use.
    """
    if not url:
        return None
    settings = session.settings
    for path in (settings.server_certificate, settings.server_authorities):
        if path is not None and not path.is_file():
            raise MorphError(f"there is no file {path}", reason=Reason.CONFIG)
    token = "" if settings.server_token_file is None else read_token(settings.server_token_file)
    parts = urlsplit(url)
    if token and parts.scheme == "http" and parts.hostname not in _OF_THIS_MACHINE:
        session.warn(f"The token for {url} can be read by whoever sees the network: use https")
    trusted = None
    if settings.trusted_keys is not None:
        from morphlib.cache.signing import load_trusted_keys

        trusted = load_trusted_keys(settings.trusted_keys)
    access = Access(token, settings.server_certificate, settings.server_authorities)
    listener = session.listener
    if url == default_server():
        listener = _chatty(listener)
    return RemoteArtifacts(url, access=access, trusted=trusted, listener=listener)


def open_signing_key(session: Session) -> SigningKey | None:
    """The key to sign what is built with, if there is one. Raises MorphError (CONFIG)."""
    path = session.settings.signing_key
    if path is None:
        return None
    from morphlib.cache.signing import load_signing_key

    return load_signing_key(path)


def default_server() -> str:
    """The server that is asked where nobody says anything: few have it, and nobody misses it."""
    unset = derive_settings(Settings(**default_values()))  # type: ignore[arg-type]
    return unset.artifact_cache_server or ""


def _chatty(listener: Listener) -> Listener:
    """One that tells only those who want to hear everything."""

    def tell(event: AnyEvent) -> None:
        if isinstance(event, Status):
            event = Status(text=event.text, level="chatty", source=event.source)
        listener(event)

    return tell


def read_token(path: Path) -> str:
    """The token in a file: the last word of its first line that is neither empty nor a comment.

    So the line of a server's own file does as well. Raises MorphError (CONFIG).
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not plain ASCII"
        raise MorphError(f"can't read the token in {path}: {why}", reason=Reason.CONFIG) from error
    if stat.S_IMODE(mode) & 0o077:
        raise MorphError(
            f"others can read the token in {path}",
            reason=Reason.CONFIG,
            hint=f"chmod 600 {path}",
        )
    words = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    if not words or not words[0][-1].isprintable():
        raise MorphError(f"there is no token in {path}", reason=Reason.CONFIG)
    return words[0][-1]
