"""RTO of writes and reads, for everyone, for new sessions and for sessions opened before the fault.

The figure is the worst valid trial. Trials without an outage have none; where no trial saw one the value is
None and ``detail.no_outage`` says so. A trial that did not recover makes the finding inconclusive with
``detail.at_least``, which the judgement holds against the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, OpenSessions, Outage, Trial
from reports.checks import Check
from reports.checks.common import invalid_text, no_valid_trial, nothing, of_trials, split
from reports.findings import Finding

KINDS: dict[str, tuple[str, Callable[[Trial], Outage | OpenSessions]]] = {
    "rto.write": ("writes.parquet", lambda trial: trial.write),
    "rto.write.new_sessions": ("writes.parquet", lambda trial: trial.write_new),
    "rto.write.open_sessions": ("writes.parquet", lambda trial: trial.write_open),
    "rto.read": ("reads.parquet", lambda trial: trial.read),
    "rto.read.new_sessions": ("reads.parquet", lambda trial: trial.read_new),
    "rto.read.open_sessions": ("reads.parquet", lambda trial: trial.read_open),
}


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    return [_finding(analysis, metric, table, pick) for metric, (table, pick) in KINDS.items()]


def _finding(
    analysis: Analysis, metric: str, table: str, pick: Callable[[Trial], Outage | OpenSessions]
) -> Finding:
    if (empty := no_valid_trial(analysis, metric, "s")) is not None:
        return empty
    valid, invalid = split(analysis)
    left_out = f"left out: {invalid_text(invalid)}" if invalid else ""
    seen = {trial.trial: pick(trial) for trial in valid}
    detail = {"invalid_trials": len(invalid), "slow_after_s": analysis.manifest.slow_after_s}
    return of_outages(metric, table, seen, left_out, detail)


def of_outages(
    metric: str,
    table: str,
    seen: Mapping[int, Outage | OpenSessions],
    left_out: str,
    detail: Mapping[str, Any],
) -> Finding:
    """The finding of one kind of client's outages; ``seen``: by trial, at least one."""
    blind = [k for k, one in seen.items() if one.state == "no data"]
    stuck = {k: one for k, one in seen.items() if one.state == "not recovered"}
    calm = [k for k, one in seen.items() if one.state == "no outage"]
    samples = [one.seconds for one in seen.values() if one.seconds is not None]
    detail = {"trials": len(seen), "no_outage": len(calm), "not_recovered": len(stuck), **detail}
    if len(blind) == len(seen):
        return nothing(metric, "s", "not run", seen[blind[0]].why, **detail)
    if stuck:
        bounds = [one.at_least for one in stuck.values() if one.at_least is not None]
        at_least = max([*bounds, *samples])
        whys = [f"trial {k} did not recover: {one.why}" for k, one in stuck.items()]
        return Finding(
            metric=metric,
            unit="s",
            value=None,
            samples=tuple(samples),
            status="inconclusive",
            why="; ".join(filter(None, [*whys, left_out])),
            evidence=("events.parquet", table),
            detail={**detail, "at_least": at_least},
        )
    if blind:
        why = f"trial {', '.join(map(str, blind))}: {seen[blind[0]].why}"
        return nothing(metric, "s", "inconclusive", why, **detail)
    if not samples:
        why = "; ".join(filter(None, [f"no outage was seen in {len(calm)} trial(s)", left_out]))
        return Finding(
            metric=metric, unit="s", value=None, why=why, evidence=("events.parquet", table), detail=detail
        )
    return of_trials(metric, "s", samples, evidence=("events.parquet", table), why=left_out, **detail)


CHECK = Check("outage", dict.fromkeys(KINDS, "s"), run)
