"""Tests that need Locust, whose import patches the process: run by test_load_record in one of their own."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
from pathlib import Path  # noqa: E402
from types import SimpleNamespace  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402

from loadtests.format import NULL  # noqa: E402
from loadtests.recorder import Recorder  # noqa: E402
from loadtests.workloads import list_workloads  # noqa: E402

MS = 1_000_000


NAMED = ("risk-api", "web", "analytics", "batch", "serverless", "tpcb", "select-only", "conflicts")


@pytest.mark.parametrize("name", NAMED)
def test_the_mix_that_the_docstring_names_is_the_mix_that_runs(name: str) -> None:
    from loadtests.user import requests_of
    from loadtests.workloads import load_workload

    described = list_workloads()[name].description
    requests = requests_of(load_workload(name))
    assert sum(request.weight for request in requests) == 100
    for request in requests:
        line = next(line for line in described.splitlines() if f"  {request.name}  " in line)
        assert line.strip().startswith(f"{request.weight} %")
        assert line.strip().endswith(request.route)
        assert request.service == name


def test_the_mixed_load_has_every_services_share_at_the_pool_that_it_names() -> None:
    from loadtests.user import requests_of
    from loadtests.workloads import load_workload

    requests = requests_of(load_workload("mixed"))
    described = list_workloads()["mixed"].description
    for service, share in load_workload("mixed").shares.items():
        mine = [request for request in requests if request.service == service]
        assert sum(request.weight for request in mine) == pytest.approx(share)
        assert any(line.strip().startswith(f"{share} %  {service} ") for line in described.splitlines())
    assert {r.route for r in requests if r.service == "web"} == {"statement.reader"}
    assert {r.route for r in requests if r.service == "analytics"} == {"session.reader"}
    assert {r.route for r in requests if r.service == "batch"} == {"direct"}
    assert {r.route for r in requests if r.service == "risk-api"} == {"writer"}
    # Clients that come and go: without them a pool's efficiency says nothing.
    assert 5 < sum(request.weight for request in requests if request.fresh) < 50
    # Statement pooling rejects BEGIN, and a replica every write.
    assert not [r for r in requests if r.route.endswith("reader") and not r.reads and r.service != "mixed"]


def test_every_workload_says_its_rate_and_its_role() -> None:
    for name in (*NAMED, "mixed", "point-select", "bank"):
        workload = list_workloads()[name]
        assert "Default rate: " in workload.description, name
        said = workload.description.split("Default rate: ")[1].replace("\n", " ").split()[0]
        assert float(said.replace(",", "")) == workload.rate, name
        assert "Role" in workload.description, name


def test_a_burst_is_of_requests_that_arrive_together() -> None:
    from itertools import groupby

    from loadtests.arrivals import schedule
    from loadtests.config import LoadConfig, LoadTarget

    made = LoadConfig(
        run="r", out="/x", workload="serverless", writer=LoadTarget("w", "h", 1, "d"), user="u",
        password_file="/p", rate=100, burst=10, duration_s=20,
    )  # fmt: skip
    arrivals = list(schedule(made, 0))
    assert {len(list(same)) for _, same in groupby(arrivals)} == {10}
    assert len(arrivals) == pytest.approx(2000, rel=0.25)


class FakeRedis:
    """A server's side of the cache: a dictionary whose entries have a TTL, on a clock of its own."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[str, float]] = {}
        self.now = 0.0
        self.fails: Exception | None = None

    def execute_command(self, name: str, *words: Any) -> Any:
        if self.fails:
            raise self.fails
        key = words[0] if words else ""
        live = key in self.entries and self.entries[key][1] > self.now
        if name in ("GET", "GETEX"):
            return self.entries[key][0] if live else None
        if name == "DEL":
            return sum(self.entries.pop(word, None) is not None for word in words)
        if name == "SET":
            if "NX" in words and live:
                return None
            unit = "PX" if "PX" in words else "EX"
            lives = words[words.index(unit) + 1] / (1000 if unit == "PX" else 1)
            self.entries[key] = words[1], self.now + lives
        return b"OK"

    def close(self) -> None:
        pass


def cache_of(tmp_path: Path, server: FakeRedis, **settings: Any) -> tuple[Any, Any, Recorder]:
    from loadtests.cache import Cache, Keys
    from loadtests.config import CacheConfig, CacheNode
    from loadtests.gauges import Gauges

    (tmp_path / "password").write_text("p")
    node = CacheNode("redis1.redis", "127.0.0.1", 1)
    config = CacheConfig((node,), (), "cache", str(tmp_path / "password"), ttl_s=5.0, **settings)
    gauges = Gauges(str(tmp_path / "metrics.load-0.jsonl"), "client", 0)
    recorder = Recorder(str(tmp_path / "requests.0.bin"), "r", 0)
    keys = Keys(config, gauges)

    def client() -> Any:
        made = Cache(keys, recorder)
        made._open = lambda: server  # type: ignore[method-assign]
        return made

    return client, gauges, recorder


def test_cache_aside_loads_once_and_again_after_a_deletion(tmp_path: Path) -> None:
    server = FakeRedis()
    client, gauges, recorder = cache_of(tmp_path, server, prefix="run-2:")
    cache, loads = client(), []
    # What an earlier load left there, at another clock, is not found.
    server.entries["k"] = ('[0, "old"]', 1e9)

    def load() -> list[object]:
        loads.append(1)
        return [(1, "a")]

    assert [cache.get("k", load) for _ in range(3)] == [[[1, "a"]]] * 3
    assert len(loads) == 1
    cache.forget("k")
    assert cache.get("k", load) == [[1, "a"]]
    assert len(loads) == 2
    # A deletion is no expiry.
    assert gauges.values["cache_loads"] == 2
    assert "cache_expiries" not in gauges.values
    assert recorder.texts["name"] == ["redis GET miss", "redis SET", "redis GET hit", "redis DEL"]
    assert recorder.texts["endpoint"] == ["redis1.redis"]


def test_a_cache_that_fails_is_passed_by_and_left_alone_for_a_moment(tmp_path: Path) -> None:
    import redis

    server = FakeRedis()
    client, _, recorder = cache_of(tmp_path, server)
    server.fails = redis.ConnectionError("Connection refused")
    cache = client()
    assert cache.get("k", lambda: 7) == 7
    assert cache.get("k", lambda: 8) == 8
    assert recorder.texts["outcome"] == ["client:refused"]
    recorder.close()
    assert recorder.rows == 1


@pytest.mark.parametrize(("coalesce", "expected"), [(False, 6), (True, 1)])
def test_a_stampede_is_counted_and_coalescing_ends_it(tmp_path: Path, coalesce: bool, expected: int) -> None:
    import gevent

    server = FakeRedis()
    client, gauges, _ = cache_of(tmp_path, server, coalesce=coalesce)

    def slow() -> int:
        gevent.sleep(0.1)
        return 1

    waiting = [gevent.spawn(client().get, "hot", slow) for _ in range(6)]
    gevent.joinall(waiting, raise_error=True)
    assert [one.value for one in waiting] == [1] * 6
    assert gauges.values["cache_simultaneous_loads"] == expected
    assert gauges.values["cache_loads"] == expected


def environment() -> Any:
    from locust.env import Environment

    made: Any = Environment()
    made.create_local_runner()
    return made


def test_locusts_statistics_equal_those_of_its_own_event(tmp_path: Path) -> None:
    from loadtests.statistics import LocustStatistics

    batched, plain = environment(), environment()
    path = tmp_path / "requests.0.bin"
    recorder = Recorder(str(path), "r", 0)
    recorder._on_rows = LocustStatistics(batched, recorder.texts).rows
    durations = [0.4, 1.5, 2.5, 12.25, 99.4, 104.6, 147.0, 999.9, 3432.0, 58760.0] * 7
    for number, ms in enumerate(durations):
        name = f"GET /{number % 2}"
        outcome = "40001" if number % 5 == 0 else "ok"
        ids = (
            recorder.id("name", name),
            recorder.id("endpoint", "pool.writer"),
            recorder.id("outcome", outcome),
        )
        recorder.add(0, 5, round(ms * MS), *ids)
        plain.events.request.fire(
            request_type="pool.writer", name=name, response_time=ms, response_length=0, context={},
            exception=None if outcome == "ok" else outcome,
        )  # fmt: skip
    recorder.close()
    for key in ("GET /0", "GET /1"):
        ours, theirs = (e.stats.get(key, "pool.writer") for e in (batched, plain))
        for field in (
            "num_requests",
            "num_failures",
            "response_times",
        ):
            assert getattr(ours, field) == getattr(theirs, field), field
        for field in ("min_response_time", "max_response_time", "total_response_time"):
            assert getattr(ours, field) == pytest.approx(getattr(theirs, field)), field
    assert batched.stats.total.num_requests == len(durations)
    assert {k: e.occurrences for k, e in batched.stats.errors.items()} == {
        k: e.occurrences for k, e in plain.stats.errors.items()
    }


def test_other_listeners_still_hear_of_each_request(tmp_path: Path) -> None:
    from loadtests.statistics import LocustStatistics

    made = environment()
    recorder = Recorder(str(tmp_path / "r.bin"), "r", 0)
    recorder._on_rows = LocustStatistics(made, recorder.texts).rows
    heard: list[tuple[str, float | None, bool]] = []
    made.events.request.add_listener(
        lambda name, response_time, exception, **_: heard.append((name, response_time, exception is None))
    )
    ids = recorder.id("name", "n"), recorder.id("endpoint", "e")
    recorder.add(0, 1, 1_234_567, *ids, recorder.id("outcome", "ok"))
    recorder.dropped(0, 9, *ids, recorder.id("outcome", "dropped"))
    recorder.close()
    assert heard == [("n", 1.234567, True), ("n", None, False)]
    assert (made.stats.total.num_requests, made.stats.total.num_none_requests) == (2, 1)
    assert NULL == -1


def test_psycopg_waits_through_gevent() -> None:
    """Plain psycopg too, in a patched process: what ``connect`` relies on."""
    import psycopg.waiting

    assert psycopg.waiting.wait is psycopg.waiting.wait_poll


def test_the_pid_of_a_load_is_never_seen_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loadtests import process

    monkeypatch.setattr(process, "_limits", lambda *_: None)
    (tmp_path / "pid").write_text("1\n")
    config: Any = SimpleNamespace(out=str(tmp_path))
    with (tmp_path / "pid").open() as before:
        process._announce(config, lambda: None)
        assert before.read() == "1\n"
    assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
