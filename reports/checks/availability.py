"""Availability of writes and reads over the whole run, and the longest time in which nobody was served."""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, Service
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

KINDS = {"write": "writes.parquet", "read": "reads.parquet"}


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    found = []
    for kind, table in KINDS.items():
        seen = analysis.service_write if kind == "write" else analysis.service_read
        found += [_share(analysis, seen, kind, table), _longest(analysis, seen, kind, table)]
    return found


def _share(analysis: Analysis, seen: Service | None, kind: str, table: str) -> Finding:
    metric = f"availability.{kind}"
    if (bad := _blind(analysis, seen, metric, "%", kind)) is not None:
        return bad
    assert seen is not None
    value = 100 * seen.good / seen.operations
    return Finding(
        metric=metric,
        unit="%",
        value=value,
        evidence=(table,),
        why=f"{seen.operations - seen.good:,} of {seen.operations:,} were not answered well within "
        f"{analysis.manifest.slow_after_s:g} s, in {seen.bad_seconds} of {seen.seconds} seconds",
        detail={
            "operations": seen.operations,
            "bad": seen.operations - seen.good,
            "seconds": seen.seconds,
            "bad_seconds": seen.bad_seconds,
            "error_budget_used": 100 - value,
        },
    )


def _longest(analysis: Analysis, seen: Service | None, kind: str, table: str) -> Finding:
    metric = f"outage.longest.{kind}"
    if (bad := _blind(analysis, seen, metric, "s", kind)) is not None:
        return bad
    assert seen is not None
    detail = {"at_s": seen.longest_at_s}
    if not seen.longest_ended:
        why = "the longest outage lasted to the end of the run"
        return nothing(metric, "s", "inconclusive", why, at_least=seen.longest_s, **detail)
    why = "no operation was bad" if seen.good == seen.operations else ""
    return Finding(metric=metric, unit="s", value=seen.longest_s, evidence=(table,), why=why, detail=detail)


def _blind(analysis: Analysis, seen: Service | None, metric: str, unit: str, kind: str) -> Finding | None:
    if seen is None:
        return nothing(metric, unit, "not run", f"no {kind} of the probe was recorded")
    # A probe that was late or paused makes bad operations of its own, or hides them.
    late = [f"trial {t.trial}: {why}" for t in analysis.trials for why in t.invalid if "probe" in why]
    if late:
        return nothing(metric, unit, "invalid", "; ".join(late))
    return None


CHECK = Check(
    "availability",
    {
        f"{name}.{kind}": unit
        for kind in KINDS
        for name, unit in (("availability", "%"), ("outage.longest", "s"))
    },
    run,
)
