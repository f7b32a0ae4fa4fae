"""What the load counts of itself beside the record of requests, for the table ``metrics``.

Requests under way are counted as they begin and end, apart from their record: Little's law then holds the
one against the other. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns

NS = 1_000_000_000


class InFlight:
    """How many requests are under way, and the integral of that over time."""

    __slots__ = ("_area", "_clock", "_since", "ended", "now")

    def __init__(self, clock: Callable[[], int] = monotonic_ns) -> None:
        self.now = 0
        """Requests under way."""
        self.ended = 0
        """Requests that ended."""
        self._clock = clock
        self._since = clock()
        self._area = 0

    def add(self, change: int) -> None:
        """A request began (1) or ended (-1)."""
        moment = self._clock()
        self._area += self.now * (moment - self._since)
        self._since = moment
        self.now += change
        if change < 0:
            self.ended += 1

    def seconds(self) -> tuple[int, float]:
        """(moment, request-seconds until then): Σ over time of the requests under way."""
        self.add(0)
        return self._since, self._area / NS


class Gauges:
    """Named figures of one process, written as rows of ``metrics`` whenever ``write`` is called."""

    def __init__(self, path: str, node: str, worker: int) -> None:
        self.in_flight = InFlight()
        self.values: dict[str, float] = {}
        """Metric → value, see ``METRICS`` of the record's schema."""
        self._node = node
        self._label = str(worker)
        self._path: Path | None = Path(path)
        self._path.touch()

    def count(self, metric: str, by: float = 1) -> None:
        """Raise a cumulative figure."""
        self.values[metric] = self.values.get(metric, 0) + by

    def most(self, metric: str, value: float) -> None:
        """Keep the greatest value."""
        if value > self.values.get(metric, float("-inf")):
            self.values[metric] = value

    def write(self, offset_ns: int) -> None:
        """Append every figure as of now; ``offset_ns`` brings this process's clock onto the observer's."""
        if self._path is None:
            return
        moment, area = self.in_flight.seconds()
        figures = {
            "load_in_flight": float(self.in_flight.now),
            "load_in_flight_seconds": area,
            **self.values,
        }
        rows = (
            {
                "t": moment + offset_ns,
                "node": self._node,
                "metric": name,
                "label": self._label,
                "value": value,
            }
            for name, value in figures.items()
        )
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))

    def close(self) -> None:
        """Write nothing more. Idempotent."""
        self._path = None
