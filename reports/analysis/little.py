"""Little's law as a gate on the load: L = X · R (Little 1961). The only place where it is reckoned.

- *L*: mean number of requests under way. The generator counts them as they begin and end, apart from its
  record of requests, and writes the integral over time (``load_in_flight_seconds``) every half second.
- *X*: requests that ended per second. *R*: the time that requests spent between the boundaries ÷ those that
  ended. Both are from the record of requests, failed ones too, over identical boundaries: the first and the
  last of the generator's counts in the window. A request that reaches over a boundary counts with its part
  inside, so that the law holds in a short window too, and what is off is the measurement.
- *off* = |L − X·R| ÷ L. Beyond 5 % something is wrong (requests missing from the record, or wrong times), and
  what the load found is invalid.

Told from 100 requests on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lab.record.reader import RecordReader
from lab.record.schema import NS
from loadtests.format import nested
from reports.analysis.columns import Ints, integers, text
from reports.analysis.metrics import Metrics, Series
from reports.analysis.model import Little

BOUND = 0.05
LEAST = 100
COLUMNS = ("started", "done", "endpoint", "worker")


def little(record: RecordReader, metrics: Metrics, steady: tuple[int, int] | None) -> Little | None:
    """None where the generator did not count, or where there are too few requests."""
    if steady is None:
        return None
    windows: dict[int, tuple[int, int, float]] = {}
    for series in metrics.find("load_in_flight_seconds"):
        counted = under_way([series], *steady)
        if counted is not None and series.label is not None and series.label.isdigit():
            windows[int(series.label)] = counted
    if not windows:
        return None
    count, spent = 0, 0.0
    for batch in record.batches("requests", COLUMNS):
        started, done, worker = (integers(_chunk(batch[name])) for name in ("started", "done", "worker"))
        endpoint = text(batch["endpoint"])
        parts = [number for number, word in enumerate(endpoint.words) if nested(word)]
        ran = (started >= 0) & (done >= 0) & ~np.isin(endpoint.codes, parts)
        for number, (begin, end, _) in windows.items():
            rows = ran & (worker == number)
            ended, seconds = residence(started[rows], done[rows], begin, end)
            count, spent = count + ended, spent + seconds
    if count < LEAST:
        return None
    # Workers' windows differ by less than a sample: each worker's L and X·R are over its own.
    rates = {number: NS / (end - begin) for number, (begin, end, _) in windows.items()}
    seconds = sum(1 / rate for rate in rates.values()) / len(rates)
    in_flight = sum(area * rates[number] for number, (_, _, area) in windows.items())
    return law(in_flight, count / seconds, spent / count)


def under_way(counts: Sequence[Series], begin: int, end: int) -> tuple[int, int, float] | None:
    """(first, last count in [begin, end), request-seconds between them) of one generator process.

    None with fewer than two counts. Times in ns.
    """
    for series in counts:
        inside = series.within(begin, end)
        if len(inside.t) >= 2:
            return int(inside.t[0]), int(inside.t[-1]), float(inside.value[-1] - inside.value[0])
    return None


def residence(started: Ints, done: Ints, begin: int, end: int) -> tuple[int, float]:
    """(requests that ended in [begin, end), seconds that all requests spent in it). Times in ns."""
    inside = np.minimum(done, end) - np.maximum(started, begin)
    ended = (done >= begin) & (done < end)
    return int(ended.sum()), float(inside[inside > 0].sum()) / NS


def law(in_flight: float, rate: float, response_s: float) -> Little:
    """Hold L against X · R. ``rate`` is in requests a second, ``response_s`` in seconds."""
    product = rate * response_s
    off = abs(in_flight - product) / in_flight if in_flight > 0 else float(product > 0)
    return Little(in_flight=in_flight, rate=rate, service_s=response_s, off=off, holds=off <= BOUND)


def _chunk(array: object) -> object:
    import pyarrow as pa

    return pa.chunked_array([array])
