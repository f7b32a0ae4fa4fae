"""The fork of the timeline: WAL and acknowledgements that only the old primary had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.record.schema import NS, TABLES
from reports.analysis import Analysis, analyse
from reports.analysis.fork import lsn, parse_evidence
from reports.findings import Finding
from tests.synthetic import make_record, truth


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return analyse(make_record(tmp_path_factory.mktemp("fork") / "run", seconds=5))


def get(analysis: Analysis, metric: str) -> Finding:
    finding = analysis.finding(metric)
    assert finding is not None
    return finding


def late_acknowledgements(record: Path, trial: int, count: int) -> None:
    """Let the old primary acknowledge writes from 1 s after the new one accepted them, one every 10 ms."""
    one = truth(record).trials[trial - 1]
    assert one.promoted is not None
    rows = pq.read_table(record / "writes.parquet").to_pylist()
    changed = 0
    for row in rows:
        if row["sent"] and row["sent"] >= one.promoted + NS and changed < count:
            row.update(outcome="acknowledged", server=one.old_primary, done=row["sent"] + 5_000_000)
            changed += 1
    assert changed == count
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLES["writes"]), record / "writes.parquet")


def keep(record: Path, node: str, text: str) -> None:
    folder = record / "evidence"
    folder.mkdir(exist_ok=True)
    (folder / f"{node}-20261121T035347.451Z.txt").write_text(text)


def test_a_position_in_the_wal() -> None:
    assert lsn("16/B374D848") == 0x16B374D848
    assert lsn("") is None
    assert lsn("x/y") is None


def test_evidence_is_read_and_may_be_incomplete() -> None:
    told = parse_evidence({"evidence/pg1-2026.txt": "timeline=3\nfork_lsn=0/5000000\nend_lsn=0/5000100\n"})
    assert told == [
        {
            "file": "evidence/pg1-2026.txt",
            "node": "pg1",
            "timeline": 3,
            "fork_lsn": 0x5000000,
            "end_lsn": 0x5000100,
        }
    ]
    assert parse_evidence({"evidence/pg1-2026.txt": "timeline=\n"})[0]["timeline"] is None


def test_a_failover_without_a_loss(found: Analysis) -> None:
    assert [t.fork.old for t in found.trials if t.fork] == ["pg1", "pg2", "pg1"]
    assert get(found, "fork.acknowledged").value == 0
    assert get(found, "split_brain.acknowledged").value == 0
    assert "from samples" in get(found, "rpo.wal_bytes").why


def test_lost_acknowledgements_are_on_the_losing_timeline(tmp_path: Path) -> None:
    analysis = analyse(make_record(tmp_path / "run", lost=(0, 12, 0), seconds=5))
    assert get(analysis, "fork.acknowledged").samples == (0, 12, 0)
    assert get(analysis, "split_brain.acknowledged").value == 0
    blind = analyse(make_record(tmp_path / "blind", trials=1, caught_up=False, seconds=5))
    assert get(blind, "fork.acknowledged").status == "invalid"


def test_acknowledgements_by_the_old_primary_after_the_new_one_accepted(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=5)
    late_acknowledgements(record, 1, 7)
    analysis = analyse(record)
    finding = get(analysis, "split_brain.acknowledged")
    assert finding.value == 7
    assert "7 by pg1" in finding.why
    fork = analysis.trials[0].fork
    assert fork is not None
    assert 1.0 < fork.dual_s < 1.3
    assert fork.losing >= 7


def test_the_wal_that_was_kept_counts_more_than_samples(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=5)
    keep(record, "pg1", "timeline=1\nfork_lsn=0/5000000\nend_lsn=0/50000A0\nbeyond_bytes=160\n")
    finding = get(analyse(record), "rpo.wal_bytes")
    assert finding.value == 160
    assert finding.evidence[0] == "evidence/pg1-20261121T035347.451Z.txt"
    assert finding.why == ""
    # Of another timeline, of another node, or without an end it says nothing about this fork.
    for node, text in (
        ("pg1", "timeline=9\nfork_lsn=0/5000000\nend_lsn=0/50000A0\n"),
        ("pg1", "timeline=1\nfork_lsn=0/5000000\n"),
        ("pg3", "timeline=1\nfork_lsn=0/5000000\nend_lsn=0/50000A0\n"),
    ):
        (record / "evidence" / "pg1-20261121T035347.451Z.txt").unlink(missing_ok=True)
        keep(record, node, text)
        assert get(analyse(record), "rpo.wal_bytes").value != 160


def test_without_a_failover_there_is_no_fork(tmp_path: Path) -> None:
    analysis = analyse(make_record(tmp_path / "run", outage_s=(None,), seconds=5))
    for metric in ("rpo.wal_bytes", "fork.acknowledged", "split_brain.acknowledged"):
        assert get(analysis, metric).status == "not run"


def test_a_new_primary_that_was_not_watched_leaves_it_open(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=5)
    one = truth(record).trials[0]

    rows = pq.read_table(record / "nodes.parquet").to_pylist()
    kept: list[dict[str, Any]] = [
        row for row in rows if not (row["node"] == one.new_primary and row["t_sent"] > one.effect)
    ]
    pq.write_table(pa.Table.from_pylist(kept, schema=TABLES["nodes"]), record / "nodes.parquet")
    assert get(analyse(record), "split_brain.acknowledged").status == "inconclusive"
