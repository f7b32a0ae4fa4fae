"""The alarms of a document, evaluated over a run as a monitoring service would.

A figure is averaged over periods of 10 s (the shortest of CloudWatch's standard-resolution statistics is
60 s: a run is shorter than a day, so its periods are too). An alarm *fires* at the end of the third
consecutive period in which the average lies beyond the threshold, and is *over* at the end of the third
consecutive one in which it does not: neither one outlier nor one lull changes it. A period without a sample
counts as neither, and breaks no row.

| alarm | figure | threshold |
|---|---|---|
| cpu | CPU time ÷ the node's CPU limit, percent, each database node | 70 prod, 80 otherwise |
| connections | client backends but the lab's own, each database node | 80 prod, 50 otherwise |
| latency | mean response time of the load's answered requests, ms | 200 |
| capacity | the greater of CPU and memory as a share of the node's limits, percent | 80 |

Thresholds: Clinical Trial Platform, *Alarms Configuration* (80/70 %, 50/80, 200 ms, 80 % of the maximum).
Capacity is that of a serverless database; here the node's limits are the maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from lab.record.schema import NS
from reports.analysis.columns import Floats
from reports.analysis.latency import OK, Requests
from reports.analysis.metrics import Metrics, Series, total
from reports.analysis.model import Alarm, Firing
from reports.analysis.resources import limit_of

PERIOD_S = 10.0
ROW = 3
"""Consecutive periods that it takes to fire, and to be over."""
Name = Literal["cpu", "connections", "latency", "capacity"]
UNITS: dict[Name, str] = {"cpu": "%", "connections": "1", "latency": "ms", "capacity": "%"}
PRODUCTION: dict[Name, float] = {"cpu": 70.0, "connections": 80.0, "latency": 200.0, "capacity": 80.0}
ELSEWHERE: dict[Name, float] = {**PRODUCTION, "cpu": 80.0, "connections": 50.0}


def firings(values: Sequence[float | None], threshold: float, row: int = ROW) -> list[tuple[int, int | None]]:
    """From period averages: (period at whose end it fired, period at whose end it was over or None)."""
    found: list[tuple[int, int | None]] = []
    run, on = 0, False
    for period, value in enumerate(values):
        if value is None:
            continue
        run = run + 1 if (value > threshold) != on else 0
        if run < row:
            continue
        run, on = 0, not on
        if on:
            found.append((period, None))
        else:
            found[-1] = found[-1][0], period
    return found


def alarm(name: Name, node: str | None, threshold: float, values: Sequence[float | None]) -> Alarm:
    """One alarm over the periods of a run, which begin at 0 and last ``PERIOD_S``."""
    ends = [(period + 1) * PERIOD_S for period in range(len(values))]
    return Alarm(
        name=name,
        node=node,
        threshold=threshold,
        unit=UNITS[name],
        period_s=PERIOD_S,
        values=tuple(values),
        fired=tuple(
            Firing(fired_s=ends[begin], over_s=None if end is None else ends[end])
            for begin, end in firings(values, threshold)
        ),
    )


def alarms(
    metrics: Metrics,
    requests: Requests,
    resources: dict[str, Any],
    databases: Sequence[str],
    environment: str,
    start: int,
    end: int,
) -> tuple[Alarm, ...]:
    """Every alarm of a run, from its start to its end (ns); whole periods only."""
    periods = int((end - start) / NS // PERIOD_S)
    if periods < 1:
        return ()
    edges = start + np.arange(periods + 1, dtype=np.int64) * round(PERIOD_S * NS)
    thresholds = PRODUCTION if environment == "prod" else ELSEWHERE
    found = []

    def add(name: Name, node: str | None, values: list[float | None]) -> None:
        if any(value is not None for value in values):
            found.append(alarm(name, node, thresholds[name], values))

    shares = {node: _cpu(metrics, resources, node, edges) for node in databases}
    for node in databases:
        add("cpu", node, shares[node])
    for node in databases:
        # The lab's own instruments are no clients of the document's.
        held = [series for series in metrics.find("pg_connections", node) if series.label != "lab"]
        add("connections", node, _means(*total(held), edges))
    add("latency", None, _latency(requests, periods))
    for node in databases:
        memory = _memory(metrics, resources, node, edges)
        both = zip(shares[node], memory, strict=True)
        add("capacity", node, [None if c is None or m is None else max(c, m) for c, m in both])
    return tuple(found)


def _cpu(metrics: Metrics, resources: dict[str, Any], node: str, edges: Any) -> list[float | None]:
    cores, _ = limit_of(resources, node)
    series = metrics.one("cpu_seconds", node)
    if not cores or series is None or len(series.t) < 2:
        return [None] * (len(edges) - 1)
    at = np.interp(edges, series.t, series.value, left=np.nan, right=np.nan)
    shares = 100 * np.diff(at) / (PERIOD_S * cores)
    # A counter that fell began again at 0: that period says nothing.
    return [float(share) if np.isfinite(share) and share >= 0 else None for share in shares]


def _memory(metrics: Metrics, resources: dict[str, Any], node: str, edges: Any) -> list[float | None]:
    _, limit = limit_of(resources, node)
    series: Series | None = metrics.one("memory_bytes", node)
    if not limit or series is None:
        return [None] * (len(edges) - 1)
    return [None if v is None else 100 * v / limit for v in _means(series.t, series.value, edges)]


def _means(t: Any, value: Floats, edges: Any) -> list[float | None]:
    pairs = pairwise(np.searchsorted(t, edges))
    return [float(value[begin:end].mean()) if end > begin else None for begin, end in pairs]


def _latency(requests: Requests, periods: int) -> list[float | None]:
    ok = requests.whole & (requests.state == OK) & (requests.second >= 0)
    at = (requests.second[ok] // PERIOD_S).astype(np.int64)
    response = requests.response[ok].astype(np.float64)
    counts = np.bincount(at, minlength=periods)[:periods]
    sums = np.bincount(at, weights=response, minlength=periods)[:periods]
    return [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]
