"""What a load looks like: while it runs, from the raw rows as they come, and at its end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table
from rich.text import Text

from lab import terminal
from loadtests.format import BlockReader, Decoder, whole
from loadtests.outcomes import DROPPED, OK, STOPPED

NS = 1_000_000_000
WINDOW_S = 5
"""Length of the live view's window."""
BEYOND = 10
"""A percentile with fewer samples beyond it is not shown: it would be chance."""
PERCENTILES = (50.0, 95.0, 99.0)

Floats = npt.NDArray[np.float64]


def percentile(values_ms: Floats, p: float) -> float | None:
    """The p-th percentile (nearest rank) of raw values; None with fewer than 10 samples beyond it."""
    if len(values_ms) * (100 - p) / 100 < BEYOND:
        return None
    return float(np.percentile(values_ms, p, method="inverted_cdf"))


class LiveView:
    """Takes the record's bytes as they come. ``feed`` may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: dict[str, tuple[BlockReader, Decoder]] = {}
        self._recent: list[tuple[npt.NDArray[np.int64], Floats]] = []
        self._newest = 0
        self._first: int | None = None
        self.requests = 0
        self.outcomes: Counter[str] = Counter()

    def feed(self, segment: str, data: bytes) -> None:
        """Bytes that were appended to a segment of raw requests."""
        if not segment.endswith(".bin"):
            return
        with self._lock:
            blocks, decoder = self._readers.setdefault(segment, (BlockReader(segment), Decoder()))
            for tag, body in blocks.feed(data):
                batch = decoder.take(tag, body)
                if batch is not None:
                    self._count(batch)

    def _count(self, batch: pa.RecordBatch) -> None:
        batch = whole(batch)
        if not batch.num_rows:
            return
        outcome = batch.column("outcome").dictionary_decode()
        for entry in pc.value_counts(outcome).to_pylist():
            self.outcomes[entry["values"]] += entry["counts"]
        self.requests += batch.num_rows
        done = batch.column("done").to_numpy(zero_copy_only=False)
        intended = batch.column("intended").to_numpy(zero_copy_only=False)
        started = batch.column("started").is_valid().to_numpy(zero_copy_only=False)
        self._newest = max(self._newest, int(done.max()))
        first = int(intended.min())
        self._first = first if self._first is None else min(self._first, first)
        self._recent.append((done, np.where(started, (done - intended) / 1e6, np.nan)))
        oldest = self._newest - WINDOW_S * NS
        self._recent = [item for item in self._recent if item[0][-1] >= oldest]

    def line(self) -> str:
        """One line: what the last seconds looked like."""
        with self._lock:
            if not self._recent or self._first is None:
                return "waiting for the first request"
            since = self._newest - WINDOW_S * NS
            done = np.concatenate([item[0] for item in self._recent])
            response = np.concatenate([item[1] for item in self._recent])[done > since]
            seconds = max(0.25, min(WINDOW_S, (self._newest - self._first) / NS))
            answered = response[~np.isnan(response)]
            bad = sum(n for outcome, n in self.outcomes.items() if outcome not in (OK, DROPPED, STOPPED))
            figures = "  ".join(f"p{p:g} {_ms(percentile(answered, p))}" for p in PERCENTILES)
            return (
                f"{len(answered) / seconds:7.0f}/s  {figures}  "
                f"errors {bad}  dropped {self.outcomes[DROPPED]}  requests {self.requests}"
            )


def summarise(requests: pa.Table) -> dict[str, Any]:
    """The figures of a whole load, from its raw rows. Milliseconds; None where too few samples.

    ``ok_per_s`` counts over the time from the first intended to the last completed request. Latencies are
    of the requests that went well; failures and drops are counted beside them, never averaged in. Commands to
    the cache are parts of requests: they are listed by name, and are in no sum.
    """
    everything = requests
    requests = whole(requests)
    outcome = requests.column("outcome").cast(pa.string())
    counted = {
        str(entry["values"]): int(entry["counts"])
        for chunk in [pc.value_counts(outcome)]
        for entry in chunk.to_pylist()
    }
    document: dict[str, Any] = {
        "requests": requests.num_rows,
        "ok": counted.get(OK, 0),
        "dropped": counted.get(DROPPED, 0),
        "stopped": counted.get(STOPPED, 0),
        "outcomes": dict(sorted(counted.items(), key=lambda item: -item[1])),
        "seconds": None,
        "ok_per_s": None,
        "by_name": {},
    }
    if not requests.num_rows:
        return document
    seconds = (pc.max(requests.column("done")).as_py() - pc.min(requests.column("intended")).as_py()) / NS
    document["seconds"] = seconds
    document["ok_per_s"] = counted.get(OK, 0) / seconds if seconds > 0 else None
    names = everything.column("name").cast(pa.string())
    for name in sorted(pc.unique(names).to_pylist()):
        rows = everything.filter(pc.equal(names, name))
        document["by_name"][name] = _figures(rows)
    document["all"] = _figures(requests)
    return document


def _figures(rows: pa.Table) -> dict[str, Any]:
    good = rows.filter(pc.equal(rows.column("outcome").cast(pa.string()), OK))
    intended, started, done = (
        good.column(name).to_numpy().astype(np.float64) / 1e6 for name in ("intended", "started", "done")
    )
    response, service = done - intended, done - started
    return {
        "requests": rows.num_rows,
        "ok": good.num_rows,
        "response_ms": {f"p{p:g}": percentile(response, p) for p in PERCENTILES},
        "response_max_ms": float(response.max()) if len(response) else None,
        "service_ms": {f"p{p:g}": percentile(service, p) for p in PERCENTILES},
    }


def summary_table(document: dict[str, Any]) -> Table:
    """The table at the end of ``lab load``: response times by request, raw percentiles."""
    table = terminal.table(
        "Request", ">Count", ">Failed", *(f">p{p:g}" for p in PERCENTILES), ">Max", title="Response time, ms"
    )
    table.columns[0].no_wrap = True
    entries: Sequence[tuple[str, dict[str, Any]]] = list(document["by_name"].items())
    if len(entries) > 1:
        entries = [*entries, ("all", document["all"])]
    for name, entry in entries:
        failed = entry["requests"] - entry["ok"]
        table.add_row(
            Text(name, style="bold" if name == "all" else ""),
            str(entry["requests"]),
            Text(str(failed) if failed else "", style="red"),
            *(_ms(entry["response_ms"][f"p{p:g}"]) for p in PERCENTILES),
            _ms(entry["response_max_ms"]),
        )
    return table


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"
