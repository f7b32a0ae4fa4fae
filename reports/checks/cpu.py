"""CPU of the databases in the steady state, as a share of their limits: the busiest node."""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

METRIC = "db.cpu"


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    used = [u for u in analysis.usage if u.node in analysis.databases and u.cpu_cores is not None]
    if not used:
        return [nothing(METRIC, "%", "not run", "no database node's CPU was sampled in a steady state")]
    unlimited = [u.node for u in used if u.cpu_share is None]
    if unlimited:
        why = f"no CPU limit on {', '.join(unlimited)}: there is nothing to take a share of"
        return [nothing(METRIC, "%", "not run", why, cores={u.node: u.cpu_cores for u in used})]
    if analysis.load.steady is None or not analysis.load.steady.ok:
        return [nothing(METRIC, "%", "not run", "there was no load in the steady state")]
    shares = {u.node: u.cpu_share for u in used if u.cpu_share is not None}
    return [
        Finding(
            metric=METRIC,
            unit="%",
            value=max(shares.values()),
            evidence=("metrics.parquet", "manifest.json"),
            why=f"at {analysis.load.steady.rate or 0:.0f} requests/s",
            detail={"nodes": shares, "throttled": {u.node: u.throttled_share for u in used}},
        )
    ]


CHECK = Check("cpu", {METRIC: "%"}, run)
