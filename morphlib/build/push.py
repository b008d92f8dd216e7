"""Sending what was built to a cache server, for others to fetch instead of building it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from morphlib.cache.failures import explain_failure
from morphlib.cache.manifest import digest_file
from morphlib.cache.names import LOG_SUFFIX, META_SUFFIX, SIGNATURES_SUFFIX
from morphlib.cache.remote import RemoteArtifacts
from morphlib.cache.store import ArtifactStore
from morphlib.errors import MorphError
from morphlib.events import Listener, Status
from morphlib.graph.model import Source

_UPLOADS = 4  # sources that are sent at a time


@dataclass(frozen=True, slots=True)
class PushReport:
    """Ids of sources: those that were sent, those that the server had, and what went wrong with
    others. Those that are in none of these were not tried, as the server failed before."""

    sent: tuple[str, ...]
    there: tuple[str, ...]
    failed: Mapping[str, MorphError]


def push_source(store: ArtifactStore, remote: RemoteArtifacts, source: Source) -> None:
    """Send the artifacts of a stored source, its signatures, log and times. Raises MorphError."""
    files = {name: (store.path(name), store.digest(name)) for name in source.filenames()}
    for suffix in (LOG_SUFFIX, META_SUFFIX, SIGNATURES_SUFFIX):
        files |= _extra(store, source.key + suffix)
    remote.upload(source.key, files)


def _extra(store: ArtifactStore, name: str) -> dict[str, tuple[Path, str]]:
    """A file that need not be there, with its digest."""
    path = store.path(name)
    if not path.exists():
        return {}
    with explain_failure(f"read {name}", path):
        return {name: (path, digest_file(path)[0])}


def push_sources(
    store: ArtifactStore, remote: RemoteArtifacts, sources: Iterable[Source], listener: Listener
) -> PushReport:
    """Send what the server lacks of these sources, all of which are stored.

    One request asks what it has; several sources are sent at a time. Raises MorphError if it can't
    be asked; what can't be sent stands in the report.
    """
    ordered = tuple(sources)
    signed = {s.key + SIGNATURES_SUFFIX: s for s in ordered if store.signatures(s.key)}
    names = [name for source in ordered for name in source.filenames()]
    there = remote.ask([*names, *signed])
    missing = [source for source in ordered if not there.issuperset(source.filenames())]
    wanted = {source.id for source in missing}
    # Somebody may have sent the same without signing it.
    unsigned = [s for name, s in signed.items() if name not in there and s.id not in wanted]
    sent: set[str] = set()
    failed: dict[str, MorphError] = {}

    def push(source: Source) -> None:
        if remote.is_dead:
            return
        try:
            if source.id in wanted:
                push_source(store, remote, source)
                sent.add(source.id)
            else:
                remote.upload(source.key, _extra(store, source.key + SIGNATURES_SUFFIX))
        except MorphError as error:
            if not (remote.is_dead and failed):  # one is enough
                failed[source.id] = error

    with ThreadPoolExecutor(_UPLOADS, thread_name_prefix="push") as threads:
        running: deque[Future[None]] = deque()
        try:
            for number, source in enumerate(missing, 1):
                if len(running) == _UPLOADS:
                    running.popleft().result()  # told as it is sent, not all at the beginning
                if remote.is_dead:
                    break
                text = f"Sending {source.kind} {source.name} to {remote.url}"
                listener(Status(text=f"[{number}/{len(missing)}] {text}", source=source.name))
                running.append(threads.submit(push, source))
            running += [threads.submit(push, source) for source in unsigned]
            for each in running:
                each.result()
        except BaseException:
            remote.stop()
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return PushReport(
        sent=tuple(s.id for s in missing if s.id in sent),
        there=tuple(s.id for s in ordered if s.id not in wanted),
        failed=failed,
    )
