"""Each trial around its fault: throughput, response times, every write of the probe, who accepts writes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.charts import nodes, style, timeline
from reports.charts.scene import MARKS, Chart, Drawing, Scene, Trial
from reports.charts.series import NS

REOPENED = "reopened"
OUTCOMES = (
    # outcome, label, colour, marker, size
    ("acknowledged", "acknowledged", style.BLUE, ".", 6.0),
    (REOPENED, "acknowledged, reopened session", style.GREEN, ".", 6.0),
    ("acknowledged_locally", "acknowledged locally", style.PURPLE, "D", 16.0),
    ("failed", "failed", style.RED, "x", 9.0),
    ("unknown", "unknown", style.ORANGE, "^", 16.0),
)
MOST_DOTS = 6000
"""More dots than that in one panel are thinned out, except those that did not end well."""


def probe_writes(axis: Axes, scene: Scene, trial: Trial, span: tuple[int, int], *, fresh: bool) -> int:
    """Every write of the probe in a stretch of time: when it was due, how long it took, how it ended.

    Returns the number of writes drawn.
    """
    assert trial.effect is not None
    table = scene.table("writes")
    due = scene.column("writes", "intended", null=0)
    own = table["fresh"].fill_null(False).to_numpy()
    inside = (due >= span[0]) & (due < span[1]) & (own == fresh)
    due = due[inside]
    done = scene.column("writes", "done", null=-1)[inside]
    outcome = np.asarray(table["outcome"].filter(inside).cast("string").to_pylist(), dtype=object)
    if not fresh:
        opened = scene.column("writes", "session_opened", null=0)[inside]
        outcome[(outcome == "acknowledged") & (opened > trial.effect)] = REOPENED
    took = np.where(done >= 0, (done - due) / NS, (span[1] - due) / NS) * 1000
    x = scene.seconds(due, trial.effect)
    for name, label, colour, marker, size in OUTCOMES:
        mine = np.flatnonzero(outcome == name)
        if not len(mine):
            continue
        said = f"{label} ({len(mine):,})"
        if name in ("acknowledged", REOPENED) and len(mine) > MOST_DOTS:
            mine = mine[:: -(-len(mine) // MOST_DOTS)]
        axis.scatter(
            x[mine],
            np.maximum(took[mine], 0.05),
            s=size,
            c=colour,
            marker=marker,
            linewidths=0.8,
            label=said,
            rasterized=True,
            alpha=0.75,
            zorder=3,
        )
    style.log_time(axis)
    axis.set_ylabel("new sessions" if fresh else "kept sessions")
    if len(due):
        style.key(axis, 5)
    return len(due)


def mark(figure: Figure, axes: list[Axes], scene: Scene, trial: Trial) -> None:
    """Lines for what happened, each labelled above the first panel, left of its line.

    A label goes one row above every earlier line that it would cross.
    """
    assert trial.effect is not None
    low, high = axes[0].get_xlim()
    width = figure.get_size_inches()[0] * 72 * 0.9
    placed: list[tuple[float, int]] = []
    for one in trial.marks:
        label, colour = MARKS[one.kind]
        if one.kind == "fault-effect":
            colour = scene.colour
        at = scene.seconds(one.t, trial.effect)
        solid = one.kind in ("fault-effect", "recovered")
        for axis in axes:
            axis.axvline(at, color=colour, lw=1.1 if solid else 1.0, ls="-" if solid else ":", zorder=2)
        said = label if one.kind == "fault-effect" else f"{label} {at:+.2f} s"
        points = (at - low) / (high - low) * width
        row = max((r + 1 for x, r in placed if x > points - 5.3 * len(said)), default=0)
        placed.append((points, row))
        axes[0].annotate(
            said,
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 18 + 11 * row),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color=style.INK if colour == style.MUTED else colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.7,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (1.0, 0.0),
            },
        )
    # The first panel's legend goes where the lines to the labels leave the widest gap.
    edges = [0.0, *(points / width for points, _ in placed), 1.0]
    gap = max(range(len(edges) - 1), key=lambda i: edges[i + 1] - edges[i])
    if (legend := axes[0].get_legend()) is not None:
        legend.remove()
    style.key(axes[0], 3, at=edges[gap] + (0.01 if gap else 0.0))


def one_trial(scene: Scene, trial: Trial) -> Drawing | None:
    """The zoomed timeline of one trial; None where its fault took no effect."""
    grid = scene.zoom(trial)
    if grid is None or trial.effect is None:
        return None
    binned = scene.requests(grid)
    kinds = [fresh for fresh in (False, True) if len(scene.table("writes"))]
    lanes = nodes.stretches(scene, grid.start, grid.end)
    heights = [1.2, 1.1, *(0.9 for _ in kinds), *([0.16 * len(lanes) + 0.25] if lanes else [])]
    figure, axes = style.panels(tuple(heights))
    x = scene.seconds(grid.centres, trial.effect)
    timeline.throughput(axes[0], x, binned)
    if binned.failed:
        axes[0].step(x, binned.errors / grid.seconds, where="mid", color=style.RED, lw=1.2, label="failed")
        style.key(axes[0], 3)
    missing = timeline.latency(axes[1], x, binned)
    for axis, fresh in zip(axes[2:], kinds, strict=False):
        probe_writes(axis, scene, trial, (grid.start, grid.end), fresh=fresh)
    if lanes:
        nodes.lanes(axes[-1], lanes, lambda t: scene.seconds(t, trial.effect))
    axes[0].set_xlim(scene.seconds(grid.start, trial.effect), scene.seconds(grid.end, trial.effect))
    scene.shade(axes, since=trial.effect, only=trial)
    mark(figure, axes, scene, trial)
    axes[-1].set_xlabel("seconds since the fault took effect")
    figure.align_ylabels(axes)
    caption = timeline.note(missing, grid.seconds)
    if kinds:
        caption += (
            "Each point is one write of the probe: when it was due and how long it took. Kept sessions carry "
            "one write after another and are reopened when they break; a new session carries one write alone."
        )
    return Drawing(f"trial-{trial.number}", f"Trial {trial.number}. {caption}", figure)


def draw(scene: Scene) -> list[Drawing] | str:
    found = [drawing for trial in scene.trials if (drawing := one_trial(scene, trial)) is not None]
    return found or "no fault took effect in this run"


CHART = Chart(
    id="trials",
    title="Each trial around its fault",
    needs=("events", "requests", "writes", "nodes"),
    draw=draw,
    about="From 5 s before the fault to 5 s after recovery. Dotted lines: steps of the failover.",
    order=20,
)
