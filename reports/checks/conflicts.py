"""Queries on replicas against replay: who was cancelled, and how far replay fell behind.

- ``replicas.cancelled``: queries that replay cancelled on any node in the steady state (``conflicts`` of
  pg_stat_database).
- ``replicas.lag``: greatest replay lag of any standby in the steady state, seconds, as the primary reports it
  (``replay_lag`` of pg_stat_replication); the greatest in bytes of WAL stands beside it.
"""

from __future__ import annotations

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis.metrics import Metrics, increase
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

CANCELLED, LAG = "replicas.cancelled", "replicas.lag"
EVIDENCE = ("metrics.parquet",)


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    steady = max(
        (span for span in analysis.spans if span.kind == "steady"),
        key=lambda span: span.end_s - span.start_s,
        default=None,
    )
    start = next((event["t"] for event in record.events("run-start") if event["t"] is not None), None)
    if steady is None or start is None:
        why = "the run has no steady state"
        return [nothing(CANCELLED, "queries", "not run", why), nothing(LAG, "s", "not run", why)]
    metrics = Metrics(record)
    window = start + round(steady.start_s * NS), start + round(steady.end_s * NS)
    return [_cancelled(metrics, window), _lag(metrics, window)]


def _cancelled(metrics: Metrics, window: tuple[int, int]) -> Finding:
    grown = {series.node: increase(series.within(*window)) for series in metrics.find("pg_conflicts")}
    known = {node: value for node, value in grown.items() if value is not None}
    if not known:
        return nothing(CANCELLED, "queries", "not run", "the nodes' conflicts were not sampled")
    return Finding(
        metric=CANCELLED,
        unit="queries",
        value=sum(known.values()),
        evidence=EVIDENCE,
        why=", ".join(f"{node} {value:.0f}" for node, value in sorted(known.items()) if value),
        detail={"nodes": known},
    )


def _lag(metrics: Metrics, window: tuple[int, int]) -> Finding:
    def most(metric: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for series in metrics.find(metric):
            values = series.within(*window).value
            if len(values) and series.label:
                found[series.label] = max(found.get(series.label, 0.0), float(values.max()))
        return found

    seconds, behind = most("pg_replay_lag_seconds"), most("pg_replication_lag_bytes")
    if not seconds:
        return nothing(LAG, "s", "not run", "no standby's replay was sampled")
    worst = max(seconds, key=lambda name: seconds[name])
    return Finding(
        metric=LAG,
        unit="s",
        value=seconds[worst],
        evidence=EVIDENCE,
        why=f"{worst}; at most {max(behind.values(), default=0) / 1024:.0f} KiB of WAL behind",
        detail={"seconds": seconds, "bytes": behind},
    )


CHECK = Check("conflicts", (CANCELLED, LAG), run)
