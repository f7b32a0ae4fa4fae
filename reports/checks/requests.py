"""Requests of the load that failed or were dropped in the steady state."""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

METRIC, UNIT = "requests.failed", "requests"
LEAST = 100
"""Requests that it takes to say that none fails."""


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    steady = analysis.load.steady
    if steady is None or not steady.count:
        return [nothing(METRIC, UNIT, "not run", "the run has no load in a steady state")]
    bad = steady.errors + steady.dropped
    few = not bad and steady.count < LEAST
    parts = ", ".join(
        f"{one.name} {one.errors + one.dropped} of {one.count}" for one in analysis.load.steady_by_name
    )
    return [
        Finding(
            metric=METRIC,
            unit=UNIT,
            value=float(bad),
            status="inconclusive" if few else None,
            why=f"{steady.count} requests are too few for it" if few else f"of {steady.count} ({parts})",
            evidence=("requests.parquet",),
            detail={"requests": steady.count, "errors": steady.errors, "dropped": steady.dropped},
        )
    ]


CHECK = Check("requests", {METRIC: UNIT}, run)
