"""Outages of writes and reads, on sessions that were open before the fault and on new ones."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from reports.charts import style
from reports.charts.scene import Chart, Drawing, Scene


@dataclass(frozen=True)
class Line:
    """One kind of client; seconds, one entry a trial (None: no length)."""

    name: str
    values: tuple[float | None, ...]
    none: int = 0
    """Trials without an outage."""
    beyond: int = 0
    """Trials that did not recover in the window."""


def draw(scene: Scene) -> list[Drawing] | str:
    lines: tuple[Line, ...] = scene.lines
    if not any(value is not None for line in lines for value in line.values):
        return "no client saw an outage that could be timed"
    return [Drawing("sessions", "", _figure(lines, style.WIDTH), _figure(lines, style.NARROW))]


def _figure(lines: tuple[Line, ...], width: float) -> Figure:
    narrow = width < style.WIDTH
    figure, axes = style.panels((0.36 * len(lines) + 0.2,), width=width)
    axis = axes[0]
    right = max(value for line in lines for value in line.values if value is not None) * (
        2.0 if narrow else 1.3
    )
    for at, line in enumerate(lines):
        values = [value for value in line.values if value is not None]
        colour = style.BLUE if "write" in line.name else style.GREEN
        if values:
            axis.plot([min(values), max(values)], [at, at], color=colour, lw=2.2, alpha=0.35, zorder=2)
            axis.scatter(
                values, [at] * len(values), s=34, c=colour, zorder=3, edgecolors=style.PAPER, linewidths=0.6
            )
        worst = f"worst {max(values):.2f} s" if values else ""
        of = f"of {len(line.values)} trials"
        said = "   ".join(
            part
            for part in (
                worst,
                f"no outage in {line.none} {of}" if line.none else "",
                f"not recovered in {line.beyond} {of}" if line.beyond else "",
            )
            if part
        )
        axis.annotate(
            said,
            (max(values, default=0.0), at),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axis.set_yticks(
        range(len(lines)), [line.name.replace(", ", ",\n") if narrow else line.name for line in lines]
    )
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.set_xlim(0, right)
    axis.tick_params(axis="y", length=0, labelcolor=style.INK)
    axis.grid(False)
    axis.grid(True, axis="x")
    axis.set_xlabel("seconds of outage, one point a trial")
    return figure


CHART = Chart(
    id="sessions",
    title="Open sessions and new sessions",
    needs=("writes", "reads"),
    draw=draw,
    about=(
        "A session that was open before the fault has to notice that its connection is dead; "
        "a new one only has to find the new primary. They are judged apart."
    ),
    order=40,
)
