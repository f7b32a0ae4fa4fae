"""The recovery time of each trial, split into its parts, beside what the configuration predicts."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.charts import style
from reports.charts.scene import Chart, Drawing, Scene

PARTS: dict[str, tuple[str, str, str]] = {
    # part: (colour, hatch, meaning)
    "detect": (style.SKY, "", "until the leader key expired"),
    "elect": (style.BLUE, "", "until a new leader held the key"),
    "promote": (style.GREEN, "", "until the new primary accepted writes"),
    "route": (style.ORANGE, "", "until router and pooler reached it"),
    "reconnect": (style.PURPLE, "", "until the first lasting acknowledged write"),
    "unattributed": (style.GREY, "////", "not explained by any step seen"),
}


LABEL = "seconds from the effect of the fault to the first lasting acknowledged write"
SHOWN_S = 0.005
"""A shorter part is left out of the key."""


@dataclass(frozen=True)
class Row:
    """One trial; seconds."""

    trial: int
    total: float | None
    """None: no outage, not recovered, or invalid; ``note`` says which."""
    parts: tuple[tuple[str, float], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Outages:
    """All trials' outages of writes with their summary; seconds."""

    rows: tuple[Row, ...] = ()
    median: float | None = None
    worst: float | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    predicted: tuple[float, float] | None = None
    limit: float | None = None
    """The strictest promise on this figure, drawn where it is near enough."""


def _bar(axis: Axes, at: int, row: Row, right: float, narrow: bool) -> None:
    if row.total is None:
        axis.annotate(
            row.note or "no figure",
            (0, at),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=style.MUTED,
        )
        return
    left = 0.0
    for name, seconds in row.parts:
        colour, hatch, _ = PARTS.get(name, (style.GREY, "xxxx", ""))
        axis.barh(
            at,
            seconds,
            left=left,
            height=0.62,
            color=colour,
            hatch=hatch,
            edgecolor=style.PAPER,
            lw=0.6,
            zorder=3,
        )
        if seconds > (0.2 if narrow else 0.06) * right:
            axis.annotate(
                f"{name} {seconds:.2f}",
                (left + seconds / 2, at),
                ha="center",
                va="center",
                fontsize=8,
                color=style.FIXED_INK,
                zorder=4,
            )
        left += seconds
    if not row.parts:
        axis.barh(at, row.total, height=0.62, color=style.GREY, zorder=3)
    said = f"{row.total:.2f} s" + (f"  {row.note}" if row.note else "")
    axis.annotate(
        said,
        (max(left, row.total), at),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontweight="bold",
        zorder=6,
        bbox=style.halo(),
    )


def draw(scene: Scene) -> list[Drawing] | str:
    out: Outages = scene.outages
    if not out.rows:
        return "no trial with a fault is in the record"
    known = [row.total for row in out.rows if row.total is not None]
    if not known:
        return "no trial has an outage that could be timed: " + "; ".join(
            f"trial {row.trial}: {row.note}" for row in out.rows if row.note
        )
    return [
        Drawing(
            "waterfall", _caption(out), _figure(out, known, style.WIDTH), _figure(out, known, style.NARROW)
        )
    ]


def _figure(out: Outages, known: list[float], width: float) -> Figure:
    narrow = width < style.WIDTH
    right = max([*known, out.predicted[1] if out.predicted else 0.0]) * (1.3 if narrow else 1.14)
    near = out.limit is not None and out.limit <= right * 1.3
    if near and out.limit is not None:
        right = max(right, out.limit * 1.06)
    lines = len(out.rows) + (1 if out.predicted else 0)
    figure, axes = style.panels((0.34 * lines + 0.25,), width=width)
    axis = axes[0]
    for at, row in enumerate(out.rows):
        _bar(axis, at, row, right, narrow)
    names = [f"trial {row.trial}" for row in out.rows]
    if out.predicted:
        low, high = out.predicted
        at = len(out.rows)
        axis.barh(
            at,
            max(high - low, right / 400),
            left=low,
            height=0.3,
            facecolor=style.GRID,
            edgecolor=style.INK,
            lw=0.9,
            zorder=3,
        )
        axis.annotate(
            f"{low:.1f} to {high:.1f} s", (high, at), xytext=(5, 0), textcoords="offset points", va="center"
        )
        names.append("predicted")
    if out.median is not None and len(known) > 1:
        axis.axvline(out.median, color=style.INK, lw=1.1, ls="--", zorder=5)
        axis.annotate(
            f"median {out.median:.2f} s",
            (out.median, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
        )
    if out.interval is not None:
        axis.axvspan(*out.interval, color=style.INK, alpha=0.09, lw=0, zorder=1)
    if near and out.limit is not None:
        axis.axvline(out.limit, color=style.RED, lw=1.4, zorder=5)
        axis.annotate(
            f"limit {out.limit:g} s",
            (out.limit, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 3),
            textcoords="offset points",
            ha="left",
            fontsize=8.5,
            color=style.RED,
        )
    axis.set_yticks(range(lines), names)
    axis.set_ylim(lines - 0.45, -0.55)
    axis.tick_params(axis="y", length=0, labelcolor=style.INK)
    axis.grid(False)
    axis.grid(True, axis="x")
    axis.set_xlim(0, right)
    axis.set_xlabel("seconds since the fault took effect" if narrow else LABEL)
    used = {name for row in out.rows for name, seconds in row.parts if seconds >= SHOWN_S}
    figure.legend(
        handles=[
            Patch(facecolor=c, hatch=h, edgecolor=style.PAPER, lw=0, label=f"{n}: {m}")
            for n, (c, h, m) in PARTS.items()
            if n in used
        ],
        loc="outside lower left",
        ncols=1 if narrow else 3,
        fontsize=8,
        handlelength=1.3,
    )
    return figure


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


def _caption(out: Outages) -> str:
    said = []
    if out.median is not None and out.worst is not None:
        said.append(f"Median {out.median:.2f} s, worst {out.worst:.2f} s.")
    if out.interval is not None:
        of = f"{out.confidence:.0%} " if out.confidence else ""
        said.append(f"{of}confidence interval of the median {_range(out.interval)} s (shaded).")
    elif out.rows:
        said.append("No confidence interval: that takes at least 6 trials.")
    if out.predicted:
        said.append("Predicted: best and worst case by the configuration alone.")
    if out.limit is not None:
        said.append(f"The limit is {out.limit:g} s.")
    return " ".join(said)


CHART = Chart(
    id="waterfall",
    title="Recovery time by trial",
    needs=("events", "writes"),
    draw=draw,
    about=(
        "From the moment the fault took effect to the first write that was acknowledged and survived, "
        "and after which none failed."
    ),
    order=5,
)
