"""Checks: each module of this package that defines ``CHECK`` yields findings from an analysis.

To add one, add a file: nothing else needs to change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lab.discovery import discover
from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, Reason
from reports.findings import Finding

Run = Callable[[Analysis, RecordReader], list[Finding]]


@dataclass(frozen=True)
class Check:
    """A check: what it is called, which metrics it yields (all of them, in every run), and how."""

    id: str
    metrics: Mapping[str, str] | tuple[str, ...]
    """Metric → its unit; names alone where the unit is not told beforehand."""
    run: Run


def checks() -> dict[str, Check]:
    """Every check by its id. Two of one id, or of one metric, are a programming error (ValueError)."""
    found = discover(__name__, "CHECK", Check, lambda check: check.id)
    owners: dict[str, str] = {}
    for check in found.values():
        for metric in check.metrics:
            if metric in owners:
                raise ValueError(f"{metric} comes from two checks: {owners[metric]} and {check.id}")
            owners[metric] = check.id
    return found


def units() -> dict[str, str | None]:
    """Every metric that a run may yield → its unit, None where its check does not tell it beforehand."""
    found: dict[str, str | None] = {}
    for check in checks().values():
        told = check.metrics if isinstance(check.metrics, Mapping) else {}
        found |= {metric: told.get(metric) for metric in check.metrics}
    return found


def run_checks(analysis: Analysis, record: RecordReader) -> tuple[Finding, ...]:
    """Findings of every check, with the run's reasons for invalidity applied."""
    found = [finding for check in checks().values() for finding in check.run(analysis, record)]
    reasons = [reason for reason in analysis.reasons if reason.trial == 0]
    return tuple(_apply(finding, reasons) for finding in found)


def _apply(finding: Finding, reasons: Sequence[Reason]) -> Finding:
    mine = [reason for reason in reasons if any(_covers(prefix, finding.metric) for prefix in reason.metrics)]
    for status in ("not run", "invalid", "inconclusive"):
        whys = [reason.why for reason in mine if reason.status == status]
        if whys and finding.status not in _STRONGER[status]:
            return finding.model_copy(update={"status": status, "why": "; ".join(whys)})
    return finding


_STRONGER: dict[str, tuple[str, ...]] = {
    "not run": (),
    "invalid": ("not run", "invalid"),
    "inconclusive": ("not run", "invalid", "inconclusive"),
}
"""Status that a reason would set → those of a finding that stand against it."""


def _covers(prefix: str, metric: str) -> bool:
    return prefix == "*" or metric == prefix or metric.startswith(f"{prefix}.")
