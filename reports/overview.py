"""Many runs as one table, a line a run: verdicts, outages, losses, predicted against measured, clean or not.

Everything comes from the records: from a run's own ``report/report.json`` where it has one, else the record
is analysed. Of several runs of one scenario the newest speaks, an interrupted one only where no other ended.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field, ValidationError
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from lab.record.reader import RecordReader
from reports import view
from reports.analysis import analyse
from reports.analysis.model import Analysis
from reports.analysis.trials import median
from reports.checks.common import split
from reports.checks.trial_time import OWN
from reports.findings import Status, Value, Verdict
from reports.markdown import safe
from reports.pipeline import judged


class Line(Value):
    """One run."""

    scenario: str
    run: str
    exit_code: int
    """Of ``lab run``: 0 all met, 1 something not met, 2 undecided, or nothing to judge."""
    verdicts: dict[Status, int] = Field(default_factory=dict)
    trials: int = 0
    """Valid ones, as to outages."""
    invalid: int = 0
    no_outage: int = 0
    not_recovered: int = 0
    rto_median: float | None = None
    """Seconds, of writes, over the valid trials that had an outage and recovered."""
    rto_worst: float | None = None
    longest: float | None = None
    """Seconds in which no write of the probe was answered well, the whole run (``outage.longest.write``)."""
    predicted: tuple[float, float] | None = None
    """Best and worst, seconds."""
    lost: int | None = None
    """Acknowledged writes, all trials; None: not known."""
    redis: str = ""
    """What became of writes to Redis, the worst trial; empty where no fault hit it."""
    injected: int = 0
    """Faults, one a node and trial."""
    verified: int = 0
    healed: int = 0
    """Of the injected ones: seen to be undone."""
    lab_s: float | None = None
    """The lab's own share of the longest trial, seconds."""
    why: str = ""
    """Why trials are invalid, or the scenario was not run."""


class Setting(Value):
    """What all runs of a table have in common, or what each of them had."""

    topologies: tuple[str, ...]
    first: str
    """Start of the first run, and of the last: RFC 3339."""
    last: str
    machines: tuple[str, ...]
    loads: tuple[str, ...]


def line(record: Path) -> tuple[Line, Analysis]:
    """One run's line. RecordError where the record is damaged."""
    analysis, verdicts = _read(record)
    head = analysis.manifest
    valid, invalid = split(analysis)
    outages = [trial.write for trial in valid if trial.write.state != "no data"]
    times = [outage.seconds for outage in outages if outage.seconds is not None]
    low, high = head.predicted.get("best"), head.predicted.get("worst")
    kinds = Counter(mark.kind for mark in analysis.marks)
    own, longest = analysis.finding(OWN), analysis.finding("outage.longest.write")
    whys = [head.not_run or "", "the run was interrupted" if head.state == "interrupted" else ""]
    whys += [text for trial in invalid for text in trial.invalid]
    whys += [reason.why for reason in analysis.reasons if reason.trial == 0]
    return Line(
        scenario=head.scenario,
        run=analysis.run,
        exit_code=int(view.exit_code(verdicts)),
        verdicts=dict(Counter(verdict.status for verdict in verdicts)),
        trials=len(outages),
        invalid=len(invalid),
        no_outage=sum(outage.state == "no outage" for outage in outages),
        not_recovered=sum(outage.state == "not recovered" for outage in outages),
        rto_median=median(times),
        rto_worst=max(times, default=None),
        longest=longest.value if longest else None,
        predicted=None if low is None or high is None else (low, high),
        lost=analysis.ledger.lost if analysis.ledger.complete else None,
        redis=_redis(analysis),
        injected=kinds["fault-verified"] + kinds["fault-absent"],
        verified=kinds["fault-verified"],
        healed=kinds["heal-verified"],
        lab_s=own.value if own else None,
        why="; ".join(dict.fromkeys(filter(None, whys))),
    ), analysis


def _redis(analysis: Analysis) -> str:
    down, lost = analysis.finding("redis.rto"), analysis.finding("redis.lost_writes")
    if down is None or lost is None or lost.value is None:
        return ""
    again = down.why if down.value is None else f"written again after {view.figure(down.value, 's')}"
    return f"Redis: {again}, {view.number(lost.value)} acknowledged writes lost"


def _read(record: Path) -> tuple[Analysis, list[Verdict]]:
    """Analysis and verdicts, from the run's own report where it is one of this version."""
    try:
        document = json.loads((record / "report/report.json").read_text(encoding="utf-8"))
        return (
            Analysis.model_validate(document["analysis"]),
            [Verdict.model_validate(one) for one in document["verdicts"]],
        )
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        reader = RecordReader(record)
        analysis = analyse(reader)
        return analysis, judged(reader, analysis)[0]


def newest(records: Iterable[Path]) -> list[Path]:
    """Of each scenario the run that was started last, in the scenarios' alphabetical order.

    A run that came to its end goes before one that was interrupted.
    """
    found: dict[str, tuple[bool, str, Path]] = {}
    for record in records:
        head = RecordReader(record).manifest
        if head.state != "running":
            one = (head.state == "closed", head.started_wall, record)
            found[head.scenario] = max(found.get(head.scenario, one), one)
    return [record for _, (_, _, record) in sorted(found.items())]


def setting(analyses: Sequence[Analysis]) -> Setting:
    """What stands above the table."""
    heads = [analysis.manifest for analysis in analyses]
    moments = sorted(head.started_wall for head in heads)
    machines = {
        f"{head.machine.get('cores', '?')} cores, {_gib(head.machine.get('memory_bytes'))}, "
        f"scale factor {view.number(head.scale)}"
        for head in heads
        # A run that did not begin, or in which the machine did not answer, says nothing of it.
        if head.machine.get("cores")
    }
    rates: dict[str, set[float]] = {}
    for head in heads:
        if head.load:
            rates.setdefault(head.load["workload"], set()).add(float(head.load["rate"]))
    return Setting(
        topologies=tuple(sorted({head.topology for head in heads})),
        first=moments[0] if moments else "",
        last=moments[-1] if moments else "",
        machines=tuple(sorted(machines)),
        loads=tuple(
            f"{workload} at {' and '.join(view.number(rate) for rate in sorted(found))} requests/s"
            for workload, found in sorted(rates.items())
        ),
    )


def _gib(size: object) -> str:
    return f"{size / 2**30:.0f} GiB" if isinstance(size, (int, float)) else "? GiB"


# As text

HEADS = (
    "scenario",
    "verdicts",
    "n",
    "RTO median / worst",
    "longest outage",
    "predicted",
    "lost",
    "verified",
    "healed",
    "lab's own",
    "exit",
)


def cells(one: Line) -> tuple[str, ...]:
    """A line's cells, as ``HEADS`` names them."""
    order: tuple[Status, ...] = ("not met", "inconclusive", "invalid", "not run", "met")
    said = ", ".join(f"{one.verdicts[status]} {status}" for status in order if one.verdicts.get(status))
    return (
        one.scenario,
        said or "no promise names it",
        str(one.trials) + (f" (+{one.invalid} invalid)" if one.invalid else ""),
        _outage(one),
        view.figure(one.longest, "s"),
        "" if one.predicted is None else f"{one.predicted[0]:.1f} … {one.predicted[1]:.1f} s",
        view.number(one.lost),
        f"{one.verified} of {one.injected}",
        f"{one.healed} of {one.injected}",
        view.figure(one.lab_s, "s"),
        str(one.exit_code),
    )


def _outage(one: Line) -> str:
    if not one.trials:
        return view.NONE
    if one.no_outage == one.trials:
        return "no outage"
    said = f"{view.figure(one.rto_median, 's')} / {view.figure(one.rto_worst, 's')}"
    more = [f"no outage in {one.no_outage}"] * bool(one.no_outage)
    more += [f"not recovered in {one.not_recovered}"] * bool(one.not_recovered)
    return f"{said} ({', '.join(more)})" if more else said


def about(found: Setting) -> str:
    """One sentence on where and when the runs were made."""
    days = " to ".join(dict.fromkeys(moment[:16].replace("T", " ") for moment in (found.first, found.last)))
    return f"{', '.join(found.topologies)}; {days} UTC; {'; '.join((*found.machines, *found.loads))}."


def notes(lines: Sequence[Line]) -> list[str]:
    """Why something is invalid or was not run, and what became of Redis where a fault hit it."""
    found = []
    for one in lines:
        if one.why:
            found.append(f"{one.scenario}: {one.why}")
        if one.redis:
            found.append(f"{one.scenario}: {one.redis}")
    return found


class OverviewTable:
    """What ``lab summary`` prints."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
        for head in HEADS:
            table.add_column(head, overflow="fold", no_wrap=head == "scenario")
        style = {0: "green", 1: "red"}
        for one in self.lines:
            table.add_row(*(Text(text) for text in cells(one)), style=style.get(one.exit_code, ""))
        yield table
        for note in notes(self.lines):
            yield Text(f"· {note}", style="dim")


def markdown(lines: Sequence[Line], found: Setting) -> str:
    """The same for a note."""
    made = [about(found), "", f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
    made += [f"| {' | '.join(safe(text) for text in cells(one))} |" for one in lines]
    return "\n".join([*made, "", *(f"- {safe(note)}" for note in notes(lines)), ""])
