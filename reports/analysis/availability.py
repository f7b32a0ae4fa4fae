"""How much of the whole run the service was there, and how long it was away at the longest.

Words, for the writes (or reads) of the probe that were intended from the beginning of the steady state to the
end of the load:

- *good* and *bad* are those of the RTO (``rto.py``): answered well within T of the intended moment, or not.
  An operation that never came back and was intended less than T before the end is left out.
- *availability* = good ÷ all. The probe's schedule is even, so it weighs all time alike. *bad seconds* are
  seconds of the run in which at least one operation was intended that was bad.
- an *outage* is a stretch of consecutive operations, by intended moment, none of which was good: from the
  intended moment of its first to the earliest completion among the good ones that follow it directly. So the
  *longest outage* is the longest time in which nobody at all was served; the RTO, which asks when the
  last client was served for good, is never shorter for a single fault.
"""

from __future__ import annotations

import numpy as np

from lab.record.schema import NS
from reports.analysis.columns import MISSING
from reports.analysis.model import Service
from reports.analysis.rto import Operations


def service(ops: Operations, start: int, end: int, slow_ns: int, since: int) -> Service | None:
    """The account of one kind of operation in [start, end), ns; None where there were none.

    Args:
        since: the run's start, ns: what ``longest_at_s`` counts from.
    """
    cut_off = (ops.done == MISSING) & (ops.intended > end - slow_ns)
    ops = ops.take((ops.intended >= start) & (ops.intended < end) & ~cut_off)
    if not len(ops.intended):
        return None
    ops = ops.take(np.argsort(ops.intended, kind="stable"))
    bad = ops.bad(slow_ns)
    seconds = (ops.intended - start) // NS
    longest, at, ended = 0.0, None, True
    edges = np.flatnonzero(np.diff(np.r_[False, bad, False].astype(np.int8)))
    starts, stops = edges[::2], edges[1::2]
    for k, (first, stop) in enumerate(zip(starts, stops, strict=True)):
        until = int(starts[k + 1]) if k + 1 < len(starts) else len(bad)
        open_ended = stop == len(bad)
        over = end if open_ended else int(ops.done[stop:until].min())
        length = (over - int(ops.intended[first])) / NS
        if length > longest:
            longest, at, ended = length, (int(ops.intended[first]) - since) / NS, not open_ended
    return Service(
        operations=len(bad),
        good=int((~bad).sum()),
        seconds=len(np.unique(seconds)),
        bad_seconds=len(np.unique(seconds[bad])),
        longest_s=longest,
        longest_at_s=at,
        longest_ended=ended,
    )
