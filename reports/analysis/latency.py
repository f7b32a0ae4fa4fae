"""The load's latency, errors and throughput, from raw values.

- *intended*: when the schedule asked for the request; *started*: when it was sent; *done*: when it ended.
- *response time* = done − intended; *service time* = done − started; *schedule lag* = started − intended.
- *dropped*: intended and never started. Failed requests count as errors and are not in the percentiles,
  dropped ones are in neither: both are shown beside them, because a percentile without them flatters.
- Commands to the cache are parts of requests: they have rows of their own by name, and are in no sum.
- *percentile q*: nearest rank, the ⌈q·n⌉-th smallest raw value; never an average of percentiles. It is
  suppressed (None) where fewer than 10 samples lie beyond it, ⌊n·(1 − q)⌋ < 10.

Requests are read a batch at a time into narrow columns (about 19 bytes each), so that 10 million need some
hundreds of MB and one sort.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lab.record.reader import RecordReader
from lab.record.schema import NS
from loadtests.format import nested
from reports.analysis.columns import integers, text
from reports.analysis.model import Latency, Load, Seconds

BEYOND = 10
"""Samples that must lie beyond a percentile for it to be shown."""
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
OK, ERROR, DROPPED = 0, 1, 2
COLUMNS = ("intended", "started", "done", "name", "endpoint", "outcome")


def rank(q: float, n: int) -> int | None:
    """Index of the percentile in n sorted values; None where it is suppressed."""
    # The tolerance undoes the error of 1 − q in binary (100 · (1 − 0.9) = 9.999…).
    if math.floor(n * (1 - q) + 1e-9) < BEYOND:
        return None
    return max(0, math.ceil(q * n - 1e-9) - 1)


def summary(values: npt.NDArray[Any]) -> dict[str, float | None]:
    """p50, p95, p99, p99.9, max and mean of raw values, in their unit; None where they cannot be told."""
    n = len(values)
    ranks = {name: rank(q, n) for name, q in QUANTILES.items()}
    wanted = sorted({r for r in ranks.values() if r is not None})
    ordered = np.partition(values, wanted) if wanted else values
    found: dict[str, float | None] = {
        name: None if r is None else float(ordered[r]) for name, r in ranks.items()
    }
    found["max"] = float(values.max()) if n else None
    found["mean"] = float(values.mean(dtype=np.float64)) if n else None
    return found


@dataclass(frozen=True)
class Requests:
    """Every request in narrow columns; times in ms, NaN where there is none."""

    second: npt.NDArray[np.int32]
    """Seconds since run-start in which it was intended."""
    response: npt.NDArray[np.float32]
    service: npt.NDArray[np.float32]
    lag: npt.NDArray[np.float32]
    kind: npt.NDArray[np.int16]
    """Index into ``kinds``."""
    state: npt.NDArray[np.int8]
    kinds: tuple[tuple[str, str | None], ...]
    """(name, endpoint)"""
    errors: dict[str, int]

    def __len__(self) -> int:
        return len(self.second)

    @property
    def whole(self) -> npt.NDArray[np.bool_]:
        """Which rows are requests of the application, and not parts of one."""
        parts = [number for number, (_, endpoint) in enumerate(self.kinds) if nested(endpoint or "")]
        return ~np.isin(self.kind, parts)


def read_requests(record: RecordReader, start: int) -> Requests:
    """All requests of a record; ``start`` is run-start in ns."""
    kinds: dict[tuple[str, str | None], int] = {}
    errors: Counter[str] = Counter()
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    for batch in record.batches("requests", COLUMNS):
        intended, started, done = (integers(_chunk(batch[name])) for name in ("intended", "started", "done"))
        name, endpoint, outcome = (text(batch[column]) for column in ("name", "endpoint", "outcome"))
        ok = outcome.equals("ok") & (done >= 0) & (started >= 0)
        dropped = outcome.equals("dropped") | (started < 0)
        state = np.where(ok, OK, np.where(dropped, DROPPED, ERROR)).astype(np.int8)
        for code, count in zip(*np.unique(outcome.codes[state == ERROR], return_counts=True), strict=True):
            errors[outcome.words[code] if code >= 0 else "no outcome"] += int(count)
        width = len(endpoint.words) + 1
        pair = name.codes.astype(np.int64) * width + endpoint.codes + 1
        kind = np.empty(len(pair), dtype=np.int16)
        for value in np.unique(pair):
            n, e = divmod(int(value), width)
            key = (name.words[n] if n >= 0 else "?", endpoint.words[e - 1] if e else None)
            kind[pair == value] = kinds.setdefault(key, len(kinds))
        ran = done >= 0
        parts.append(
            (
                ((intended - start) // NS).astype(np.int32),
                _ms(done - intended, ran),
                _ms(done - started, ran & (started >= 0)),
                _ms(started - intended, started >= 0),
                kind,
                state,
            )
        )
    kinds_of: tuple[npt.DTypeLike, ...] = (np.int32, np.float32, np.float32, np.float32, np.int16, np.int8)
    columns: list[Any] = []
    for i, kind_of in enumerate(kinds_of):
        columns.append(np.concatenate([part[i] for part in parts]) if parts else np.zeros(0, dtype=kind_of))
    fields: list[Any] = [*columns, tuple(kinds), dict(errors.most_common())]
    return Requests(*fields)


def _chunk(array: Any) -> Any:
    import pyarrow as pa

    return pa.chunked_array([array])


def _ms(ns: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    return np.where(known, ns / 1e6, np.nan).astype(np.float32)


def load(requests: Requests, steady: Sequence[tuple[int, int]], duration_s: float) -> Load:
    """The load's account. ``steady``: [from, to) in whole seconds since run-start."""
    if not len(requests):
        return Load()
    inside = np.zeros(len(requests), dtype=np.bool_)
    for begin, end in steady:
        inside |= (requests.second >= begin) & (requests.second < end)
    each = np.ones(len(requests), dtype=np.bool_)
    steady_s = float(sum(end - begin for begin, end in steady))
    loaded_s = float(min(duration_s, int(requests.second.max()) - int(requests.second.min()) + 1))
    everything = requests.whole
    return Load(
        seconds=by_second(requests),
        all=latency(requests, everything, "all", None, loaded_s),
        steady=latency(requests, inside & everything, "all", None, steady_s) if steady_s else None,
        by_name=_by_name(requests, each, loaded_s),
        steady_by_name=_by_name(requests, inside, steady_s) if steady_s else (),
        errors=requests.errors,
    )


def _by_name(requests: Requests, among: npt.NDArray[np.bool_], seconds: float) -> tuple[Latency, ...]:
    rows = [
        latency(requests, among & (requests.kind == i), name, endpoint, seconds)
        for i, (name, endpoint) in enumerate(requests.kinds)
    ]
    return tuple(sorted(rows, key=lambda row: (row.name, row.endpoint or "")))


def latency(
    requests: Requests, rows: npt.NDArray[np.bool_], name: str, endpoint: str | None, seconds: float
) -> Latency:
    """Percentiles of some rows; ``seconds`` is the stretch over which they came."""
    state = requests.state[rows]
    ok = state == OK
    lag = requests.lag[rows]
    return Latency(
        name=name,
        endpoint=endpoint,
        count=len(state),
        ok=int(ok.sum()),
        errors=int((state == ERROR).sum()),
        dropped=int((state == DROPPED).sum()),
        rate=int(ok.sum()) / seconds if seconds > 0 else None,
        response=summary(requests.response[rows][ok]),
        service=summary(requests.service[rows][ok]),
        lag=summary(lag[~np.isnan(lag)]),
    )


def by_second(requests: Requests) -> Seconds:
    """Second by second, from the first to the last that any request was intended in."""
    low, high = int(requests.second.min()), int(requests.second.max())
    size = high - low + 1
    at, whole = requests.second - low, requests.whole
    counts = {
        state: np.bincount(at[whole & (requests.state == state)], minlength=size)
        for state in (OK, ERROR, DROPPED)
    }
    ok = whole & (requests.state == OK)
    # One sort by (second, response in µs) instead of one a second. 2^40 µs are 12 days.
    micros = np.clip(requests.response[ok].astype(np.float64) * 1000, 0, 2.0**40 - 1).astype(np.int64)
    key = (at[ok].astype(np.int64) << 40) | micros
    key.sort()
    ends = np.cumsum(counts[OK])
    columns: dict[str, list[float | None]] = {name: [] for name in ("p50", "p95", "p99", "longest")}
    for end, n in zip(ends.tolist(), counts[OK].tolist(), strict=True):
        begin = end - n
        for name in ("p50", "p95", "p99"):
            where = rank(QUANTILES[name], n)
            columns[name].append(None if where is None else _value(key[begin + where]))
        columns["longest"].append(_value(key[end - 1]) if n else None)
    shapes: Mapping[str, Any] = {name: tuple(values) for name, values in columns.items()}
    return Seconds(
        t=tuple(float(low + i) for i in range(size)),
        ok=tuple(counts[OK].tolist()),
        errors=tuple(counts[ERROR].tolist()),
        dropped=tuple(counts[DROPPED].tolist()),
        **shapes,
    )


def _value(key: Any) -> float:
    return (int(key) & ((1 << 40) - 1)) / 1000
