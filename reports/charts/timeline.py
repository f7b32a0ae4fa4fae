"""Throughput, errors and response times of the whole run on one time axis."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from reports.charts import style
from reports.charts.scene import Chart, Drawing, Scene
from reports.charts.series import BEYOND, Binned, Floats

QUANTILES = ((0.5, "p50", style.SKY), (0.95, "p95", style.BLUE), (0.99, "p99", style.PURPLE))
CLASSES = 4
"""Error classes that are told apart; the rest is one."""


def throughput(axis: Axes, x: Floats, binned: Binned) -> None:
    """What was asked for and what was done, per second."""
    seconds = binned.grid.seconds
    done = binned.done / seconds
    axis.fill_between(x, done, step="mid", color=style.BLUE, alpha=0.28, lw=0)
    axis.step(x, done, where="mid", color=style.BLUE, lw=1.2, label="answered well")
    axis.step(
        x, binned.offered / seconds, where="mid", color=style.MUTED, lw=0.9, ls="--", label="sent or due"
    )
    axis.set_ylim(bottom=0)
    axis.set_ylabel("requests / s")
    style.key(axis, 2)


def errors(axis: Axes, x: Floats, binned: Binned) -> None:
    """Failed requests per second, stacked by class."""
    seconds = binned.grid.seconds
    by_size = sorted(binned.failed.items(), key=lambda item: -int(item[1].sum()))
    named = by_size[:CLASSES]
    rest = by_size[CLASSES:]
    if rest:
        named.append((f"{len(rest)} other classes", np.sum([count for _, count in rest], axis=0)))
    axis.set_ylabel("errors / s")
    if not named:
        axis.set_ylim(0, 1)
        axis.set_yticks([0])
        axis.annotate(
            "no errors", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=style.MUTED
        )
        return
    colours = (style.RED, style.ORANGE, style.PURPLE, style.GREY, style.SKY)
    hatches = ("", "////", "xxxx", "----", "++++")
    below = np.zeros(binned.grid.bins)
    for (name, count), colour, hatch in zip(named, colours, hatches, strict=False):
        top = below + count / seconds
        axis.fill_between(
            x,
            below,
            top,
            step="mid",
            facecolor=colour,
            edgecolor=style.PAPER,
            hatch=hatch,
            lw=0,
            label=f"{shorten(name)} ({int(count.sum()):,})",
        )
        below = top
    axis.set_ylim(bottom=0)
    style.key(axis, 5)


def latency(axis: Axes, x: Floats, binned: Binned) -> list[str]:
    """Response time percentiles, log scale, ms. Returns the percentiles that could not be drawn anywhere."""
    missing = []
    for q, name, colour in QUANTILES:
        at, value = binned.percentile(q)
        if np.isfinite(value).any():
            axis.plot(np.interp(at, np.arange(len(x)), x), value * 1000, color=colour, lw=1.4, label=name)
        else:
            missing.append(name)
    longest = binned.longest * 1000
    if np.isfinite(longest).any():
        axis.plot(x, longest, color=style.MUTED, lw=0.8, ls=":", label="longest")
        style.log_time(axis)
        style.key(axis, 4)
    axis.set_ylabel("response time")
    return missing


def shorten(name: str, most: int = 26) -> str:
    """A label that cannot push a chart apart."""
    return name if len(name) <= most else name[: most - 1] + "…"


def note(missing: list[str], seconds: float) -> str:
    """The sentence under a chart about percentiles that were left out."""
    said = f"Bins of {seconds:g} s; response time of answered requests, from the intended send time. "
    if missing:
        said += f"{' and '.join(missing)}: not drawn, fewer than {BEYOND} samples a bin lie beyond. "
    return said


def draw(scene: Scene) -> list[Drawing] | str:
    binned = scene.requests(scene.grid)
    if not binned.offered.any():
        return "no request of the load and no write of the probe is in the record"
    figure, axes = scene.panels((1.5, 0.9, 1.6))
    x = scene.seconds(scene.grid.centres)
    throughput(axes[0], x, binned)
    errors(axes[1], x, binned)
    missing = latency(axes[2], x, binned)
    caption = note(missing, scene.grid.seconds)
    if scene.traffic != "load":
        caption = "No load was recorded: this is the writer probe's own traffic. " + caption
    return [Drawing("timeline", caption, figure)]


CHART = Chart(
    id="timeline",
    title="The whole run",
    needs=("requests", "events"),
    draw=draw,
    about="Shaded: the fault in effect; darker: writes were down.",
    order=10,
)
