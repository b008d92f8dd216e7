"""Counts of what the server does, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600)


class Metrics:
    """All counts. `free_space` tells the bytes that are left for artifacts."""

    def __init__(self, version: str, free_space: Callable[[], float]) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "morph_cache_requests_total",
            "Requests answered",
            ["endpoint", "method", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "morph_cache_request_seconds",
            "Time from a request to the end of its answer",
            ["endpoint"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.sent = Counter(
            "morph_cache_sent_bytes_total",
            "Bytes of answers' bodies sent",
            ["endpoint"],
            registry=registry,
        )
        self.received = Counter(
            "morph_cache_received_bytes_total", "Bytes of artifacts taken", registry=registry
        )
        self.aborted = Counter(
            "morph_cache_aborted_total",
            "Answers that clients did not take to the end",
            ["endpoint"],
            registry=registry,
        )
        self.lookups = Counter(
            "morph_cache_lookups_total",
            "Artifacts asked for, by whether they are there",
            ["result"],
            registry=registry,
        )
        self.git_errors = Counter(
            "morph_cache_git_unanswered_total",
            "Questions about repositories that have no answer",
            registry=registry,
        )
        self.turned_away = Counter(
            "morph_cache_turned_away_total",
            "Requests to write that were not allowed",
            ["status"],
            registry=registry,
        )
        self.in_progress = Gauge(
            "morph_cache_requests_in_progress", "Requests being worked on", registry=registry
        )
        free = Gauge("morph_cache_free_bytes", "Room left for artifacts", registry=registry)
        free.set_function(free_space)
        info = Gauge("morph_cache_info", "The program", ["version"], registry=registry)
        info.labels(version).set(1)

    def count_lookups(self, hits: int, misses: int) -> None:
        if hits:
            self.lookups.labels("hit").inc(hits)
        if misses:
            self.lookups.labels("miss").inc(misses)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
