"""What a scenario asserts: whether it held in every trial.

``assertions.held``: 100 % if everything that the story asserts held throughout, in every trial; 0 % for a
trial in which anything did not. The runner looks at a condition some times a second while it lasts, and
records the first look at which it did not hold. What the raw record answers better is asked of it again:
*writes healthy* does not hold where a write of the writer probe that was intended in that time failed, is
unknown or came back later than T; *leader unchanged* not where etcd got the key of another leader. The worse
answer counts. Too few looks, or an assertion that was cut short, is *inconclusive*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis.columns import Writes, read_writes
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

METRIC = "assertions.held"
GOOD = ("acknowledged",)


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    events = record.events()
    begun = [event for event in events if event["kind"] == "assert-begin"]
    if not begun:
        return [nothing(METRIC, "%", "not run", "the scenario asserts nothing, or never came to it")]
    ends = {_key(event): event for event in events if event["kind"] == "assert-end"}
    writes = read_writes(record)
    slow_ns = round(analysis.manifest.slow_after_s * NS)
    broken: list[str] = []
    open_: list[str] = []
    held: dict[int, float] = {}
    for event in begun:
        trial, step = _key(event)
        end, condition = ends.get((trial, step)), str(event["detail"].get("condition"))
        what = f"trial {trial}, step {step}, {condition}"
        held.setdefault(trial, 100.0)
        why = _broken(event, end, condition, events, writes, slow_ns)
        if why:
            broken.append(f"{what}: {why}")
            held[trial] = 0.0
        elif end is None:
            open_.append(f"{what}: it was cut short")
        elif end["detail"].get("held") is not True:
            open_.append(f"{what}: {end['detail'].get('why') or 'too few looks to tell'}")
    samples = tuple(held[trial] for trial in sorted(held))
    detail = {"trials": len(samples), "assertions": len(begun), "broken": broken, "open": open_}
    if broken:
        return [_finding(0.0, samples, "; ".join(broken), detail)]
    if open_:
        return [nothing(METRIC, "%", "inconclusive", "; ".join(open_), **detail)]
    return [_finding(100.0, samples, "", detail)]


def _finding(value: float, samples: tuple[float, ...], why: str, detail: dict[str, Any]) -> Finding:
    return Finding(
        metric=METRIC,
        unit="%",
        value=value,
        samples=samples,
        why=why,
        evidence=("events.parquet", "writes.parquet"),
        detail=detail,
    )


def _key(event: dict[str, Any]) -> tuple[int, int]:
    return int(event["trial"] or 0), int(event["detail"].get("step", 0))


def _broken(
    begin: dict[str, Any],
    end: dict[str, Any] | None,
    condition: str,
    events: Sequence[dict[str, Any]],
    writes: Writes,
    slow_ns: int,
) -> str:
    """Why it did not hold, "" where nothing says so."""
    for event in events:
        if event["kind"] == "assert-failed" and _key(event) == _key(begin):
            return str(event["detail"].get("why") or "it did not hold")
    if end is not None and end["detail"].get("held") is False:
        return str(end["detail"].get("why") or "it did not hold")
    start, stop = int(begin["t"]), int(end["t"]) if end is not None else None
    if stop is None:
        return ""
    if condition == "writes healthy":
        return bad_writes(writes, start, stop, slow_ns)
    if condition == "leader unchanged":
        return other_leader(events, start, stop)
    return ""


def bad_writes(writes: Writes, start: int, stop: int, slow_ns: int) -> str:
    """How many writes that were intended from ``start`` to ``stop`` (ns) were not good, as words.

    One whose answer could not be there yet at the end is left out.
    """
    inside = (writes.intended >= start) & (writes.intended < stop)
    answered = writes.done >= 0
    bad = answered & (~writes.outcome.equals("acknowledged") | (writes.done - writes.intended > slow_ns))
    bad |= ~answered & (writes.intended < stop - slow_ns)
    count = int(np.count_nonzero(inside & bad))
    if not inside.any():
        return "no write was intended in that time"
    return f"{count} of {int(np.count_nonzero(inside))} writes failed, are unknown or were slow" * (count > 0)


def other_leader(events: Sequence[dict[str, Any]], start: int, stop: int) -> str:
    """Which leader etcd got in that time that is not the one before, as words."""
    leader: str | None = None
    for event in events:
        if event["kind"] != "leader-elected" or event["t"] is None or event["t"] > stop:
            continue
        now = event["detail"].get("leader") or event["node"]
        if event["t"] >= start and leader is not None and now != leader:
            return f"{leader} → {now}"
        leader = now
    return ""


CHECK = Check("assertions", {METRIC: "%"}, run)
