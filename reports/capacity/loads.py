"""What each step did to every resource, from the samples of its window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reports.analysis.resources import limit_of
from reports.capacity.calibrate import beside
from reports.capacity.constraint import Load
from reports.capacity.machine import apart, shared_cores
from reports.capacity.nodes import database_nodes, primary_of, readers_of
from reports.capacity.pools import databases, endpoints_of
from reports.capacity.steps import Run, Step

REFUSED = ("53300",)
"""too_many_connections: the database's own, and what PgBouncer says for no more connections allowed."""
RESERVED = 3
"""PostgreSQL's default ``superuser_reserved_connections``."""


def loads(run: Run) -> list[Load]:
    """One row an open-loop step, by rate."""
    return [load(run, step) for step in run.open]


def load(run: Run, step: Step) -> Load:
    """The figures of one step."""
    head = step.record.manifest
    nodes = database_nodes(run.topology)
    primary, readers = primary_of(nodes).name, [node.name for node in readers_of(nodes)]
    client = str((run.topology.get("clients") or [{"name": "client"}])[0]["name"])
    workers = int((head.load or {}).get("workers") or 1)
    users = (head.load or {}).get("users") or run.topology.get("instances")
    everything = step.metrics.nodes("cpu_seconds")
    used = databases(run.topology, endpoints_of(step.requests))
    generator = step.per_second("cpu_seconds", client)
    under_way = step.figures.concurrency
    return Load(
        rate=step.rate or step.figures.offered,
        good=step.good,
        throughput=step.figures.throughput,
        primary_cpu=_share(step, head.resources, primary, "cpu_seconds"),
        primary_throttled=step.per_second("cpu_throttled_seconds", primary),
        replica_cpu=_greatest(_share(step, head.resources, node, "cpu_seconds") for node in readers),
        replica_throttled=_greatest(step.per_second("cpu_throttled_seconds", node) for node in readers),
        pools={one.name: share for one in used if (share := one.used(step)) is not None},
        pool_wait={one.name: wait for one in used if (wait := one.wait(step)) is not None},
        pool_response={
            one.name: mean for one in used if (mean := _response(step.requests, one.endpoint)) is not None
        },
        connections=_connections(step, primary),
        refused=_refused(step.requests),
        waits=_waits(step, primary),
        replay_lag_s=step.most("pg_replay_lag_seconds"),
        cache_hit=_hits(step),
        generator_lag=step.lag_p99_ms,
        generator_cpu=generator / workers if generator is not None else None,
        generator_throttled=step.per_second("cpu_throttled_seconds", client),
        machine=_machine(run, step, everything),
        beside=beside([step], everything),
        wal_bytes=step.per_second("pg_wal_bytes", primary),
        io_read=step.per_second("pg_read_bytes", primary),
        io_write=step.per_second("io_write_bytes", primary),
        clients=under_way / float(users) if under_way is not None and users else None,
    )


def _machine(run: Run, step: Step, nodes: Sequence[str]) -> float | None:
    """Use of the cores that the databases share. What no node accounts for (the kernel's own) is theirs."""
    cores, busy = step.most("machine_cores"), step.per_second("machine_cpu_seconds")
    if busy is None or not cores:
        return None
    alone = apart(run.topology)
    elsewhere = sum(step.per_second("cpu_seconds", node) or 0.0 for node in nodes if node in alone)
    return min(1.0, (busy - elsewhere) / shared_cores(run.topology, cores))


def _greatest(values: Any) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _share(step: Step, resources: dict[str, Any], node: str, metric: str) -> float | None:
    cpus, _ = limit_of(resources, node)
    used = step.per_second(metric, node)
    return used / cpus if used is not None and cpus else None


def _response(requests: pa.Table, endpoint: str) -> float | None:
    """Mean response of the answered requests of an endpoint, ms."""
    ok = pc.equal(requests["outcome"].cast(pa.string()), "ok")
    mine = requests.filter(pc.fill_null(pc.and_(ok, pc.equal(requests["endpoint"], endpoint)), False))
    if not mine.num_rows:
        return None
    return float(pc.mean(pc.subtract(mine["done"], mine["intended"])).as_py()) / 1e6


def _connections(step: Step, primary: str) -> float | None:
    """Of those that an application may have: a few are kept for superusers."""
    used, most = step.mean("pg_connections", primary), step.most("pg_max_connections", primary)
    return used / max(1.0, most - RESERVED) if used is not None and most else None


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
