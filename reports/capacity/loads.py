"""What each step did to every resource, from the samples of its window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lab.record.schema import NS
from reports.analysis.resources import limit_of
from reports.capacity.calibrate import beside
from reports.capacity.constraint import Load
from reports.capacity.steps import Run, Step

REFUSED = ("53300",)
"""too_many_connections: the database's own, and what PgBouncer says for no more connections allowed."""


def loads(run: Run) -> list[Load]:
    """One row an open-loop step, by rate."""
    return [load(run, step) for step in run.open]


def load(run: Run, step: Step) -> Load:
    """The figures of one step."""
    head = step.record.manifest
    nodes = list((run.topology.get("postgres") or {}).get("nodes") or [])
    primary = next((str(n["name"]) for n in nodes if n.get("role") == "primary"), "")
    readers = [str(n["name"]) for n in nodes if n.get("role") == "replica"]
    client = str((run.topology.get("clients") or [{"name": "client"}])[0]["name"])
    workers = int((head.load or {}).get("workers") or 1)
    users = (head.load or {}).get("users") or run.topology.get("instances")
    everything = step.metrics.nodes("cpu_seconds")
    cores = step.most("machine_cores")
    busy = step.per_second("machine_cpu_seconds")
    pooler = _pooler(run, step)
    generator = step.per_second("cpu_seconds", client)
    under_way = step.figures.concurrency
    return Load(
        rate=step.rate or step.figures.offered,
        good=step.good,
        throughput=step.figures.throughput,
        response_mean=step.figures.response["mean"],
        primary_cpu=_share(step, head.resources, primary, "cpu_seconds"),
        primary_throttled=step.per_second("cpu_throttled_seconds", primary),
        replica_cpu=_greatest(_share(step, head.resources, node, "cpu_seconds") for node in readers),
        replica_throttled=_greatest(step.per_second("cpu_throttled_seconds", node) for node in readers),
        pools=_pools(step, pooler),
        pool_wait=_wait(step, pooler),
        connections=_connections(step, primary),
        refused=_refused(step.requests),
        waits=_waits(step, primary),
        replay_lag_s=step.most("pg_replay_lag_seconds"),
        cache_hit=_hits(step),
        generator_lag=step.lag_p99_ms,
        generator_cpu=generator / workers if generator is not None else None,
        machine=busy / cores if busy is not None and cores else None,
        beside=beside([step], everything),
        wal_bytes=step.per_second("pg_wal_bytes", primary),
        io_write=step.per_second("io_write_bytes", primary),
        clients=under_way / float(users) if under_way is not None and users else None,
    )


def _greatest(values: Any) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _share(step: Step, resources: dict[str, Any], node: str, metric: str) -> float | None:
    cpus, _ = limit_of(resources, node)
    used = step.per_second(metric, node)
    return used / cpus if used is not None and cpus else None


def _pooler(run: Run, step: Step) -> dict[str, Any] | None:
    endpoints = {str(e) for e in pc.unique(step.requests["endpoint"].cast(pa.string())).to_pylist() if e}
    used = {endpoint.partition(".")[0] for endpoint in endpoints}
    return next((one for one in run.topology.get("poolers") or [] if one.get("name") in used), None)


def _pools(step: Step, pooler: dict[str, Any] | None) -> dict[str, float]:
    """Database of the pooler → share of its connections that transactions held."""
    if pooler is None:
        return {}
    node, size = str(pooler["name"]), int(pooler["max_server_connections"])
    writer = max(1, round(size * float(pooler.get("writer_share") or 0.6)))
    found: dict[str, float] = {}
    seconds = (step.window[1] - step.window[0]) / NS
    if pooler["mode"] == "session":
        for series in step.metrics.find("pgb_sv_active", node):
            name = (series.label or "").partition("/")[0]
            mean = step.mean("pgb_sv_active", node, series.label)
            limit = size - writer if name.endswith("_ro") else writer
            found[name] = found.get(name, 0.0) + (mean or 0.0) / max(1, limit)
        return found
    for series in step.metrics.find("pgb_xact_time", node):
        held = step.growth("pgb_xact_time", node, series.label)
        name = series.label or ""
        limit = size - writer if name.endswith("_ro") else writer
        if held is not None and seconds > 0:
            found[name] = held / seconds / max(1, limit)
    return found


def _wait(step: Step, pooler: dict[str, Any] | None) -> float | None:
    if pooler is None:
        return None
    node = str(pooler["name"])
    waited = step.growth("pgb_wait_time", node)
    count = step.growth("pgb_assignment", node) or step.growth("pgb_xact", node)
    return 1000 * waited / count if waited is not None and count else None


def _connections(step: Step, primary: str) -> float | None:
    used, most = step.mean("pg_connections", primary), step.most("pg_max_connections", primary)
    return used / most if used is not None and most else None


def _refused(requests: pa.Table) -> float:
    if not requests.num_rows:
        return 0.0
    outcome = requests["outcome"].cast(pa.string())
    refused = sum(word in REFUSED for word in outcome.to_pylist())
    return float(refused / requests.num_rows)


def _waits(step: Step, primary: str) -> dict[str, float]:
    """Mean sessions by wait event: an event that a sample does not name was waited for by nobody then."""
    looks = next((len(s.within(*step.window).t) for s in step.metrics.find("pg_max_connections", primary)), 0)
    found = {}
    for series in step.metrics.find("pg_active", primary):
        inside = series.within(*step.window)
        if len(inside.t) and looks:
            found[series.label or "?"] = float(inside.value.sum()) / looks
    return found


def _hits(step: Step) -> float | None:
    hits, misses = step.per_second("redis_hits"), step.per_second("redis_misses")
    if hits is None or misses is None or hits + misses < 1:
        return None
    return hits / (hits + misses)


UTILISATIONS: Sequence[tuple[str, str]] = (
    ("primary CPU", "primary_cpu"),
    ("replica CPU", "replica_cpu"),
    ("max_connections", "connections"),
    ("generator CPU", "generator_cpu"),
    ("machine", "machine"),
    ("users", "clients"),
)
"""What the report shows of every step: label, field of ``Load``."""
