"""Writes to Redis: which server acknowledged them, which of them are gone, and who Sentinel named."""

from __future__ import annotations

import numpy as np

from reports.charts import style
from reports.charts.scene import Chart, Drawing, Scene
from reports.charts.series import NS, Grid


def draw(scene: Scene) -> list[Drawing] | str:
    table = scene.table("redis_writes")
    if not len(table):
        return "nobody wrote to Redis in this run"
    grid = Grid.over(*scene.span, least_s=1.0)
    x, per_s = scene.seconds(grid.centres), 1 / grid.seconds
    intended = scene.column("redis_writes", "intended", null=0)
    outcome = np.asarray(table["outcome"].to_pylist(), dtype=object)
    server = np.asarray(table["server"].to_pylist(), dtype=object)
    good = outcome == "acknowledged"
    figure, (above, below) = scene.panels((1.2, 0.8))
    bottom = np.zeros(grid.bins)
    for name, colour in zip(sorted({s for s in server[good] if s}), style.CYCLE, strict=False):
        top = bottom + grid.count(intended[good & (server == name)]) * per_s
        above.fill_between(x, bottom, top, step="mid", color=colour, alpha=0.35, lw=0, label=name)
        bottom = top
    gone = np.repeat(list(scene.redis_lost), list(scene.redis_lost.values())).astype(np.int64)
    parts = (
        ("acknowledged, and gone", scene.span[0] + gone * NS, style.RED),
        ("failed", intended[outcome == "failed"], style.ORANGE),
        ("unknown", intended[~good & (outcome != "failed")], style.PURPLE),
    )
    highest = 0.0
    for name, at, colour in parts:
        count = grid.count(at) * per_s
        highest = max(highest, float(count.max()))
        below.step(x, count, where="mid", color=colour, lw=1.3, label=f"{name} ({len(at):,})")
    named = ""
    for event in scene.events:
        # Both writers tell what they are told: the first to hear of a change counts.
        if event["kind"] != "redis-primary" or event["node"] == named:
            continue
        named, first = event["node"], not named
        if not first:
            for axis in (above, below):
                axis.axvline(scene.seconds(event["t"]), color=style.MUTED, lw=0.9, ls="--")
            above.annotate(
                f"Sentinel: {event['node']}", (scene.seconds(event["t"]), 1.0), xytext=(3, -9),
                xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8, color=style.INK,
            )  # fmt: skip
    above.set_ylabel("acknowledged / s")
    above.set_ylim(0, max(1.0, float(bottom.max()) * 1.25))
    below.set_ylabel("lost or bad / s")
    below.set_ylim(0, max(1.0, highest * 1.2))
    for axis in (above, below):
        style.key(axis, 4)
    caption = (
        f"Bins of {grid.seconds:g} s, by intended send time. Gone: not in the list of the final primary."
    )
    return [Drawing("redis", caption, figure)]


CHART = Chart(
    id="redis",
    title="Writes to Redis",
    needs=("redis_writes", "events"),
    draw=draw,
    about="Dashed: a Sentinel names another primary. What the old one acknowledges from then on is lost.",
    order=45,
)
