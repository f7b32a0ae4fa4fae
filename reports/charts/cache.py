"""The cache over time: look-ups that it answered or not, and its hit ratio."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from reports.charts import style
from reports.charts.scene import Chart, Drawing, Scene
from reports.charts.series import Grid, Ints

HIT, MISS = "redis GET hit", "redis GET miss"


def look_ups(scene: Scene, grid: Grid) -> tuple[Ints, Ints]:
    """Hits and misses in each bin."""
    counts = {HIT: np.zeros(grid.bins, dtype=np.int64), MISS: np.zeros(grid.bins, dtype=np.int64)}
    for batch in scene.record.batches("requests", ("done", "name")):
        names = np.asarray(batch.column("name").cast(pa.string()).to_pylist(), dtype=object)
        done = batch.column("done").to_numpy(zero_copy_only=False).astype(np.float64)
        for name, count in counts.items():
            at = (done[names == name] - grid.start) // grid.width
            inside = at[(at >= 0) & (at < grid.bins)].astype(np.int64)
            count += np.bincount(inside, minlength=grid.bins)
    return counts[HIT], counts[MISS]


def draw(scene: Scene) -> list[Drawing] | str:
    grid = scene.grid
    hits, misses = look_ups(scene, grid)
    every = hits + misses
    if not every.any():
        return "the load looked nothing up in a cache"
    figure, axes = scene.panels((0.9, 1.0))
    x = scene.seconds(grid.centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(every > 0, 100 * hits / every, np.nan)
    axes[0].step(x, ratio, where="mid", color=style.BLUE, lw=1.3)
    axes[0].set_ylim(0, 105)
    axes[0].set_ylabel("hits, %")
    whole = 100 * hits.sum() / every.sum()
    axes[0].set_title(f"{whole:.1f} % of {every.sum():,} look-ups", loc="right", fontsize=9, color=style.INK)
    axes[1].fill_between(x, hits / grid.seconds, step="mid", color=style.SKY, alpha=0.5, lw=0, label="hits")
    axes[1].step(x, misses / grid.seconds, where="mid", color=style.RED, lw=1.2, label="misses")
    axes[1].set_ylim(bottom=0)
    axes[1].set_ylabel("look-ups / s")
    style.key(axes[1], 2)
    return [
        Drawing("cache", "Each miss loads the value from the database. Sessions are not among them.", figure)
    ]


CHART = Chart(
    id="cache",
    title="Cache",
    needs=("requests",),
    draw=draw,
    about="Look-ups of cached values in Redis, as the clients saw them.",
    order=85,
)
