"""RPO, and the account of every write: lost, phantom, duplicate, dirty, divergent.

A kill leaves the network up until the last moment: what was acknowledged had reached the standby, or the
client never got its answer. Zero loss after a kill is no proof of RPO 0: it takes a partition of the primary
to which writes were exposed while clients reached it, and a new primary (``reports.analysis.faults``). A
partition that exposed nothing is left out, and without another the finding is invalid. A loss counts
whatever the fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, Trial
from reports.checks import Check
from reports.checks.common import invalid_text, no_valid_trial, of_trials, split
from reports.findings import Finding

COUNTS = {
    "ledger.lost": "lost",
    "ledger.phantom": "phantom",
    "ledger.duplicate": "duplicate",
    "ledger.dirty": "dirty",
    "ledger.divergent": "divergent",
}
EVIDENCE = ("writes.parquet", "audit/", "events.parquet")
PROMISES = ("rpo.rows", "rpo.seconds", "ledger.lost")
"""Metrics whose zero only a partition of the primary proves."""


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    found = [_rpo(analysis, "rpo.rows", "rows"), _rpo(analysis, "rpo.seconds", "s")]
    return found + [_count(analysis, metric, name) for metric, name in COUNTS.items()]


def _seconds(trial: Trial) -> float:
    return (trial.ledger.rpo_seconds or 0.0) if trial.ledger.lost else 0.0


def _rpo(analysis: Analysis, metric: str, unit: str) -> Finding:
    samples = [
        float(t.ledger.lost) if unit == "rows" else _seconds(t) for t in split(analysis, ledger=True)[0]
    ]
    return _finding(analysis, metric, unit, samples)


def _count(analysis: Analysis, metric: str, name: str) -> Finding:
    samples = [float(getattr(t.ledger, name)) for t in split(analysis, ledger=True)[0]]
    return _finding(analysis, metric, "rows", samples)


def _finding(analysis: Analysis, metric: str, unit: str, samples: list[float]) -> Finding:
    if (empty := no_valid_trial(analysis, metric, unit, ledger=True)) is not None:
        return empty
    valid, invalid = split(analysis, ledger=True)
    detail = {
        "acknowledged": sum(t.ledger.acknowledged for t in valid),
        "acknowledged_locally": sum(t.ledger.acknowledged_locally for t in valid),
        "lost_locally": sum(t.ledger.lost_locally for t in valid),
        "total": sum(samples),
        "invalid_trials": len(invalid),
    }
    left_out = f"left out: {invalid_text(invalid)}" if invalid else ""
    finding = of_trials(metric, unit, samples, evidence=EVIDENCE, why=left_out, **detail)
    incomplete = [t for t in valid if not t.ledger.complete]
    if incomplete:
        why = "; ".join(f"trial {t.trial}: {t.ledger.why}" for t in incomplete)
        return finding.model_copy(update={"status": "invalid", "value": None, "why": f"the audit: {why}"})
    if metric in PROMISES:
        outside = analysis.ledger.lost - sum(t.ledger.lost for t in analysis.trials)
        if outside > 0 and unit == "rows":
            # Writes that no trial accounts for: lost all the same.
            why = f"{outside} write(s) were lost outside the trials"
            return finding.model_copy(update={"value": (finding.value or 0.0) + outside, "why": why})
        if not any(samples):
            return _proof(finding, valid)
    return finding


def _proof(finding: Finding, valid: Sequence[Trial]) -> Finding:
    """The finding of no loss at all, by what the trials can prove."""
    proving = [t for t in valid if t.exposure.proof == "proves"]
    vacuous = [t for t in valid if t.exposure.proof == "vacuous"]
    weak = [t for t in valid if t.exposure.proof == "no proof"]
    whys = [finding.why] if finding.why else []
    if vacuous:
        numbers = ", ".join(str(t.trial) for t in vacuous)
        whys.append(f"the partition exposed no write (trial {numbers}): it proves nothing")
    if weak:
        whys.append(_weak(weak))
    why = "; ".join(whys)
    if not proving:
        status: Literal["invalid", "inconclusive"] = "inconclusive" if weak else "invalid"
        return finding.model_copy(
            update={"status": status, "value": finding.value if weak else None, "why": why}
        )
    detail = {
        **finding.detail,
        "trials": len(proving),
        "exposed": sum(t.exposure.attempted for t in proving),
        "exposed_acknowledged": sum(t.exposure.acknowledged for t in proving),
    }
    return finding.model_copy(update={"samples": (0.0,) * len(proving), "detail": detail, "why": why})


def _weak(trials: Sequence[Trial]) -> str:
    numbers = ", ".join(str(t.trial) for t in trials)
    if all(t.exposure.took_over and t.exposure.primary_cut for t in trials):
        if any(t.exposure.reached for t in trials):
            return (
                f"the new primary had all that the old one wrote (trial {numbers}), so nothing could be lost"
            )
        return f"clients had lost the old primary as well (trial {numbers}), so nothing could be lost"
    if all(t.exposure.primary_cut for t in trials):
        return f"no other node took over (trial {numbers}), so nothing could be lost"
    kinds = sorted({kind for t in trials if not t.exposure.primary_cut for kind in t.exposure.kinds})
    if kinds == ["partition"]:
        return f"the partition did not cut off the primary (trial {numbers}): that takes one that does"
    said = " and a ".join(kinds) or "fault of unknown kind"
    return f"a {said} cannot prove RPO 0: it takes a partition"


CHECK = Check("ledger", {"rpo.rows": "rows", "rpo.seconds": "s", **dict.fromkeys(COUNTS, "rows")}, run)
