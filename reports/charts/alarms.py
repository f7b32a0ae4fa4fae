"""What the document's alarms watch, with their thresholds and the times at which they were on."""

from __future__ import annotations

import numpy as np

from reports.analysis.model import Alarm
from reports.charts import style
from reports.charts.scene import Chart, Drawing, Scene

TITLES = {
    "cpu": "CPU, % of limit",
    "connections": "connections",
    "latency": "mean response, ms",
    "capacity": "capacity, %",
}


def draw(scene: Scene) -> list[Drawing] | str:
    alarms: tuple[Alarm, ...] = scene.alarms
    names = [name for name in TITLES if any(alarm.name == name for alarm in alarms)]
    if not names:
        return "nothing that an alarm watches was sampled for a whole period"
    nodes = sorted({alarm.node for alarm in alarms if alarm.node})
    look = dict(zip(nodes, zip(style.CYCLE, style.DASHES, strict=True), strict=False))
    figure, axes = scene.panels(tuple(0.85 for _ in names))
    for axis, name in zip(axes, names, strict=True):
        mine = [alarm for alarm in alarms if alarm.name == name]
        for alarm in mine:
            colour, dash = look.get(alarm.node or "", (style.BLUE, "-"))
            values = np.array([np.nan if value is None else value for value in alarm.values])
            middle = (np.arange(len(values)) + 0.5) * alarm.period_s
            axis.plot(
                middle, values, color=colour, ls=dash, lw=1.3, marker="o", ms=2.5, label=alarm.node or "load"
            )
            for firing in alarm.fired:
                end = firing.over_s if firing.over_s is not None else len(values) * alarm.period_s
                axis.axvspan(firing.fired_s, end, color=style.RED, alpha=0.08, lw=0)
                axis.axvline(firing.fired_s, color=style.RED, lw=1.0)
        threshold = mine[0].threshold
        axis.axhline(threshold, color=style.INK, lw=0.9, ls="--")
        highest = max((v for alarm in mine for v in alarm.values if v is not None), default=0.0)
        axis.set_ylim(0, 1.15 * max(threshold, highest))
        axis.set_ylabel(TITLES[name])
        axis.set_title(f"threshold {threshold:g}", loc="right", fontsize=8.5, color=style.MUTED)
    if nodes:
        style.key(axes[0], 6)
    return [
        Drawing(
            "alarms",
            "Averages of 10 s. Dashed: the threshold. Red: the alarm is on, from the third average in a row "
            "beyond the threshold to the third within it.",
            figure,
        )
    ]


CHART = Chart(
    id="alarms",
    title="Alarms",
    needs=("metrics",),
    draw=draw,
    about="The thresholds are those of the Clinical Trial Platform's alarms, for this kind of environment.",
    order=95,
)
