"""The pictures of the experiment ``pooling``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from reports.charts import style
from reports.charts.scene import Drawing
from reports.view import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from reports.analysis.pool_cells import Figures
    from reports.experiments._pooling_groups import Group, Overhead

PATHS = {"direct": style.GREY, "transaction": style.BLUE, "session": style.GREEN, "statement": style.ORANGE}
NODES = {"client": style.GREY, "pooler": style.BLUE, "router": style.SKY, "database": style.RED}


def panels_beside(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Panels beside each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(style.WIDTH, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)
    return figure, list(axes[0])


def _bars(
    axis: Axes, labels: Sequence[str], sides: Sequence[Sequence[float]], colours: Sequence[str]
) -> None:
    """Horizontal bars: the median of each side's values, and each value as a dot."""
    at = -np.arange(len(labels))
    axis.barh(at, [median(side) if side else 0 for side in sides], color=colours, height=0.62, lw=0)
    for y, side in zip(at, sides, strict=True):
        axis.plot(side, np.full(len(side), y), "|", color=style.INK, ms=7, mew=0.9, ls="")
        axis.annotate(
            number(median(side)) if side else "–",
            (max((*side, 0)), y),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axis.set_yticks(at, labels)
    axis.margins(x=0.18)
    axis.set_xlim(left=min(0.0, *(v for side in sides for v in side), 0.0))
    axis.grid(axis="x")
    axis.grid(visible=False, axis="y")


def _clients(count: int) -> str:
    return f"{count} client{'s' if count != 1 else ''}"


def overhead_chart(over: Sequence[Overhead]) -> tuple[Drawing, ...]:
    """Connection overhead by path, a panel a number of clients."""
    counts = sorted({one.clients for one in over})
    if not counts:
        return ()
    rows = max(sum(one.clients == count for one in over) for count in counts)
    figure, axes = panels_beside(len(counts), 0.42 * rows + 1.0)
    for axis, count in zip(axes, counts, strict=True):
        mine = [one for one in over if one.clients == count]
        _bars(
            axis, [o.label for o in mine], [list(o.ms.values()) for o in mine], [PATHS[o.path] for o in mine]
        )
        axis.set_title(_clients(count))
        axis.set_xlabel("ms a transaction")
    return (
        Drawing(
            "pooling-overhead",
            "Connection overhead. Bars: median of the repeats; marks: each of them.",
            figure,
        ),
    )


def rate_chart(groups: Sequence[Group]) -> tuple[Drawing, ...]:
    """Transactions per second by path, lasting connections beside one a transaction."""
    base = [g for g in groups if g.prepared and g.authentication == "stored secrets" and g.valid]
    kinds = sorted({(g.workload, g.clients) for g in base})
    if not kinds:
        return ()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(style.WIDTH, 1.75 * len(kinds) + 0.3), layout="constrained")
    axes = figure.subplots(len(kinds), 2, squeeze=False)
    for row, (workload, clients) in zip(axes, kinds, strict=True):
        for axis, connections in zip(row, ("per-request", "lasting"), strict=True):
            mine = [
                g for g in base if (g.workload, g.clients, g.connections) == (workload, clients, connections)
            ]
            if not mine:
                axis.set_axis_off()
                continue
            sides = [[cell.per_s for cell in g.valid.values()] for g in mine]
            _bars(axis, [g.path for g in mine], sides, [PATHS[g.path] for g in mine])
            how = "a connection for each" if connections == "per-request" else "lasting connections"
            axis.set_title(f"{workload}, {_clients(clients)}, {how}")
            axis.set_xlabel("transactions per second")
    return (
        Drawing("pooling-rates", "Closed loop. Bars: median of the repeats; marks: each of them.", figure),
    )


def cpu_chart(groups: Sequence[Group]) -> tuple[Drawing, ...]:
    """CPU time a transaction, stacked by node."""
    chosen = [g for g in groups if any(c.cpu_ms for c in g.valid.values())]
    if not chosen:
        return ()
    figure, (axis,) = panels_beside(1, 0.38 * len(chosen) + 1.1)
    left = np.zeros(len(chosen))
    at = -np.arange(len(chosen))
    for node, colour in NODES.items():
        values = np.array([g.middle(partial(_cpu, node)) or 0.0 for g in chosen])
        axis.barh(at, values, left=left, color=colour, height=0.62, lw=0, label=node)
        left += values
    for y, whole in zip(at, left, strict=True):
        axis.annotate(
            f"{whole:.3g}", (whole, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    labels = [
        f"{g.path}{'' if g.authentication == 'stored secrets' else ', ' + g.authentication}, "
        f"{_clients(g.clients)}"
        for g in chosen
    ]
    axis.set_yticks(at, labels)
    axis.set_xlabel("CPU time, ms a transaction with a connection of its own")
    axis.grid(axis="x")
    axis.grid(visible=False, axis="y")
    style.key(axis)
    return (Drawing("pooling-cpu", "Median of the repeats.", figure),)


def _cpu(node: str, cell: Figures) -> float | None:
    return cell.cpu_ms.get(node)


def mode_chart(groups: Sequence[Group]) -> tuple[Drawing, ...]:
    """Efficiency, utilisation, wait and multiplexing of each pool."""
    base = [
        g
        for g in groups
        if g.path != "direct" and g.valid and g.prepared and g.authentication == "stored secrets"
        and g.workload == "limit-check"
    ]  # fmt: skip
    if not base:
        return ()
    labels = [f"{g.path}, {g.clients}, {g.connections}" for g in base]
    panels: tuple[tuple[str, Callable[[Figures], float | None]], ...] = (
        ("efficiency, %", lambda c: c.efficiency),
        ("utilisation, %", lambda c: c.utilisation),
        ("mean wait, ms", lambda c: c.wait_ms),
        ("clients a connection", lambda c: c.multiplexing),
    )
    figure, axes = panels_beside(4, 0.34 * len(base) + 1.0)
    for index, (axis, (title, pick)) in enumerate(zip(axes, panels, strict=True)):
        sides = [[v for c in g.valid.values() if (v := pick(c)) is not None] for g in base]
        _bars(axis, labels if not index else [""] * len(base), sides, [PATHS[g.path] for g in base])
        axis.set_title(title)
    return (
        Drawing("pooling-modes", "limit-check. Bars: median of the repeats; marks: each of them.", figure),
    )


def memory_chart(kib: Mapping[str, Sequence[float]]) -> tuple[Drawing, ...]:
    """What an idle client costs by path, KiB."""
    figure, (axis,) = panels_beside(1, 0.42 * len(kib) + 0.9)
    colours = [PATHS["direct" if path == "direct" else "transaction"] for path in kib]
    _bars(axis, list(kib), list(kib.values()), colours)
    axis.set_xlabel("KiB an idle client")
    return (Drawing("pooling-memory", "Of backends and pooler together.", figure),)


def prepared_chart(saved: Mapping[str, Sequence[float]]) -> tuple[Drawing, ...]:
    """What preparing a statement saves of its time, by path, percent."""
    figure, (axis,) = panels_beside(1, 0.42 * len(saved) + 0.9)
    _bars(axis, list(saved), list(saved.values()), [PATHS[path] for path in saved])
    axis.set_xlabel("time saved by preparing, %")
    return (Drawing("pooling-prepared", "Bars: median of the repeats; marks: each of them.", figure),)
