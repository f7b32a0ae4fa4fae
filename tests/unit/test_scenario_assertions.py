"""What a story asserts, and what of a story that was cut short or never begun, as the record tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.record.reader import RecordReader
from lab.record.schema import NS, TABLES
from reports.analysis import analyse
from reports.findings import Finding
from tests.synthetic import make_record

BEFORE, OUTAGE = (-6, -1), (-1, 5)
"""Seconds around the fault's effect: nothing fails; writes fail."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_record(tmp_path / "run", trials=3, seconds=10, window_s=35, request_rate=20)


def effect(path: Path, trial: int) -> int:
    found = [e for e in RecordReader(path).events() if e["kind"] == "fault-effect" and e["trial"] == trial]
    return int(found[0]["t"])


def add(path: Path, *events: tuple[int, str, int, dict[str, Any]], **changed: dict[str, Any]) -> None:
    """Add events (t, kind, trial, detail) to a record; ``fault_begin=…`` is added to that kind's details."""
    table = pq.read_table(path / "events.parquet")
    rows = table.to_pylist()
    for row in rows:
        more = changed.get(str(row["kind"]).replace("-", "_"))
        if more:
            row["detail"] = json.dumps({**json.loads(row["detail"] or "{}"), **more})
    for t, kind, trial, detail in events:
        rows.append({"t": t, "kind": kind, "trial": trial, "node": None, "source": "runner",
                     "uncertainty": 1000, "detail": json.dumps(detail)})  # fmt: skip
    rows.sort(key=lambda row: row["t"])
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLES["events"]), path / "events.parquet")


def asserts(
    path: Path, condition: str, span: tuple[float, float], *, held: bool | None = True, why: str = ""
) -> None:
    """Every trial asserts something from one moment to another, in seconds around its fault's effect."""
    for trial in (1, 2, 3):
        zero = effect(path, trial)
        begin, end = (zero + round(moment * NS) for moment in span)
        said = {"step": 1, "condition": condition}
        add(
            path,
            (begin, "assert-begin", trial, {**said, "throughout": span[1] - span[0]}),
            (end, "assert-end", trial, {**said, "held": held, "why": why, "looks": 30, "gap_s": 0.2}),
        )


def found(path: Path, metric: str = "assertions.held") -> Finding:
    finding = analyse(path).finding(metric)
    assert finding is not None
    return finding


def test_nothing_asserted_is_not_run(path: Path) -> None:
    assert found(path).status == "not run"


def test_what_held_is_held_in_every_trial(path: Path) -> None:
    asserts(path, "writes healthy", BEFORE)
    finding = found(path)
    assert (finding.value, finding.samples, finding.status) == (100.0, (100.0,) * 3, None)
    assert finding.detail["trials"] == 3


def test_what_the_runner_saw_broken_is_broken(path: Path) -> None:
    asserts(path, "replicas streaming", BEFORE)
    zero = effect(path, 2)
    add(path, (zero - 3 * NS, "assert-failed", 2, {"step": 1, "why": "pg4 does not stream"}))
    finding = found(path)
    assert (finding.value, finding.samples) == (0.0, (100.0, 0.0, 100.0))
    assert "trial 2, step 1, replicas streaming: pg4 does not stream" in finding.why


def test_the_ledger_knows_better_than_the_runner(path: Path) -> None:
    asserts(path, "writes healthy", OUTAGE)
    finding = found(path)
    assert finding.value == 0.0
    assert "writes failed, are unknown or were slow" in finding.why


def test_etcd_knows_better_than_the_runner(path: Path) -> None:
    asserts(path, "leader unchanged", BEFORE)
    assert found(path).value == 100.0
    asserts(path, "leader unchanged", (-1, 30))
    finding = found(path)
    assert finding.value == 0.0
    assert "pg1 → pg2" in finding.why


@pytest.mark.parametrize("held", [None])
def test_too_few_looks_are_inconclusive(path: Path, held: bool | None) -> None:
    asserts(path, "synchronous", BEFORE, held=held, why="it was not looked at for 7.0 s")
    finding = found(path)
    assert (finding.value, finding.status) == (None, "inconclusive")
    assert "not looked at" in finding.why


def test_an_assertion_without_an_end_is_inconclusive(path: Path) -> None:
    add(path, (effect(path, 1), "assert-begin", 1, {"step": 1, "condition": "synchronous"}))
    finding = found(path)
    assert finding.status == "inconclusive"
    assert "cut short" in finding.why


def test_a_step_that_did_not_come_about_leaves_outages_open(path: Path) -> None:
    assert found(path, "rto.write").status is None
    why = "leader changed: not within 7 s"
    add(path, (effect(path, 2) + NS, "step-failed", 2, {"step": 3, "why": why}))
    finding = found(path, "rto.write")
    assert finding.status == "inconclusive"
    assert "trial 2: step 3 did not come about: leader changed" in finding.why
    # A loss that was seen stays one, and so does what the load saw.
    assert found(path, "ledger.phantom").status == found(path, "query.mean").status is None


def test_a_fault_that_moves_no_leader_explains_no_new_one(path: Path) -> None:
    assert found(path, "rto.write").status is None
    add(path, fault_begin={"moves_leader": "maybe"})
    assert found(path, "rto.write").status is None
    add(path, fault_begin={"moves_leader": "no"})
    finding = found(path, "rto.write")
    assert finding.status == "invalid"
    assert "the leader" in finding.why


def test_a_scenario_that_was_not_run_says_why_of_everything(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["not_run"] = "step 1: slow-link: the kernel has no netem"
    (path / "manifest.json").write_text(json.dumps(manifest))
    findings = analyse(path).findings
    assert {finding.status for finding in findings} == {"not run"}
    assert {finding.why for finding in findings} == {"step 1: slow-link: the kernel has no netem"}


def test_healing_after_the_recovery_leaves_failover_automatic(path: Path) -> None:
    assert found(path, "failover.automatic").value == 100.0
    zero = effect(path, 1)
    add(path, (zero + 30 * NS, "heal-begin", 1, {"step": 1}))
    assert found(path, "failover.automatic").value == 100.0
    add(path, (zero + 10 * NS, "heal-begin", 1, {"step": 1}))
    finding = found(path, "failover.automatic")
    assert finding.status == "invalid"
    assert "trial 1" in finding.why
