"""Pools: server connections against the limits, efficiency and utilisation.

Efficiency is that of the worst pooler, utilisation that of the most used one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, Pool
from reports.analysis.pooling import LEAST_ASSIGNMENTS
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

MODES = ("transaction", "session", "statement")
EVIDENCE = ("metrics.parquet", "topology.yaml")


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    return [
        *(_connections(analysis.pools, mode) for mode in MODES),
        _worst(analysis.pools, "pool.efficiency", "%", lambda p: p.efficiency, min),
        _worst(analysis.pools, "pool.utilisation", "%", lambda p: p.utilisation, max),
        _worst(analysis.pools, "pool.wait", "ms", lambda p: p.wait_ms, max),
    ]


def _connections(pools: Sequence[Pool], mode: str) -> Finding:
    metric = f"pool.server_connections.{mode}"
    mine = [p for p in pools if p.mode == mode]
    seen = {p.pooler: p.max_server_connections for p in mine if p.max_server_connections is not None}
    if not mine:
        return nothing(metric, "1", "not run", f"the topology has no pooler in {mode} mode")
    if len(seen) < len(mine):
        return nothing(metric, "1", "not run", "the pooler's server connections were not sampled")
    unused = [p.pooler for p in mine if not p.assignments]
    # A pool that nothing used keeps every limit; one that is over it anyway is over it.
    vacuous = len(unused) == len(mine) and all(p.limit is None or seen[p.pooler] <= p.limit for p in mine)
    return Finding(
        metric=metric,
        unit="1",
        value=float(max(seen.values())),
        status="inconclusive" if vacuous else None,
        evidence=EVIDENCE,
        why=f"nothing used {', '.join(unused)} in the steady state, which keeps every limit"
        if vacuous
        else "the greatest number held at a time in this run",
        detail={"poolers": seen, "limit": max((p.limit or 0 for p in mine), default=0)},
    )


def _worst(
    pools: Sequence[Pool],
    metric: str,
    unit: str,
    pick: Callable[[Pool], float | None],
    worst: Callable[[list[float]], float],
) -> Finding:
    # A pooler without a single assignment was not used: nothing is wrong with it, and nothing is shown. A
    # share of few assignments says nothing either way; such a pooler is named.
    used = [p for p in pools if p.assignments != 0]
    if not used:
        return nothing(metric, unit, "not run", "no pooler was used in the steady state")
    few = [p for p in used if metric == "pool.efficiency" and _few(p)]
    if few and len(few) < len(used):
        used = [p for p in used if p not in few]
    values = {p.pooler: value for p in used if (value := pick(p)) is not None}
    untold = [p for p in used if p.pooler not in values]
    if untold:
        why = "; ".join(f"{p.pooler}: {p.why or 'it was not sampled'}" for p in untold)
        return nothing(metric, unit, "inconclusive" if values else "not run", why, poolers=values)
    return Finding(
        metric=metric,
        unit=unit,
        value=worst(list(values.values())),
        why="; ".join(f"{p.pooler} is left out: {p.why}" for p in few if len(few) < len(pools)),
        evidence=("metrics.parquet", "logs/"),
        detail={
            "poolers": values,
            "new_connections": {p.pooler: p.new_connections for p in used},
            "assignments": {p.pooler: p.assignments for p in used},
            "unused": [p.pooler for p in pools if p.assignments == 0],
        },
    )


def _few(pool: Pool) -> bool:
    return pool.assignments is not None and pool.assignments < LEAST_ASSIGNMENTS and pool.efficiency is None


UNITS = {
    **{f"pool.server_connections.{mode}": "1" for mode in MODES},
    "pool.efficiency": "%",
    "pool.utilisation": "%",
    "pool.wait": "ms",
}
CHECK = Check("pools", UNITS, run)
