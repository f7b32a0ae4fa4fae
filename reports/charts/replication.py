"""Replication lag of each standby, how many are synchronous, and the WAL that is kept back for slots."""

from __future__ import annotations

import numpy as np

from reports.charts import style
from reports.charts.scene import Chart, Drawing, Scene
from reports.charts.series import Floats, Ints, summed


def draw(scene: Scene) -> list[Drawing] | str:
    lag, sync = scene.metric("pg_replication_lag_bytes"), scene.metric("pg_sync_standbys")
    if not lag and not sync:
        return "replication was not sampled in this run"
    kept = scene.metric("pg_slot_retained_bytes")
    figure, axes = scene.panels((1.2, 0.6, 0.9) if kept else (1.2, 0.6))
    grid = scene.grid
    x = scene.seconds(grid.centres)
    standbys = sorted({label for _, label in lag})
    for standby, colour, dash in zip(standbys, style.CYCLE * 3, style.DASHES * 3, strict=False):
        # After a failover another node reports the lag: whoever is primary, one line a standby.
        parts: list[tuple[Ints, Floats]] = [series for (_, label), series in lag.items() if label == standby]
        t, value = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        mean = summed([(t, value)], grid)
        axes[0].step(x, mean / 1024, where="mid", color=colour, ls=dash, lw=1.2, label=standby or "standby")
    axes[0].set_ylabel("lag, KiB")
    axes[0].set_ylim(bottom=0)
    if standbys:
        style.key(axes[0], 4)
    total = summed(list(sync.values()), grid) if sync else np.full(grid.bins, np.nan)
    axes[1].step(x, total, where="mid", color=style.GREEN, lw=1.4)
    axes[1].set_ylabel("synchronous")
    highest = int(np.nanmax(total)) if np.isfinite(total).any() else 1
    axes[1].set_ylim(-0.15, max(highest, 1) + 0.3)
    axes[1].set_yticks(range(max(highest, 1) + 1))
    caption = "Lag: the primary's WAL position minus what the standby has replayed. Gap: nobody reported it."
    if kept:
        slots = sorted({label for _, label in kept})
        for slot, colour, dash in zip(slots, style.CYCLE * 3, style.DASHES * 3, strict=False):
            pairs = [series for (_, label), series in kept.items() if label == slot]
            t, value = np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])
            mib = summed([(t, value)], grid) / 1024**2
            axes[2].step(x, mib, where="mid", color=colour, ls=dash, lw=1.2, label=slot or "slot")
        axes[2].set_ylabel("WAL kept, MiB")
        axes[2].set_ylim(bottom=0)
        style.key(axes[2], 4)
        caption += " Kept: WAL that the primary may not remove, since a slot still needs it."
    return [Drawing("replication", caption, figure)]


CHART = Chart(
    id="replication",
    title="Replication",
    needs=("metrics",),
    draw=draw,
    about="WAL that each standby is behind, how many confirm commits synchronously, and WAL kept for slots.",
    order=70,
)
