"""What several checks share: valid trials, and a finding where there is nothing to find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, Trial
from reports.analysis.trials import median, median_interval
from reports.findings import Finding

Status = Literal["inconclusive", "not run", "invalid"]
EVIDENCE = ("events.parquet", "writes.parquet")


def nothing(metric: str, unit: str, status: Status, why: str, **detail: Any) -> Finding:
    """A finding without a value."""
    return Finding(metric=metric, unit=unit, value=None, status=status, why=why, detail=detail)


def split(analysis: Analysis, *, ledger: bool = False) -> tuple[list[Trial], list[Trial]]:
    """(valid, invalid) trials; with ``ledger`` by what voids a trial altogether, else as to outages."""

    def wrong(trial: Trial) -> bool:
        return bool(trial.void if ledger else trial.invalid)

    return [t for t in analysis.trials if not wrong(t)], [t for t in analysis.trials if wrong(t)]


def no_valid_trial(analysis: Analysis, metric: str, unit: str, *, ledger: bool = False) -> Finding | None:
    """The finding of a run without a trial that may be judged; None where there is one."""
    valid, invalid = split(analysis, ledger=ledger)
    if not analysis.trials:
        why = "the run had no fault" if analysis.manifest.fault is None else "no trial was recorded"
        return nothing(metric, unit, "not run", why)
    if not valid:
        return nothing(metric, unit, "invalid", invalid_text(invalid), invalid_trials=len(invalid))
    return None


def windows(analysis: Analysis, record: RecordReader) -> list[tuple[int, int]]:
    """[effect of the first fault, end of the window) of each trial whose ledger counts, in ns."""
    begins = {int(e["trial"]): int(e["t"]) for e in reversed(record.events("fault-effect"))}
    ends = {int(e["trial"]): int(e["t"]) for e in record.events("window-end")}
    judged = (trial.trial for trial in split(analysis, ledger=True)[0])
    return [(begins[trial], ends[trial]) for trial in judged if trial in begins and trial in ends]


def invalid_text(invalid: Sequence[Trial]) -> str:
    """Why trials were left out, one clause a trial."""
    return "; ".join(f"trial {t.trial}: {', '.join(t.invalid)}" for t in invalid)


def of_trials(
    metric: str,
    unit: str,
    samples: Sequence[float],
    *,
    evidence: tuple[str, ...] = EVIDENCE,
    why: str = "",
    **detail: Any,
) -> Finding:
    """A finding whose figure is the worst (greatest) trial, with the interval of the median from n ≥ 6."""
    interval = median_interval(samples)
    return Finding(
        metric=metric,
        unit=unit,
        value=max(samples),
        samples=tuple(samples),
        interval=interval[0] if interval else None,
        confidence=interval[1] if interval else None,
        why=why,
        evidence=evidence,
        detail={"median": median(samples), "trials": len(samples), **detail},
    )
