"""What every chart of one run shares: the record's tables, the time axis, the trials with their marks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab.record.schema import Manifest
from loadtests.format import whole
from reports.charts import style
from reports.charts.series import (
    NS,
    REQUEST_COLUMNS,
    Binned,
    Floats,
    Grid,
    Ints,
    Key,
    bin_requests,
    ints,
    metric,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS: dict[str, tuple[str, str]] = {
    # kind of event: (label in a chart, colour)
    "fault-effect": ("fault", style.RED),
    "leader-expired": ("leader key expired", style.MUTED),
    "leader-elected": ("leader elected", style.MUTED),
    "promoted": ("promoted", style.MUTED),
    "pooler-connected": ("pooler reconnected", style.MUTED),
    "recovered": ("writes recovered", style.GREEN),
}
ZOOM_BEFORE_S = 5.0
ZOOM_AFTER_S = 5.0


class Record(Protocol):
    """What charts ask of a run record."""

    @property
    def manifest(self) -> Manifest: ...

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table: ...

    def batches(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]: ...

    def events(self, *kinds: str) -> list[dict[str, Any]]: ...

    def text(self, relative: str) -> str | None: ...


@dataclass(frozen=True)
class Mark:
    """A moment worth a line in a chart."""

    t: int
    kind: str
    """Key of MARKS."""


@dataclass(frozen=True)
class Trial:
    """One trial on the time axis; times in ns of the observer's clock."""

    number: int
    start: int
    end: int
    effect: int | None
    healed: int | None
    recovered: int | None
    """Completion of the write from which on writes hold; None: no outage, or never."""
    marks: tuple[Mark, ...]

    @property
    def fault_until(self) -> int:
        """The end of the fault: healed, or else the end of the trial."""
        return self.healed if self.healed is not None else self.end


@dataclass
class Scene:
    """One run, ready to be drawn."""

    record: Record
    recovered: Mapping[int, int] = field(default_factory=dict)
    """Trial → time of recovery of writes (ns), as the analysis found it."""
    outages: Any = None
    """``reports.charts.waterfall.Outages``."""
    lines: tuple[Any, ...] = ()
    """Outages by kind of session (``reports.charts.sessions.Line``)."""
    colour: str = style.RED
    """The fault's colour."""
    redis_lost: Mapping[int, int] = field(default_factory=dict)
    """Second of the run → writes to Redis that were acknowledged in it and are gone."""
    alarms: tuple[Any, ...] = ()
    """Every alarm of the run (``reports.analysis.model.Alarm``)."""
    _tables: dict[str, pa.Table] = field(default_factory=dict)

    def table(self, name: str) -> pa.Table:
        """A whole table of the record, read once; ``requests`` are never read whole."""
        if name not in self._tables:
            self._tables[name] = self.record.table(name)
        return self._tables[name]

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """Events with a known time, in the order of time."""
        return [event for event in self.record.events() if event["t"] is not None]

    @cached_property
    def span(self) -> tuple[int, int]:
        """First and last moment of the run, ns; (0, 1 s) for a record without any sample."""
        first = [e["t"] for e in self.events if e["kind"] in ("load-start", "run-start")]
        last = [e["t"] for e in self.events if e["kind"] in ("load-end", "run-end")]
        start, end = min(first, default=None), max(last, default=None)
        if start is None or end is None:
            times = [int(e["t"]) for e in self.events]
            for name, column in (("requests", "intended"), ("writes", "intended"), ("metrics", "t")):
                for batch in self.record.batches(name, [column]):
                    ends = pc.min_max(batch.column(0)).as_py()
                    times += [t for t in ends.values() if t is not None]
            start = start if start is not None else min(times, default=0)
            end = end if end is not None else max(times, default=start + NS) + 1
        return int(start), max(int(end), int(start) + NS)

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial that the events tell of, in order."""
        found = []
        for number in sorted({int(e["trial"]) for e in self.events if e["trial"]}):
            mine = [e for e in self.events if e["trial"] == number]

            def first(kind: str, of: list[dict[str, Any]] = mine) -> int | None:
                return next((int(e["t"]) for e in of if e["kind"] == kind), None)

            effect = first("fault-effect")
            marks = [Mark(t, kind) for kind in MARKS if (t := first(kind)) is not None]
            recovered = self.recovered.get(number)
            if recovered is not None:
                marks.append(Mark(recovered, "recovered"))
            found.append(
                Trial(
                    number=number,
                    start=first("trial-start") or int(mine[0]["t"]),
                    end=first("trial-end") or int(mine[-1]["t"]),
                    effect=effect,
                    healed=first("heal-end"),
                    recovered=recovered,
                    marks=tuple(sorted(marks, key=lambda mark: mark.t)),
                )
            )
        return tuple(found)

    @cached_property
    def grid(self) -> Grid:
        """The bins of the whole run."""
        return Grid.over(*self.span, least_s=1.0)

    def zoom(self, trial: Trial) -> Grid | None:
        """Bins around one trial's fault; None where no fault took effect."""
        if trial.effect is None:
            return None
        start = trial.effect - int(ZOOM_BEFORE_S * NS)
        ends = [mark.t for mark in trial.marks] if trial.recovered else [trial.end]
        return Grid.over(start, max(ends) + int(ZOOM_AFTER_S * NS), least_s=0.25, most=200)

    @cached_property
    def _binned(self) -> tuple[str, dict[Grid, Binned]]:
        grids = [self.grid, *(grid for trial in self.trials if (grid := self.zoom(trial)) is not None)]
        for traffic, name, ok in (("load", "requests", "ok"), ("writer probe", "writes", "acknowledged")):
            rows = self.record.batches(name, (*REQUEST_COLUMNS, "endpoint"))
            binned = bin_requests(map(whole, rows), grids, ok=ok)
            if traffic != "load" or any(one.offered.any() for one in binned):
                return traffic, dict(zip(grids, binned, strict=True))
        raise AssertionError("unreachable")

    @property
    def traffic(self) -> str:
        """What the throughput charts show: ``load``, or ``writer probe`` where no load was recorded."""
        return self._binned[0]

    def requests(self, grid: Grid) -> Binned:
        """Requests in the bins of the whole run or of one trial's zoom."""
        return self._binned[1][grid]

    def text(self, relative: str) -> str | None:
        """A text file of the record."""
        return self.record.text(relative)

    def metric(self, name: str) -> dict[Key, tuple[Ints, Floats]]:
        """One metric by node and label."""
        return metric(self.table("metrics"), name)

    def seconds(self, t: Ints | Floats | int, since: int | None = None) -> Any:
        """Seconds since the start of the run (or since another moment)."""
        origin = self.span[0] if since is None else since
        return (np.asarray(t, dtype=np.float64) - origin) / NS if np.ndim(t) else (float(t) - origin) / NS

    def column(self, table: str, name: str, *, null: int = -1) -> Ints:
        """An integer column as numpy."""
        return ints(self.table(table)[name], null=null)

    # -- what every chart on a time axis draws ---------------------------------------------------

    def shade(self, axes: list[Axes], *, since: int | None = None, only: Trial | None = None) -> None:
        """Shade each fault while it was in effect, and more strongly while writes were down."""
        for trial in self.trials if only is None else (only,):
            if trial.effect is None:
                continue
            start = self.seconds(trial.effect, since)
            until = [self.seconds(t, since) for t in (trial.fault_until, trial.recovered) if t is not None]
            for axis in axes:
                for end, alpha in zip(until, (0.07, 0.11), strict=False):
                    axis.axvspan(start, end, color=self.colour, alpha=alpha, lw=0, zorder=0)
                axis.axvline(start, color=self.colour, lw=1.0, zorder=1)

    def panels(self, heights: tuple[float, ...]) -> tuple[Figure, list[Axes]]:
        """Panels over the whole run, with a strip on top that names the faults; shaded by them."""
        strip = any(trial.effect is not None for trial in self.trials)
        figure, axes = style.panels((0.17, *heights) if strip else heights)
        axes[0].set_xlim(0, self.seconds(self.span[1]))
        self.shade(axes)
        axes[-1].set_xlabel("seconds since the start of the run")
        if strip:
            self._strip(axes.pop(0))
        figure.align_ylabels(axes)
        return figure, axes

    def _strip(self, axis: Axes) -> None:
        whole = self.seconds(self.span[1])
        axis.axis("off")
        axis.set_ylim(0, 1)
        for trial in self.trials:
            if trial.effect is None:
                continue
            start = self.seconds(trial.effect)
            if trial.recovered is not None:
                end = self.seconds(trial.recovered)
                axis.axvspan(start, end, ymax=0.22, color=self.colour, lw=0)
            room = (trial.end - trial.effect) / NS / whole
            said = f"{trial.number}"
            if room > 0.05:
                said = f"fault {trial.number}"
            if room > 0.16 and trial.recovered is not None:
                said += f": writes down {(trial.recovered - trial.effect) / NS:.1f} s"
            axis.annotate(
                said,
                (start, 0.3),
                xytext=(2, 0),
                textcoords="offset points",
                va="bottom",
                fontsize=8.5,
                color=style.INK,
            )


@dataclass(frozen=True)
class Drawing:
    """One picture of a chart."""

    id: str
    caption: str
    figure: Figure
    narrow: Figure | None = None
    """The same for a phone; None: the wide one is scrolled."""


@dataclass(frozen=True)
class Chart:
    """A chart: what it is, what it needs, how it is drawn."""

    id: str
    title: str
    needs: tuple[str, ...]
    """Tables of the record."""
    draw: Callable[[Scene], list[Drawing] | str]
    """Its pictures, or the reason why there is nothing to draw."""
    about: str = ""
    """How to read it, one or two sentences."""
    order: int = 100
