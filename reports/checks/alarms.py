"""The document's alarms: how long each was on, and when it fired (``reports/analysis/alarms.py``)."""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.model import Alarm, Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

NAMES = ("cpu", "connections", "latency", "capacity")


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    return [_finding(name, [a for a in analysis.alarms if a.name == name]) for name in NAMES]


def _finding(name: str, mine: list[Alarm]) -> Finding:
    metric = f"alarm.{name}"
    if not mine:
        return nothing(metric, "s", "not run", "what it watches was not sampled")
    said, longest = [], 0.0
    for alarm in mine:
        end = len(alarm.values) * alarm.period_s
        on = sum((f.over_s if f.over_s is not None else end) - f.fired_s for f in alarm.fired)
        longest = max(longest, on)
        for firing in alarm.fired:
            until = "the end" if firing.over_s is None else f"{firing.over_s:.0f} s"
            where = f"{alarm.node}: " if alarm.node else ""
            said.append(f"{where}fired at {firing.fired_s:.0f} s, until {until}")
    highest = max((v for a in mine for v in a.values if v is not None), default=None)
    threshold = f"threshold {mine[0].threshold:g} {mine[0].unit if mine[0].unit != '1' else ''}".strip()
    quiet = f"never on; highest average {highest:.3g}, {threshold}" if highest is not None else "never on"
    return Finding(
        metric=metric,
        unit="s",
        value=longest,
        evidence=("metrics.parquet", "requests.parquet"),
        why="; ".join(said) or quiet,
        detail={
            "threshold": mine[0].threshold,
            "period_s": mine[0].period_s,
            "fired": {a.node or "": [f.fired_s for f in a.fired] for a in mine if a.fired},
        },
    )


CHECK = Check("alarms", tuple(f"alarm.{name}" for name in NAMES), run)
