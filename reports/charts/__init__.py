"""Charts of a run. One module a chart: it defines ``CHART``, and is found by that name."""

from __future__ import annotations

import importlib
import pkgutil

from reports.charts.scene import Chart, Drawing, Scene

__all__ = ["Chart", "Drawing", "Scene", "charts"]


def charts() -> list[Chart]:
    """Every chart of this package, in the order in which a report shows them."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        chart = getattr(importlib.import_module(f"{__name__}.{module.name}"), "CHART", None)
        if isinstance(chart, Chart):
            found.append(chart)
    return sorted(found, key=lambda chart: (chart.order, chart.id))
