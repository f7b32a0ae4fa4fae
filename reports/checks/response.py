"""Response time of the load in the steady state: mean and percentiles, from the intended start."""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, Latency
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

FIGURES = {"query.mean": "mean", "latency.p50": "p50", "latency.p95": "p95", "latency.p99": "p99"}
LEAST = 100
"""Requests that a mean needs."""
MOST_MISSING = 0.01
"""Share of requests that may fail or be dropped: beyond it the time of the others flatters."""


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    return [_finding(analysis.load.steady, metric, name) for metric, name in FIGURES.items()]


def _finding(steady: Latency | None, metric: str, name: str) -> Finding:
    if steady is None or not steady.count:
        return nothing(metric, "ms", "not run", "the run has no load in a steady state")
    missing = (steady.errors + steady.dropped) / steady.count
    detail = {"requests": steady.ok, "errors": steady.errors, "dropped": steady.dropped, "rate": steady.rate}
    value = steady.response.get(name)
    if steady.ok < LEAST or value is None:
        why = f"{steady.ok} answered requests are too few for it"
        return nothing(metric, "ms", "inconclusive", why, **detail)
    finding = Finding(metric=metric, unit="ms", value=value, evidence=("requests.parquet",), detail=detail)
    if missing > MOST_MISSING:
        why = f"{missing:.1%} of the requests failed or were dropped (bound {MOST_MISSING:.0%})"
        return finding.model_copy(update={"status": "invalid", "why": why})
    return finding


CHECK = Check("response", dict.fromkeys(FIGURES, "ms"), run)
