"""The queue at the poolers during a fault: most clients that waited at one moment, over all poolers.

Whoever has logged in to PgBouncer and finds no server connection waits there, for ``query_wait_timeout`` at
most. When a primary is reached again, PgBouncer opens one server connection at a time in each pool (database
and user), so that the queue is served as the pools fill by one log-in after another. What that takes depends
on how many wait and on how long a log-in takes, and on no setting; it is the greater part of *reconnect* in
the RTO wherever clients were left waiting. From SHOW POOLS (``cl_waiting``), sampled about once a second: a
queue between two samples is not seen. The worst trial; beside it when the queue had gone, from the effect on.
"""

from __future__ import annotations

import numpy as np

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis.metrics import Metrics, total
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import no_valid_trial, nothing, of_trials, windows
from reports.findings import Finding

METRIC = "pool.queue"
SOURCE = "pgb_cl_waiting"


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    if (empty := no_valid_trial(analysis, METRIC, "1", ledger=True)) is not None:
        return [empty]
    t, waiting = total(Metrics(record).find(SOURCE))
    most: list[float] = []
    gone: list[float | None] = []
    for begin, end in windows(analysis, record):
        inside = (t >= begin) & (t < end)
        if not inside.any():
            continue
        most.append(float(waiting[inside].max()))
        late = np.flatnonzero(inside & (waiting > 0))
        after = t[inside][t[inside] > t[late[-1]]] if len(late) else t[:0]
        gone.append(float(after[0] - begin) / NS if len(after) else None)
    if not most:
        return [nothing(METRIC, "1", "not run", "the poolers' queues were not sampled during a fault")]
    known = [seconds for seconds in gone if seconds is not None]
    why = f"gone {max(known):.1f} s after the fault at the latest" if known and any(most) else ""
    return [
        of_trials(METRIC, "1", most, evidence=("metrics.parquet", "events.parquet"), why=why, gone_s=gone)
    ]


CHECK = Check("queue", {METRIC: "1"}, run)
