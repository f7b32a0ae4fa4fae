"""Time from the fault to full redundancy: every node streams again. The worst trial."""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import no_valid_trial, of_trials, split
from reports.findings import Finding

METRIC = "redundant.seconds"


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    if (empty := no_valid_trial(analysis, METRIC, "s", ledger=True)) is not None:
        return [empty]
    valid = split(analysis, ledger=True)[0]
    known = [t.redundant_s for t in valid if t.redundant_s is not None]
    never = [t for t in valid if t.redundant_s is None]
    if never:
        numbers = ", ".join(str(t.trial) for t in never)
        seen = [t.end_s - t.effect_s for t in never if t.effect_s is not None]
        return [
            Finding(
                metric=METRIC,
                unit="s",
                value=None,
                samples=tuple(known),
                status="inconclusive",
                why=f"that every node streamed again was not seen in trial {numbers}",
                evidence=("events.parquet",),
                detail={"trials": len(valid), "at_least": max([*seen, *known], default=0.0)},
            )
        ]
    synchronous = [t.synchronous_s for t in valid if t.synchronous_s is not None]
    return [
        of_trials(
            METRIC,
            "s",
            known,
            evidence=("events.parquet",),
            synchronous_s=max(synchronous) if len(synchronous) == len(valid) else None,
        )
    ]


CHECK = Check("redundant", {METRIC: "s"}, run)
