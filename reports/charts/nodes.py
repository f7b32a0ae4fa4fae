"""Which database node accepted writes when, as each said itself when asked directly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from reports.charts import style
from reports.charts.scene import Chart, Drawing, Scene
from reports.charts.series import NS, ints, runs

STATES: dict[str, tuple[str, float, str]] = {
    # state: (colour, alpha, hatch)
    "accepts writes": (style.BLUE, 1.0, ""),
    "read only": (style.SKY, 0.45, ""),
    "unreachable": (style.RED, 0.55, "////"),
}
GAP_NS = 2 * NS
Stretch = tuple[int, int, str]


def stretches(scene: Scene, start: int, end: int) -> dict[str, list[Stretch]]:
    """Node → its states within a time span (ns), in the order of the nodes' names."""
    table = scene.table("nodes")
    if not len(table):
        return {}
    when = scene.column("nodes", "t_done")
    inside = (when >= start) & (when < end)
    table = table.filter(inside)
    if not len(table):
        return {}
    node = np.asarray(table["node"].cast("string").to_pylist(), dtype=object)
    t = ints(table["t_done"])
    writes = table["accepts_writes"].fill_null(False).to_numpy()
    reachable = table["reachable"].fill_null(False).to_numpy()
    state = np.where(~reachable, "unreachable", np.where(writes, "accepts writes", "read only"))
    found = {}
    for name in sorted({str(n) for n in node if n is not None}):
        mine = np.flatnonzero(node == name)
        mine = mine[np.argsort(t[mine], kind="stable")]
        found[name] = runs(state[mine], t[mine], gap=GAP_NS)
    return found


def lanes(axis: Axes, found: dict[str, list[Stretch]], x: Callable[[int], float]) -> None:
    """One lane a node, coloured by its state."""
    names = list(found)
    for row, name in enumerate(names):
        for state, (colour, alpha, hatch) in STATES.items():
            bars = [(x(a), max(x(b) - x(a), 0.02)) for a, b, what in found[name] if what == state]
            if bars:
                height = 0.78 if state == "accepts writes" else 0.5
                axis.broken_barh(
                    bars,
                    (row - height / 2, height),
                    facecolor=colour,
                    alpha=alpha,
                    hatch=hatch,
                    edgecolor=style.PAPER if hatch else "none",
                    lw=0,
                    zorder=3,
                )
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(False)
    axis.tick_params(axis="y", length=0)
    axis.legend(
        handles=[
            Patch(facecolor=c, alpha=a, hatch=h, edgecolor=style.PAPER, lw=0, label=s)
            for s, (c, a, h) in STATES.items()
        ],
        loc="lower left",
        ncols=3,
        bbox_to_anchor=(0, 1.0),
        borderaxespad=0.1,
        handlelength=1.7,
    )


def draw(scene: Scene) -> list[Drawing] | str:
    found = stretches(scene, *scene.span)
    if not found:
        return "no node was asked directly in this run"
    figure, axes = scene.panels((0.22 * len(found) + 0.3,))
    lanes(axes[0], found, scene.seconds)
    return [Drawing("nodes", "Two nodes that accept writes at one time would be a split brain.", figure)]


CHART = Chart(
    id="nodes",
    title="Who accepted writes",
    needs=("nodes",),
    draw=draw,
    about="Every database node asked directly over the control network, not through the router.",
    order=30,
)
