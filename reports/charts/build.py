"""A scene from a record and its analysis, and every chart of it drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.record.schema import NS
from reports.analysis.model import Analysis, OpenSessions, Outage
from reports.charts import charts, style
from reports.charts.scene import Chart, Drawing, Record, Scene
from reports.charts.sessions import Line
from reports.charts.waterfall import Outages, Row
from reports.findings import Verdict

SVG_MOST_BYTES = 1_000_000
"""A larger drawing goes into the page as PNG."""


@dataclass(frozen=True)
class Picture:
    """One drawing as text for the page and as a PNG file."""

    id: str
    caption: str
    svg: str | None
    """None where the SVG would be too large."""
    narrow: str | None
    """The drawing for a phone, where there is one."""
    png: bytes


@dataclass(frozen=True)
class Drawn:
    """One chart, drawn or not (``why``)."""

    chart: Chart
    pictures: tuple[Picture, ...] = ()
    why: str = ""


def scene(record: Record, analysis: Analysis, verdicts: Sequence[Verdict] = ()) -> Scene:
    """What the charts of a run share, with what the analysis found in it."""
    start = next((event["t"] for event in record.events("run-start") if event["t"] is not None), None)
    recovered = {
        trial.trial: start + round((trial.effect_s + trial.write.seconds) * NS)
        for trial in analysis.trials
        if start is not None and trial.effect_s is not None and trial.write.seconds is not None
    }
    return Scene(
        record,
        recovered=recovered,
        outages=_outages(analysis, verdicts),
        lines=_lines(analysis),
        colour=fault_colour(analysis.manifest.fault),
        redis_lost=analysis.redis.lost_by_second if analysis.redis else {},
        alarms=analysis.alarms,
    )


def fault_colour(fault: str | None) -> str:
    """The colour that a fault names for itself, the lab's red otherwise."""
    from lab.faults import faults

    known = faults().get(fault or "")  # a record outlives its faults: one that is gone costs no charts
    return known.colour if known else style.RED


def note(outage: Outage | OpenSessions) -> str:
    """What to say of an outage in place of its length."""
    if outage.state == "not recovered" and outage.at_least is not None:
        return f"not recovered: more than {outage.at_least:.1f} s"
    return outage.state + (f": {outage.why}" if outage.state == "no data" and outage.why else "")


def _outages(analysis: Analysis, verdicts: Sequence[Verdict]) -> Outages:
    rows = []
    for trial in analysis.trials:
        parts: list[tuple[str, float]] = []
        if trial.breakdown is not None:
            parts = [(part.name, part.seconds) for part in trial.breakdown.parts if part.seconds is not None]
            parts.append(("unattributed", trial.breakdown.unattributed))
        said = "" if trial.write.seconds is not None else note(trial.write)
        if trial.invalid:
            said = "(invalid)" if trial.write.seconds is not None else f"{said} (invalid)"
        rows.append(Row(trial.trial, trial.write.seconds, tuple(parts), said))
    finding = analysis.finding("rto.write")
    known = sorted(trial.write.seconds for trial in analysis.trials if trial.write.seconds is not None)
    middle = len(known) // 2
    median = None
    if known:
        median = known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
    low, high = analysis.predicted.get("best"), analysis.predicted.get("worst")
    limits = [
        v.target.limit
        for v in verdicts
        if v.target.metric == "rto.write" and v.target.comparison in ("<", "<=")
    ]
    return Outages(
        rows=tuple(rows),
        median=median,
        worst=known[-1] if known else None,
        interval=finding.interval if finding is not None else None,
        confidence=finding.confidence if finding is not None else None,
        predicted=(low, high) if low is not None and high is not None else None,
        limit=min(limits) if limits else None,
    )


def _lines(analysis: Analysis) -> tuple[Line, ...]:
    kinds = (
        ("all writes", "write"),
        ("writes, sessions open before", "write_open"),
        ("writes, new sessions", "write_new"),
        ("reads", "read"),
    )
    lines = [_line(name, [getattr(trial, field) for trial in analysis.trials]) for name, field in kinds]
    if analysis.redis is not None and any(trial.hit for trial in analysis.redis.trials):
        of = analysis.redis.trials
        lines += [
            _line("Redis writes, sessions open before", [trial.write_open for trial in of]),
            _line("Redis writes, new sessions", [trial.write_new for trial in of]),
        ]
    return tuple(line for line in lines if line is not None)


def _line(name: str, of: Sequence[Outage | OpenSessions]) -> Line | None:
    """None where no trial has data of this kind."""
    if all(outage.state == "no data" for outage in of):
        return None
    return Line(
        name,
        tuple(outage.seconds for outage in of),
        none=sum(outage.state == "no outage" for outage in of),
        beyond=sum(outage.state == "not recovered" for outage in of),
    )


def draw_all(of: Scene) -> list[Drawn]:
    """Every chart of the package; one that cannot be drawn says why instead."""
    found = []
    with style.styled():
        for chart in charts():
            drawn = chart.draw(of)
            if isinstance(drawn, str):
                found.append(Drawn(chart, why=drawn))
            else:
                found.append(Drawn(chart, tuple(picture(drawing) for drawing in drawn)))
    return found


def picture(drawing: Drawing) -> Picture:
    """A drawing as SVG and PNG."""
    text: str | None = style.svg(drawing.figure, drawing.id)
    if text is not None and len(text) > SVG_MOST_BYTES:
        text = None
    narrow = style.svg(drawing.narrow, f"{drawing.id}-narrow") if drawing.narrow is not None else None
    return Picture(drawing.id, drawing.caption, text, narrow, style.png(drawing.figure))
