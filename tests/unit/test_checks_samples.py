"""What samples of the collectors tell of a trial, against what was put in: WAL kept for a slot, the queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.record.schema import NS, TABLES
from lab.record.segments import rows_to_batch
from reports.analysis import analyse
from reports.findings import Finding
from tests.synthetic import make_record, truth


def found(path: Path, metric: str = "wal.retained") -> Finding:
    finding = analyse(path).finding(metric)
    assert finding is not None
    return finding


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return make_record(tmp_path / "run", trials=1, outage_s=(None,), seconds=5, window_s=30.0)


def add(record: Path, node: str, metric: str, label: str, t: Any, value: Any) -> None:
    rows = [
        {"t": int(at), "node": node, "metric": metric, "label": label, "value": float(one)}
        for at, one in zip(t, value, strict=True)
    ]
    file = record / "metrics.parquet"
    schema = pq.read_schema(file)
    more = pa.Table.from_batches([rows_to_batch(rows, TABLES["metrics"])]).cast(schema)
    pq.write_table(pa.concat_tables([pq.read_table(file).cast(schema), more]), file)


def test_slots_that_are_consumed_keep_little(record: Path) -> None:
    finding = found(record)
    assert (finding.value, finding.status) == (20_000, None)


def test_an_abandoned_slot_grows_with_the_wal(record: Path) -> None:
    trial = truth(record).trials[0]
    t = np.arange(trial.effect, trial.end, NS)
    value = 50_000.0 * (t - trial.effect) / NS
    add(record, "pg1", "pg_slot_retained_bytes", "lab_abandoned", t, value)
    finding = found(record)
    # To the end of the window, and no further.
    assert finding.value == pytest.approx(50_000 * 30, abs=60_000)
    assert finding.detail["bytes_per_s"] == pytest.approx(50_000, rel=1e-6)
    assert (finding.detail["slot"], finding.detail["node"]) == ("lab_abandoned", "pg1")


def test_a_record_without_samples_of_slots_says_so(record: Path) -> None:
    file = record / "metrics.parquet"
    table = pq.read_table(file)
    rows = [name != "pg_slot_retained_bytes" for name in table["metric"].to_pylist()]
    pq.write_table(table.filter(pa.array(rows)), file)
    finding = found(record)
    assert (finding.value, finding.status) == (None, "not run")


def test_the_queue_of_clients_at_the_poolers(record: Path) -> None:
    before = found(record, "pool.queue").value or 0.0
    trial = truth(record).trials[0]
    t = np.arange(trial.effect, trial.end, NS)
    # 200 wait for ten seconds in one pool, 71 in another; then nobody.
    for label, waiting in (("a/x", 200.0), ("a/y", 71.0)):
        add(
            record,
            "pool-session",
            "pgb_cl_waiting",
            label,
            t,
            np.where(t < trial.effect + 10 * NS, waiting, 0),
        )
    finding = found(record, "pool.queue")
    assert finding.value == pytest.approx(271 + before, abs=before)
    assert finding.status is None


def test_a_queue_that_goes_is_dated(record: Path) -> None:
    file = record / "metrics.parquet"
    table = pq.read_table(file)
    others = [name != "pgb_cl_waiting" for name in table["metric"].to_pylist()]
    pq.write_table(table.filter(pa.array(others)), file)
    assert found(record, "pool.queue").status == "not run"
    trial = truth(record).trials[0]
    t = np.arange(trial.effect, trial.end, NS)
    add(record, "pool-session", "pgb_cl_waiting", "a/x", t, np.where(t < trial.effect + 10 * NS, 5, 0))
    finding = found(record, "pool.queue")
    assert (finding.value, finding.detail["gone_s"]) == (5, [pytest.approx(10, abs=0.1)])
