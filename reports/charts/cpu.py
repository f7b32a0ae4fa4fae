"""CPU of each node: as a share of its limit where it has one, in cores otherwise; and time held back."""

from __future__ import annotations

import numpy as np

from reports.charts import style
from reports.charts.scene import Chart, Drawing, Scene
from reports.charts.series import Floats, Ints, rate, summed

MOST = 6


def _binned(scene: Scene, t: Ints, value: Floats) -> Floats:
    middle, per_second = rate(t, value)
    return summed([(middle.astype(np.int64), per_second)], scene.grid)


def draw(scene: Scene) -> list[Drawing] | str:
    used = {node: series for (node, _), series in scene.metric("cpu_seconds").items()}
    if not used:
        return "no CPU time was sampled in this run"
    held = {node: series for (node, _), series in scene.metric("cpu_throttled_seconds").items()}
    resources = scene.record.manifest.resources
    limit = {
        node: float(of["cpus"])
        for node, of in resources.items()
        if isinstance(of, dict) and of.get("cpus") and node in used
    }
    free = [node for node in used if node not in limit]
    cores = {node: _binned(scene, *used[node]) for node in used}
    free.sort(key=lambda node: -float(np.nansum(cores[node])))
    heights = [h for h, wanted in ((1.2, limit), (1.0, free), (0.8, limit and held)) if wanted]
    figure, axes = scene.panels(tuple(heights))
    x = scene.seconds(scene.grid.centres)
    left = iter(axes)
    named = list(zip(sorted(limit), style.CYCLE, style.DASHES, strict=False))
    if limit:
        axis = next(left)
        for node, colour, dash in named:
            axis.step(
                x,
                100 * cores[node] / limit[node],
                where="mid",
                color=colour,
                ls=dash,
                lw=1.2,
                label=f"{node} ({limit[node]:g} cores)",
            )
        axis.axhline(100, color=style.INK, lw=0.9, ls="--")
        axis.set_ylim(0, 118)
        axis.set_ylabel("CPU, % of limit")
        style.key(axis, 6)
    if free:
        axis = next(left)
        for node, colour, dash in zip(free[:MOST], style.CYCLE, style.DASHES, strict=False):
            axis.step(x, cores[node], where="mid", color=colour, ls=dash, lw=1.2, label=node)
        axis.set_ylim(bottom=0)
        axis.set_ylabel("CPU, cores")
        style.key(axis, MOST)
    if limit and held:
        axis = next(left)
        for node, colour, dash in named:
            if node in held:
                axis.step(x, 1000 * _binned(scene, *held[node]), where="mid", color=colour, ls=dash, lw=1.2)
        axis.set_ylim(0, max(1.0, 1.15 * axis.get_ylim()[1]))
        axis.set_ylabel("held back, ms / s")
    rest = f" The {MOST} busiest of {len(free)} nodes without a limit are shown." if len(free) > MOST else ""
    return [Drawing("cpu", f"Held back: time in which the quota kept the node from running.{rest}", figure)]


CHART = Chart(
    id="cpu",
    title="CPU",
    needs=("metrics",),
    draw=draw,
    about="From the nodes' cgroup files.",
    order=80,
)
