"""WAL that the primary keeps back for a replication slot, greatest in the worst trial.

Sampled on whoever leads, about once a second: position of its WAL − ``restart_lsn`` of each slot. Looked at
from the fault's effect to the end of the window. A slot whose consumer follows keeps back little; one whose
consumer has gone (a standby that is down, a slot that nobody drops) keeps back all that is written from then
on. Its growth is that over the same samples.
"""

from __future__ import annotations

import numpy as np

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis.metrics import Metrics, Series
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import no_valid_trial, nothing, of_trials, windows
from reports.findings import Finding

METRIC = "wal.retained"
SOURCE = "pg_slot_retained_bytes"


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    if (empty := no_valid_trial(analysis, METRIC, "B", ledger=True)) is not None:
        return [empty]
    slots = Metrics(record).find(SOURCE)
    if not slots:
        return [nothing(METRIC, "B", "not run", "no replication slot was sampled")]
    worst = []
    for begin, end in windows(analysis, record):
        seen = [part for slot in slots if len((part := slot.within(begin, end)).t)]
        if seen:
            worst.append(max(seen, key=lambda part: float(part.value.max())))
    if not worst:
        return [nothing(METRIC, "B", "not run", "no replication slot was sampled during a fault")]
    most = max(worst, key=lambda part: float(part.value.max()))
    rate = growth(most)
    told = f"slot {most.label} on {most.node}"
    if rate is not None:
        told += f", growing by {rate / 1e6:.3f} MB/s"
    return [
        of_trials(
            METRIC,
            "B",
            [float(part.value.max()) for part in worst],
            evidence=("metrics.parquet", "events.parquet"),
            why=told,
            slot=most.label,
            node=most.node,
            bytes_per_s=rate,
        )
    ]


def growth(series: Series) -> float | None:
    """Bytes per second by a straight line through the samples up to the greatest; None with fewer than 3."""
    last = int(np.argmax(series.value)) + 1
    if last < 3:
        return None
    t = (series.t[:last] - series.t[0]) / NS
    return float(np.polyfit(t, series.value[:last], 1)[0])


CHECK = Check("wal-retained", {METRIC: "B"}, run)
