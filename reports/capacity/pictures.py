"""Pictures of a capacity run: load curves with the knee, the law with its band, utilisation, the forecast."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np

from lab.experiment.slo import Objective
from reports.capacity.constraint import Load
from reports.capacity.growth import Growth, Reached
from reports.capacity.loads import UTILISATIONS
from reports.capacity.scalability import BEYOND, Fit
from reports.capacity.steps import Step
from reports.capacity.validate import Validation
from reports.charts import style
from reports.charts.scene import Drawing

MARKERS = "osD^vPX*"


def curves(
    steps: Sequence[Step], slo: Objective, knee: tuple[float | None, float | None], model: Validation | None
) -> Drawing:
    """Answered rate and response percentiles over the offered rate."""
    figure, (top, low) = style.panels((2.0, 2.6))
    rate = np.asarray([step.rate or 0.0 for step in steps])
    answered = np.asarray([step.figures.throughput for step in steps])
    good = np.asarray([step.good for step in steps])
    most = float(rate.max()) * 1.06
    top.plot([0, most], [0, most], color=style.GREY, lw=0.9, ls=":", label="as offered")
    for mask, colour, label, marker in ((good, style.BLUE, "good", "o"), (~good, style.RED, "bad", "X")):
        if mask.any():
            top.scatter(rate[mask], answered[mask], s=26, c=colour, marker=marker, label=label, zorder=3)
    top.set_ylabel("answered, 1/s")
    top.set_ylim(bottom=0)
    for name, colour, dash, marker in (
        ("p50", style.GREEN, "-", "o"),
        ("p95", style.BLUE, "--", "s"),
        ("p99", style.RED, "-.", "D"),
    ):
        rows = [(s.rate or 0.0, v) for s in steps if (v := s.figures.response[name]) is not None]
        by_rate = {r: float(np.median([v for q, v in rows if q == r])) for r, _ in rows}
        if rows:
            low.plot(list(by_rate), list(by_rate.values()), color=colour, ls=dash, lw=1.3, label=name)
            low.scatter([r for r, _ in rows], [v for _, v in rows], s=14, c=colour, marker=marker, zorder=3)
        if model is not None:
            told = [(p.rate, v) for p in model.points if (v := p.model[name]) is not None]
            if told:
                label = "model" if name == "p50" else "_"
                x, y = [r for r, _ in told], [v for _, v in told]
                low.plot(x, y, color=colour, ls=":", lw=1.0, alpha=0.8, label=label)
    times = [v for s in steps for name in ("p50", "p99") if (v := s.figures.response[name])]
    times += [slo.percentile[1]] if slo.percentile else []
    if times:
        # Before the scale: linear margins reach below 0, where a logarithm has nothing.
        low.set_ylim(min(times) / 1.6, max(times) * 1.8)
    style.log_time(low)
    low.set_ylabel("response")
    low.set_xlabel("offered requests per second")
    low.set_xlim(0, most)
    if slo.percentile:
        name, limit = slo.percentile
        low.axhline(limit, color=style.INK, lw=0.9, ls="--")
        low.text(most * 0.005, limit, f" {name} limit ", va="bottom", fontsize=8, bbox=style.halo())
    for axis in (top, low):
        if knee[0] is not None and knee[1] is not None:
            axis.axvspan(knee[0], knee[1], color=style.ORANGE, alpha=0.25, lw=0)
        elif knee[0] is not None:
            axis.axvline(knee[0], color=style.ORANGE, lw=1.2)
    style.key(top, 4)
    style.key(low, 5)
    caption = "Shaded: the knee lies between the last good rate and the first bad one."
    if model is not None:
        caption += " Dotted: the model."
    return Drawing("capacity-curves", caption, figure)


def law(fit: Fit) -> Drawing:
    """Throughput over concurrency: measured, fitted, and how sure the fit is."""
    figure, (axis,) = style.panels((2.8,))
    most = fit.most_measured
    n = np.linspace(1, most * BEYOND, 240)
    low, high = fit.band(n)
    inside = n <= most
    axis.fill_between(n, low, high, color=style.SKY, alpha=0.3, lw=0, label="95 % band of the fit")
    axis.plot(n[inside], fit.law.throughput(n[inside]), color=style.BLUE, label="scalability law")
    axis.plot(n[~inside], fit.law.throughput(n[~inside]), color=style.BLUE, ls=":", label="beyond the data")
    axis.scatter(fit.concurrency, fit.throughput, s=26, c=style.INK, zorder=3, label="measured")
    if fit.law.peak is not None and fit.law.peak_at is not None and fit.law.peak_at <= most * BEYOND:
        axis.axvline(fit.law.peak_at, color=style.ORANGE, lw=1.1, ls="--", label="peak")
    axis.set_xlim(0, most * BEYOND)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("requests under way (closed loop)")
    axis.set_ylabel("answered, 1/s")
    style.key(axis, 5)
    return Drawing("capacity-law", "The band is the law's own; it does not hold single measurements.", figure)


def utilisation(loads: Sequence[Load]) -> Drawing:
    """Every resource at each step."""
    figure, (axis,) = style.panels((3.0,))
    rate = [load.rate for load in loads]
    rows = [(label, [getattr(load, name) for load in loads]) for label, name in UTILISATIONS]
    names = sorted({name for load in loads for name in load.pools})
    rows += [(f"pool {name}", [load.pools.get(name) for load in loads]) for name in names]
    for (label, values), colour, dash, marker in zip(
        rows, style.CYCLE * 2, style.DASHES * 2, MARKERS * 2, strict=False
    ):
        known = [(r, 100 * v) for r, v in zip(rate, values, strict=True) if v is not None]
        if not known:
            continue
        by_rate = {r: float(np.median([v for q, v in known if q == r])) for r, _ in known}
        axis.plot(
            list(by_rate), list(by_rate.values()), color=colour, ls=dash, marker=marker, ms=3.5, label=label
        )
    axis.axhline(100, color=style.INK, lw=0.9, ls="--")
    axis.set_ylim(0, max(112, axis.get_ylim()[1]))
    axis.set_xlim(left=0)
    axis.set_xlabel("offered requests per second")
    axis.set_ylabel("used, %")
    style.key(axis, 4)
    return Drawing(
        "capacity-utilisation", "Nodes: of their CPU limit. Pools: time that connections are held.", figure
    )


def forecast(growth: Growth, when: Reached, knee: tuple[float, float]) -> Drawing:
    """The load as it was and as it is expected, against the knee."""
    figure, (axis,) = style.panels((2.8,))
    last = max(12.0, *(m * 1.25 for m in (when.latest, when.expected, when.earliest) if m is not None))
    months = min(int(last) + 2, len(growth.middle))
    x = [_later(growth.begin, i) for i in range(months)]
    if growth.history:
        axis.plot([_number(d) for d, _ in growth.history], [r for _, r in growth.history], "o", ms=4,
                  color=style.INK, label="history")  # fmt: skip
    if growth.low != growth.high:
        axis.fill_between(x, growth.low[:months], growth.high[:months], color=style.SKY, alpha=0.35, lw=0,
                          label="95 % prediction interval")  # fmt: skip
    axis.plot(x, growth.middle[:months], color=style.BLUE, label="expected load")
    axis.axhspan(*knee, color=style.ORANGE, alpha=0.35, lw=0, label="knee")
    axis.axhline(knee[0], color=style.ORANGE, lw=1.0)
    ends = [m for m in (when.earliest, when.latest) if m is not None]
    for month in ends:
        axis.axvline(_later(growth.begin, month), color=style.RED, lw=1.0, ls="--")
    axis.set_ylim(0, max(knee[1] * 1.6, growth.now * 1.3))
    axis.set_xlabel("year")
    axis.set_ylabel("requests per second")
    style.key(axis, 4)
    return Drawing(
        "capacity-forecast",
        "Red lines: the earliest and the latest month in which the knee is reached.",
        figure,
    )


def _number(day: dt.date) -> float:
    return day.year + (day.month - 1) / 12


def _later(begin: dt.date, months: float) -> float:
    return _number(begin) + months / 12
