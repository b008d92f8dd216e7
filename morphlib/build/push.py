"""Sending what was built to a cache server, for others to fetch instead of building it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from morphlib.cache.failures import explain_failure
from morphlib.cache.manifest import digest_file
from morphlib.cache.names import LOG_SUFFIX, META_SUFFIX
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
    """Send the artifacts of a stored source, its log and its times. Raises MorphError."""
    files = {name: (store.path(name), store.digest(name)) for name in source.filenames()}
    for suffix in (LOG_SUFFIX, META_SUFFIX):
        name = source.key + suffix
        path = store.path(name)
        if path.exists():
            with explain_failure(f"read {name}", path):
                files[name] = (path, digest_file(path)[0])
    remote.upload(source.key, files)


def push_sources(
    store: ArtifactStore, remote: RemoteArtifacts, sources: Iterable[Source], listener: Listener
) -> PushReport:
    """Send what the server lacks of these sources, all of which are stored.

    One request asks what it has; several sources are sent at a time. Raises MorphError if it can't
    be asked; what can't be sent stands in the report.
    """
    ordered = tuple(sources)
    there = remote.ask([name for source in ordered for name in source.filenames()])
    missing = [source for source in ordered if not there.issuperset(source.filenames())]
    sent: set[str] = set()
    failed: dict[str, MorphError] = {}

    def push(source: Source) -> None:
        if remote.is_dead:
            return
        try:
            push_source(store, remote, source)
            sent.add(source.id)
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
            for each in running:
                each.result()
        except BaseException:
            remote.stop()
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    wanted = {source.id for source in missing}
    return PushReport(
        sent=tuple(s.id for s in missing if s.id in sent),
        there=tuple(s.id for s in ordered if s.id not in wanted),
        failed=failed,
    )
