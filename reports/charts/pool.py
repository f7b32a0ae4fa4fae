"""Server connections and waiting clients of each pooler."""

from __future__ import annotations

import numpy as np
import yaml

from reports.charts import style
from reports.charts.scene import Chart, Drawing, Scene
from reports.charts.series import Floats, Grid, Ints, Key, summed


def limits(scene: Scene) -> dict[str, float]:
    """Pooler → the document's limit of server connections, from the recorded topology."""
    text = scene.text("topology.yaml")
    try:
        topology = yaml.safe_load(text or "{}")
        return {p["name"]: float(p["max_server_connections"]) for p in topology.get("poolers", [])}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def _sum(of: dict[Key, tuple[Ints, Floats]], pooler: str, grid: Grid) -> Floats:
    return summed([series for (node, _), series in of.items() if node == pooler], grid)


def draw(scene: Scene) -> list[Drawing] | str:
    total = scene.metric("pgb_sv_total")
    active, waiting = scene.metric("pgb_sv_active"), scene.metric("pgb_cl_waiting")
    poolers = sorted({node for node, _ in total})
    if not poolers:
        return "no pooler was sampled in this run"
    bounds = limits(scene)
    figure, axes = scene.panels((*(0.85 for _ in poolers), 0.8))
    grid = scene.grid
    x = scene.seconds(grid.centres)
    for axis, pooler in zip(axes, poolers, strict=False):
        of = _sum(total, pooler, grid)
        axis.fill_between(x, of, step="mid", color=style.SKY, alpha=0.4, lw=0, label="open")
        axis.step(x, _sum(active, pooler, grid), where="mid", color=style.BLUE, lw=1.2, label="in use")
        bound = bounds.get(pooler)
        if bound:
            axis.axhline(bound, color=style.INK, lw=1.0, ls="--")
            axis.annotate(
                f"limit {bound:g}",
                (1.0, bound),
                xycoords=("axes fraction", "data"),
                xytext=(-3, -3),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=8,
            )
        highest = float(np.nanmax(of)) if np.isfinite(of).any() else 0.0
        axis.set_ylim(0, 1.12 * max(bound or 0.0, highest, 1.0))
        axis.set_ylabel("server conn.")
        axis.set_title(pooler, loc="right", fontsize=9, color=style.INK)
    style.key(axes[0], 2)
    last = axes[-1]
    for pooler, colour, dash in zip(poolers, style.CYCLE, style.DASHES, strict=False):
        last.step(x, _sum(waiting, pooler, grid), where="mid", color=colour, ls=dash, lw=1.2, label=pooler)
    last.set_ylim(bottom=0)
    last.set_ylabel("clients waiting")
    style.key(last, 4)
    return [Drawing("pool", "Summed over databases and users of each pooler.", figure)]


CHART = Chart(
    id="pool",
    title="Pools",
    needs=("metrics",),
    draw=draw,
    about="Server connections of each PgBouncer, the document's limit, and clients that wait for one.",
    order=60,
)
