"""What those who watch over a server read: /healthz and /metrics."""

from __future__ import annotations

import shutil
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from morphlib.process import wait_until
from tests.cacheserver.server import KEY, CacheServer, running

_NAME = f"{KEY}.chunk.app-runtime"
_DATA = b"what an artifact holds"


def counts(server: CacheServer) -> dict[tuple[str, ...], float]:
    """Every sample by name and the values of its labels in order of their names."""
    answer = server.get("/metrics")
    assert answer.status == 200
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = (value for _, value in sorted(sample.labels.items()))
            found[(sample.name, *labels)] = sample.value
    return found


def test_health_tells_the_room_that_is_left(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        answer = server.get("/healthz")
        assert answer.status == 200
        assert answer.json["status"] == "ok"
        free = shutil.disk_usage(server.artifacts).free
        assert abs(answer.json["free-space"] - free) < free / 10


def test_metrics_count_what_was_done(tmp_path: Path) -> None:
    with running(tmp_path, "--enable-writes") as server:
        before = counts(server)
        (version,) = (labels[0] for name, *labels in before if name == "morph_cache_info")
        assert version
        assert before["morph_cache_free_bytes",] > 0
        assert server.put(_NAME, _DATA).status in (200, 201)
        assert server.artifact(_NAME).body == _DATA
        assert server.artifact(_NAME).body == _DATA
        assert server.artifact(_NAME.replace("app", "other")).status == 404
        # An answer is counted when it was sent.
        answered = ("morph_cache_requests_total", "/1.0/artifacts", "GET", "404")
        assert wait_until(lambda: answered in counts(server), 30)
        after = counts(server)
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    place = "/1.0/artifacts"
    for (method, status), count in {
        ("PUT", "201"): 1,
        ("GET", "200"): 2,
        ("GET", "404"): 1,
    }.items():
        assert grown["morph_cache_requests_total", place, method, status] == count
    assert grown["morph_cache_request_seconds_count", place] == 4
    assert grown["morph_cache_received_bytes_total",] == len(_DATA)
    assert grown["morph_cache_sent_bytes_total", place] >= 2 * len(_DATA)
    assert grown["morph_cache_lookups_total", "hit"] == 2
    assert grown["morph_cache_lookups_total", "miss"] == 1
