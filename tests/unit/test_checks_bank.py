"""The bank's invariant: wrong sums count, and silence is no proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.record.schema import TABLES
from loadtests.workloads import list_workloads
from reports.analysis import analyse
from reports.checks.bank import LOOKS, TRANSFER
from reports.findings import Finding
from tests.synthetic import PG, make_record

RIGHT: dict[str, Any] = {node: [100_000, "100000"] for node in PG}
NAMES = [TRANSFER, TRANSFER, TRANSFER, *LOOKS]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A record of the bank, in which all went well."""
    record = make_record(tmp_path / "run", trials=1, seconds=3, requests=500)
    manifest = json.loads((record / "manifest.json").read_text())
    manifest["load"]["workload"] = "bank"
    (record / "manifest.json").write_text(json.dumps(manifest))
    edit(record, lambda i, row: row.update(name=NAMES[i % len(NAMES)], outcome="ok"))
    end(record, RIGHT)
    return record


def edit(record: Path, change: Any) -> None:
    rows = pq.read_table(record / "requests.parquet").to_pylist()
    for i, row in enumerate(rows):
        change(i, row)
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLES["requests"]), record / "requests.parquet")


def end(record: Path, banks: dict[str, Any]) -> None:
    told = {
        node: {"lsn": 1, "tables": {}, "skipped": [], "why": "", "bank": bank} for node, bank in banks.items()
    }
    (record / "audit" / "checksums.json").write_text(json.dumps(told))


def look(record: Path) -> Finding:
    finding = analyse(record).finding("bank.total")
    assert finding is not None
    return finding


def test_the_invariant_holds(record: Path) -> None:
    found = look(record)
    assert (found.value, found.status) == (0, None)
    assert found.detail["transfers"] == 300


def test_a_wrong_sum_that_a_reader_saw_counts(record: Path) -> None:
    def wrong(i: int, row: dict[str, Any]) -> None:
        if row["name"] == LOOKS[1] and i < 10:
            row["outcome"] = "client:WrongTotal"

    edit(record, wrong)
    found = look(record)
    assert found.value == 2
    assert "2 wrong at GET /total (reader)" in found.why


def test_a_wrong_sum_at_the_end_counts_also_on_one_replica(record: Path) -> None:
    end(record, {**RIGHT, "pg4": [100_000, "99990"]})
    found = look(record)
    assert found.value == 1
    assert "pg4 ends with 99990 of 100000" in found.why


@pytest.mark.parametrize("name", [TRANSFER, *LOOKS])
def test_without_transfers_and_sums_nothing_is_proven(record: Path, name: str) -> None:
    edit(record, lambda _, row: row.update(outcome="08006" if row["name"] == name else "ok"))
    assert look(record).status == "inconclusive"


def test_without_the_sum_of_every_node_nothing_is_proven(record: Path) -> None:
    end(record, {**RIGHT, "pg2": None})
    assert look(record).status == "inconclusive"
    (record / "audit" / "checksums.json").unlink()
    assert look(record).status == "inconclusive"


def test_another_workload_says_nothing(tmp_path: Path) -> None:
    assert look(make_record(tmp_path / "run", trials=1, seconds=3)).status == "not run"


def test_the_workload_says_who_it_must_be() -> None:
    found = list_workloads()
    assert found["bank"].user == "lab_probe"
    assert found["bank"].transactions
    assert found["risk-api"].user is None
