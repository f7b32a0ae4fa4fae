"""What readers were shown: sessions that went back in time, own writes missed, and staleness."""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, ReadsAt
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

EVIDENCE = ("reads.parquet", "writes.parquet", "audit/")
UNITS = {"reads.backwards": "reads", "reads.missing_own": "%", "reads.staleness": "s"}


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    seen = analysis.freshness
    if seen.all is None:
        return [nothing(m, unit, "not run", "no read was answered") for m, unit in UNITS.items()]
    return [
        _backwards(analysis),
        _of_promises(analysis, "reads.missing_own", "%", _missing),
        _of_promises(analysis, "reads.staleness", "s", lambda at: at.worst_s),
    ]


def _missing(at: ReadsAt) -> float:
    return 100 * at.missing / at.reads


def _backwards(analysis: Analysis) -> Finding:
    seen = analysis.freshness
    if not seen.sessions or seen.all is None:
        return nothing("reads.backwards", "reads", "not run", "no session read more than once")
    return Finding(
        metric="reads.backwards",
        unit="reads",
        value=float(seen.all.backwards),
        evidence=("reads.parquet",),
        why=f"of {seen.all.reads:,} reads; {seen.sessions} lasting sessions",
        detail={"sessions": seen.sessions, "endpoints": {e.name: e.backwards for e in seen.by_endpoint}},
    )


def _of_promises(analysis: Analysis, metric: str, unit: str, pick: object) -> Finding:
    assert callable(pick)
    if not analysis.ledger.complete:
        why = f"which writes were lost is not known ({analysis.ledger.why or 'no audit'})"
        return nothing(metric, unit, "inconclusive", why)
    if not analysis.ledger.acknowledged:
        return nothing(metric, unit, "not run", "no write was acknowledged")
    seen = analysis.freshness
    worst = max(seen.by_endpoint, key=pick)
    return Finding(
        metric=metric,
        unit=unit,
        value=float(pick(worst)),
        evidence=EVIDENCE,
        why=f"at {worst.name}" if len(seen.by_endpoint) > 1 else "",
        detail={
            "endpoints": {e.name: pick(e) for e in seen.by_endpoint},
            "servers": {e.name: pick(e) for e in seen.by_server},
            "p99_s": {e.name: e.p99_s for e in seen.by_endpoint},
        },
    )


CHECK = Check("freshness", UNITS, run)
