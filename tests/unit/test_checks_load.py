"""What the load says of itself and what it was served: Little, alarms, replicas, cache; each seen to fail."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.record.reader import RecordReader
from lab.record.schema import NS
from lab.record.writer import RecordWriter
from lab.scenario.inside import since
from loadtests.config import CacheConfig, CacheNode, LoadConfig, LoadTarget
from loadtests.gauges import Gauges, InFlight
from reports.analysis.alarms import alarm, alarms, firings
from reports.analysis.latency import read_requests
from reports.analysis.little import law, little
from reports.analysis.metrics import Metrics, Series
from reports.analysis.model import Latency, Load
from reports.analysis.validity import load_reasons
from reports.checks import alarms as alarm_check
from reports.checks import cache, replicas

# --- requests under way


def test_the_integral_of_requests_under_way() -> None:
    moments = iter([0, 1 * NS, 2 * NS, 4 * NS, 5 * NS, 10 * NS])
    flight = InFlight(lambda: next(moments))
    for change in (1, 1, -1, -1):  # at 1, 2, 4 and 5 s
        flight.add(change)
    assert flight.seconds() == (10 * NS, 1 * 1 + 2 * 2 + 1 * 1)
    assert (flight.now, flight.ended) == (0, 2)


@pytest.mark.parametrize(("in_flight", "holds"), [(2.0, True), (2.09, True), (2.12, False), (1.8, False)])
def test_littles_law_holds_within_five_percent(in_flight: float, holds: bool) -> None:
    found = law(in_flight, 100.0, 0.02)
    assert found.holds == holds
    assert found.off == pytest.approx(abs(in_flight - 2) / in_flight)


def a_load(tmp_path: Path, *, gone: float = 0.0) -> RecordReader:
    """200 requests/s of 30 ms for 10 s, and as many commands to the cache; a part is ``gone``."""
    writer = RecordWriter.create(tmp_path, "x", topology="t", lab="l", seed=1, trials_asked=0)
    rows, flight = [], []
    for number in range(2000):
        start = number * NS // 200
        row = {
            "intended": start,
            "started": start,
            "done": start + NS * 3 // 100,
            "name": "r",
            "outcome": "ok",
        }
        if number >= 2000 * gone:
            rows.append({**row, "endpoint": "p.writer", "worker": 0})
        rows.append({**row, "endpoint": "redis1.redis", "worker": 0})
    for half in range(21):
        at = half * NS // 2
        value = 200 * 0.03 * at / NS
        metric = "load_in_flight_seconds"
        flight.append({"t": at, "node": "client", "metric": metric, "label": "0", "value": value})
    writer.rows("requests", rows)
    writer.rows("metrics", flight)
    writer.close("closed")
    return RecordReader(writer.path)


@pytest.mark.parametrize(("gone", "holds"), [(0.0, True), (0.1, False)])
def test_little_finds_out_that_requests_are_missing_from_the_record(
    tmp_path: Path, gone: float, holds: bool
) -> None:
    record = a_load(tmp_path, gone=gone)
    found = little(record, Metrics(record), (0, 10 * NS))
    assert found is not None
    assert found.holds == holds
    assert found.in_flight == pytest.approx(6)
    reasons = load_reasons(found, None, None)
    assert [reason.status for reason in reasons] == ([] if holds else ["invalid"])
    # Commands to the cache are parts of requests: they are in no sum.
    assert read_requests(record, 0).whole.sum() == 2000 * (1 - gone)


def test_a_rate_near_the_generators_ceiling_is_the_generators() -> None:
    steady = Latency(name="all", endpoint=None, count=1, ok=1, errors=0, dropped=0, rate=79.0)
    assert load_reasons(None, {"per_s": 100.0}, steady) == ()
    near = steady.model_copy(update={"rate": 81.0})
    (reason,) = load_reasons(None, {"per_s": 100.0}, near)
    assert reason.status == "inconclusive"
    # What the alarms watch is of that load too.
    assert {"alarm", "query", "db.cpu"} <= set(reason.metrics)


# --- alarms


def test_an_alarm_fires_in_the_third_period_in_a_row_and_is_over_likewise() -> None:
    values = [60, 75, 75, 60, 75, 75, 75, 60, 60, 75, 60, 60, 60, 75, 75, 75]
    #  three above end at 6, three below end at 12 (one lull of two is none), three above end at 15
    assert firings([float(v) for v in values], 70) == [(6, 12), (15, None)]
    made = alarm("cpu", "pg1", 70, [float(v) for v in values])
    assert [(f.fired_s, f.over_s) for f in made.fired] == [(70, 130), (160, None)]


def test_a_value_at_the_threshold_is_not_beyond_it_and_a_gap_breaks_no_row() -> None:
    assert firings([70.0] * 9, 70) == []
    assert firings([71.0, None, 71.0, None, 71.0], 70) == [(4, None)]
    assert firings([None] * 9, 70) == []


@given(st.lists(st.floats(0, 100), max_size=60), st.integers(1, 5))
def test_firings_come_in_order_and_each_has_its_row(values: list[float], row: int) -> None:
    found = firings(values, 50, row)
    edges = [edge for pair in found for edge in pair if edge is not None]
    assert edges == sorted(set(edges))
    for begin, end in found:
        assert all(value > 50 for value in values[begin - row + 1 : begin + 1])
        assert begin - row + 1 >= 0
        if end is not None:
            assert all(value <= 50 for value in values[end - row + 1 : end + 1])


def test_alarms_of_a_recorded_run(tmp_path: Path) -> None:
    writer = RecordWriter.create(tmp_path, "x", topology="t", lab="l", seed=1, trials_asked=0)
    rows: list[dict[str, Any]] = []
    used = 0.0
    for second in range(101):
        used += 0.9 if 20 <= second < 70 else 0.1
        figures = {"cpu_seconds": used, "memory_bytes": 1e8, "pg_connections": 60.0}
        rows += [
            {"t": second * NS, "node": "pg1", "metric": metric, "label": None, "value": value}
            for metric, value in figures.items()
        ]
        # The lab's own sessions raise no alarm of the document's.
        own = {"metric": "pg_connections", "label": "lab", "value": 100.0}
        rows.append({"t": second * NS, "node": "pg1", **own})
    writer.rows("metrics", rows)
    writer.close("closed")
    record = RecordReader(writer.path)
    resources = {"pg1": {"cpus": 1.0, "memory_bytes": 1e9}}

    def found(environment: str) -> dict[str, list[tuple[float, float | None]]]:
        made = alarms(Metrics(record), read_requests(record, 0), resources, ["pg1"], environment, 0, 100 * NS)
        return {a.name: [(f.fired_s, f.over_s) for f in a.fired] for a in made}

    assert found("prod") == {"cpu": [(50, 100)], "connections": [], "capacity": [(50, 100)]}
    assert found("dev") == {"cpu": [(50, 100)], "connections": [(30, None)], "capacity": [(50, 100)]}
    made = alarms(Metrics(record), read_requests(record, 0), resources, ["pg1"], "prod", 0, 100 * NS)
    told = {f.metric: f for f in alarm_check.run(SimpleNamespace(alarms=made), record)}  # type: ignore[arg-type]
    assert told["alarm.cpu"].value == 50
    assert "pg1: fired at 50 s, until 100 s" in told["alarm.cpu"].why
    assert told["alarm.connections"].value == 0
    assert told["alarm.latency"].status == "not run"


# --- where reads ran

ROLES = {"pg1": "primary", "pg2": "standby", "pg3": "replica", "pg4": "replica"}


def statements(**calls: dict[str, int]) -> dict[str, tuple[dict[str, Any], ...]]:
    return {
        node: tuple({"query": f"{tag} SELECT 1", "calls": n} for tag, n in of.items())
        for node, of in calls.items()
    }


def test_the_share_of_reads_that_replicas_served() -> None:
    web = "/* web statement.reader */"
    calls = replicas.tagged(
        statements(
            pg1={web: 10, "/* risk-api writer */": 500},
            pg3={web: 60, "SELECT": 9000},
            pg4={"/* analytics reader */": 30},
        )
    )
    found = replicas._share(calls, ROLES)
    assert found.value == 90
    assert found.detail["nodes"] == {"pg1": 10, "pg3": 60, "pg4": 30}
    assert replicas._share(Counter(), ROLES).status == "not run"
    assert replicas._share(calls, {"pg1": "primary"}).status == "not run"


def test_an_analytics_statement_on_the_primary_is_found() -> None:
    good = replicas.tagged(
        statements(pg1={"/* analytics prepare */": 1}, pg3={"/* analytics session.reader */": 5})
    )
    assert replicas._on_primary(good, ROLES, {"pg1"}).value == 0
    bad = good + replicas.tagged(statements(pg1={"/* analytics session.reader */": 2}))
    assert replicas._on_primary(bad, ROLES, {"pg1"}).value == 2
    assert replicas._on_primary(Counter(), ROLES, {"pg1"}).status == "not run"


def test_batch_jobs_that_went_through_a_pooler_or_to_a_replica_count_against_it() -> None:
    said = statements(pg1={"/* batch direct */": 6, "/* batch writer */": 3}, pg3={"/* batch direct */": 1})
    assert replicas._direct(replicas.tagged(said), {"pg1"}).value == 60
    assert replicas._direct(Counter(), {"pg1"}).status == "not run"


def test_statements_are_those_of_the_run() -> None:
    before = {"1/7/t": ["SELECT 1", 100, 50.0, 100], "1/8/t": ["SELECT 2", 9, 1.0, 9]}
    now = {
        "1/7/t": ["SELECT 1", 104, 58.0, 104],
        "1/8/t": ["SELECT 2", 9, 1.0, 9],
        "1/9/t": ["/* web reader */ SELECT 3", 2, 1.0, 2],
    }
    found = since(before, now)
    assert [(row["query"], row["calls"], row["mean_ms"]) for row in found] == [
        ("SELECT 1", 4, 2.0),
        ("/* web reader */ SELECT 3", 2, 0.5),
    ]
    # A server that crashed has counted from 0 again.
    assert since(before, {"1/7/t": ["SELECT 1", 3, 6.0, 3]})[0]["calls"] == 3
    many = {f"1/{n}/t": [f"SELECT {n}", 1, 100.0 + n, 1] for n in range(40)}
    kept = since({}, {**many, "1/x/t": ["/* web reader */ SELECT", 1, 0.1, 1]})
    assert len(kept) == 26
    assert kept[-1]["query"].startswith("/* web")


# --- the cache


class Sampled:
    """Metrics with one series each."""

    def __init__(self, **values: list[float]) -> None:
        self._values = values

    def find(self, metric: str) -> list[Series]:
        values = self._values.get(metric)
        if values is None:
            return []
        return [Series("client", metric, "0", np.arange(len(values)) * NS, np.array(values))]


def ttl(clock: float = 60.0, **values: list[float]) -> Any:
    return cache._ttl(Sampled(**values), clock, 300 / clock)  # type: ignore[arg-type]


def test_the_age_of_an_entry_is_its_time_in_the_cache(tmp_path: Path) -> None:
    from loadtests.cache import Keys

    node = CacheNode("redis1.redis", "127.0.0.1", 1)
    gauges = Gauges(str(tmp_path / "metrics.load-0.jsonl"), "client", 0)
    keys = Keys(CacheConfig((node,), (), "cache", "password", ttl_s=5.0), gauges)
    # Loaded at 2 s, stored at 4 s, asked for at 8 s: the value is 6 s old, its entry 4 s.
    keys.filled["k"] = 2 * NS, 4 * NS
    keys.served("k", 2 * NS, 8 * NS)
    assert gauges.values["cache_oldest_hit_seconds"] == 4
    # Of what another process put there nobody knows when it was stored.
    keys.served("k", 3 * NS, 60 * NS)
    keys.served("other", 2 * NS, 60 * NS)
    assert gauges.values["cache_oldest_hit_seconds"] == 4
    # A cache that goes on serving what has run out is found out.
    keys.served("k", 2 * NS, 14 * NS)
    assert gauges.values["cache_oldest_hit_seconds"] == 10


def test_the_ttl_is_told_in_the_documents_time_and_only_where_entries_ran_out() -> None:
    assert ttl(cache_oldest_hit_seconds=[1.0, 4.9], cache_expiries=[3]).value == pytest.approx(293.94)
    assert ttl(cache_oldest_hit_seconds=[1.0, 4.9]).status == "inconclusive"
    assert ttl(cache_oldest_hit_seconds=[6.0]).value == pytest.approx(359.94)
    assert ttl().status == "not run"


def test_the_hit_ratio_leaves_sessions_out() -> None:
    def row(name: str, ok: int) -> Latency:
        return Latency(name=name, endpoint="redis1.redis", count=ok, ok=ok, errors=0, dropped=0, rate=1.0)

    rows = (row("redis GET hit", 150), row("redis GET miss", 50), row("redis GETEX session", 999))
    found = cache._ratio(SimpleNamespace(load=Load(steady_by_name=rows)), Sampled())  # type: ignore[arg-type]
    assert found.value == 75
    few = SimpleNamespace(load=Load(steady_by_name=(row("redis GET hit", 9),)))
    assert cache._ratio(few, Sampled()).status == "inconclusive"  # type: ignore[arg-type]


# --- routes


def test_routes_that_a_topology_lacks_lead_to_the_loads_own_pool(tmp_path: Path) -> None:
    made = LoadConfig(
        run="r",
        out="/x",
        workload="mixed",
        writer=LoadTarget("w", "h", 1, "d"),
        reader=LoadTarget("r", "h", 1, "d_ro"),
        routes={"direct": LoadTarget("router.write", "h", 2, "d")},
        roles={"reader": "app_readonly"},
        cache=CacheConfig((CacheNode("redis1.redis", "10.0.0.1", 6379),), (), "cache", "/p", 300.0),
        user="u",
        password_file="/p",
    )
    assert LoadConfig.from_json(made.to_json()) == made
    names = {route: made.route(route).name for route in ("writer", "direct", "session.reader", "x.writer")}
    assert names == {"writer": "w", "direct": "router.write", "session.reader": "r", "x.writer": "w"}
    gauges = Gauges(str(tmp_path / "metrics.load-0.jsonl"), "client", 0)
    gauges.most("cache_simultaneous_loads", 3)
    gauges.most("cache_simultaneous_loads", 2)
    gauges.write(5)
    gauges.close()
    gauges.write(5)
    lines = (tmp_path / "metrics.load-0.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert '"value": 3' in lines[2]
