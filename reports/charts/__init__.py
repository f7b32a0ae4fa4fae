"""Charts of a run. One module a chart: it defines ``CHART``, and is found by that name."""

from __future__ import annotations

from lab.discovery import discover
from reports.charts.scene import Chart, Drawing, Scene

__all__ = ["Chart", "Drawing", "Scene", "charts"]


def charts() -> list[Chart]:
    """Every chart of this package, in the order in which a report shows them."""
    found = discover(__name__, "CHART", Chart, lambda chart: chart.id).values()
    return sorted(found, key=lambda chart: (chart.order, chart.id))
