"""WAL kept back for a replication slot, against growth that was put in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.record.schema import NS, TABLES
from lab.record.segments import rows_to_batch
from reports.analysis import analyse
from reports.findings import Finding
from tests.synthetic import make_record, truth


def found(path: Path) -> Finding:
    finding = analyse(path).finding("wal.retained")
    assert finding is not None
    return finding


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return make_record(tmp_path / "run", trials=1, outage_s=(None,), seconds=5, window_s=30.0)


def test_slots_that_are_consumed_keep_little(record: Path) -> None:
    finding = found(record)
    assert (finding.value, finding.status) == (20_000, None)


def test_an_abandoned_slot_grows_with_the_wal(record: Path) -> None:
    trial = truth(record).trials[0]
    t = np.arange(trial.effect, trial.end, NS)
    rows = [
        {"t": int(at), "node": "pg1", "metric": "pg_slot_retained_bytes", "label": "lab_abandoned",
         "value": 50_000.0 * (int(at) - trial.effect) / NS} for at in t
    ]  # fmt: skip
    file = record / "metrics.parquet"
    schema = pq.read_schema(file)
    more = pa.Table.from_batches([rows_to_batch(rows, TABLES["metrics"])]).cast(schema)
    pq.write_table(pa.concat_tables([pq.read_table(file).cast(schema), more]), file)
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
