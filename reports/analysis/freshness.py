"""What readers were shown: whether it went back, lacked what had been promised, and how old it was.

The reader probe asks for the newest number of the ledger. For the reads that were answered:

- *backwards*: a read that was shown a smaller number than an earlier read of the same session (which had been
  answered before it was sent): monotonic reads are broken. Sessions that read once cannot show it.
- *missing*: a read that was not shown a write that had been acknowledged before the read was sent, and is
  still there: a client that writes here and reads there does not see its own write.
- *staleness*, of a read: sent − the earliest acknowledgement that it should have shown and did not; 0 where
  it missed nothing. Between sessions nothing more is promised than that this stays small.

Writes that were lost are no reason for a read to be stale, so the audit must be complete.
"""

from __future__ import annotations

import numpy as np

from lab.record.schema import NS
from reports.analysis.columns import MISSING, Bools, Floats, Ints, Reads, Writes
from reports.analysis.model import Freshness, ReadsAt


def freshness(writes: Writes, reads: Reads, lost: Bools) -> Freshness:
    """The account of all reads that were answered.

    Args:
        lost: rows of ``writes`` that the audit did not find.
    """
    reads = reads.take(reads.ok & (reads.done != MISSING))
    if not len(reads):
        return Freshness()
    stale = staleness(writes, reads, lost)
    back = backwards(reads)
    return Freshness(
        all=_at("all", reads.ok, stale, back),
        by_endpoint=tuple(
            _at(name, reads.endpoint.equals(name), stale, back)
            for name in sorted(set(reads.endpoint.words))
            if reads.endpoint.equals(name).any()
        ),
        by_server=tuple(
            _at(name, reads.server.equals(name), stale, back)
            for name in sorted(set(reads.server.words))
            if reads.server.equals(name).any()
        ),
        sessions=len(np.unique(reads.session[~reads.fresh])),
    )


def staleness(writes: Writes, reads: Reads, lost: Bools) -> Floats:
    """Seconds by which each read lagged behind what had been acknowledged, 0 where it missed nothing."""
    promised = writes.outcome.equals("acknowledged") & ~lost & (writes.done != MISSING)
    numbers, done = writes.n[promised], writes.done[promised]
    order = np.argsort(numbers, kind="stable")
    numbers, done = numbers[order], done[order]
    # The earliest acknowledgement of any greater number.
    earliest: Ints = np.minimum.accumulate(done[::-1])[::-1] if len(done) else done
    earliest = np.r_[earliest, np.iinfo(np.int64).max]
    missed = earliest[np.searchsorted(numbers, reads.newest, side="right")]
    behind = missed < reads.sent
    return np.where(behind, (reads.sent - np.where(behind, missed, reads.sent)) / NS, 0.0)


def backwards(reads: Reads) -> Bools:
    """Reads that were shown less than an earlier one of the same lasting session."""
    import pandas as pd  # slow to import

    frame = pd.DataFrame(
        {
            "endpoint": reads.endpoint.codes,
            "session": reads.session,
            "opened": reads.opened,
            "sent": reads.sent,
            "newest": reads.newest,
        }
    )
    frame = frame[~reads.fresh].sort_values("sent", kind="stable")
    best = frame.groupby(["endpoint", "session", "opened"], sort=False)["newest"].cummax()
    found = np.zeros(len(reads), dtype=np.bool_)
    found[frame.index[(frame["newest"] < best).to_numpy()].to_numpy()] = True
    return found


def _at(name: str, rows: Bools, stale: Floats, back: Bools) -> ReadsAt:
    lag = stale[rows]
    count = len(lag)
    return ReadsAt(
        name=name,
        reads=count,
        backwards=int(back[rows].sum()),
        missing=int((lag > 0).sum()),
        worst_s=float(lag.max()),
        p99_s=float(np.sort(lag)[int(np.ceil(0.99 * count)) - 1]) if count >= 1000 else None,
    )
