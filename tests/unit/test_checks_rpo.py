"""What a trial without a loss proves: only a partition of the primary that exposed writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lab.record.schema import TABLES
from reports.analysis import Analysis, analyse
from reports.analysis.faults import kind_of
from reports.findings import Finding, Target
from reports.judge import judge_finding
from tests.exposed import expose
from tests.synthetic import make_record, truth

RPO = Target(
    id="rpo",
    quote="RPO: 0 seconds",
    place="",
    metric="rpo.rows",
    comparison="==",
    limit=0,
    unit="rows",
    min_trials=3,
)


def found(analysis: Analysis) -> Finding:
    finding = analysis.finding("rpo.rows")
    assert finding is not None
    return finding


def verdict(analysis: Analysis) -> str:
    return judge_finding(RPO, found(analysis)).status


def change_events(record: Path, change: Any) -> None:
    """Let ``change(kind, detail)`` edit the detail of every event."""
    rows = pq.read_table(record / "events.parquet").to_pylist()
    for row in rows:
        detail = json.loads(row["detail"]) if row["detail"] else {}
        change(row, detail)
        row["detail"] = json.dumps(detail)
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLES["events"]), record / "events.parquet")


def silence(record: Path, trials: tuple[int, ...]) -> None:
    """Take away every write that was sent between the effect and the promotion of some trials."""
    table = pq.read_table(record / "writes.parquet")
    for one in truth(record).trials:
        if one.trial in trials:
            assert one.promoted is not None
            inside = pc.and_(
                pc.greater_equal(table["sent"], one.effect), pc.less(table["sent"], one.promoted)
            )
            table = table.filter(pc.invert(inside))
    pq.write_table(table, record / "writes.parquet")


@pytest.mark.parametrize(
    ("name", "told", "kind"),
    [
        ("kill-node", None, "kill"),
        ("kill-postmaster", None, "kill"),
        ("isolate-from-peers", None, "partition"),
        ("cut-etcd", None, "partition"),
        ("pause-node", None, "pause"),
        ("none", None, "none"),
        ("kill-node", "partition", "partition"),
        ("something", "pause", "pause"),
        ("", None, "unknown"),
    ],
)
def test_the_kind_is_told_or_follows_from_the_name(name: str, told: str | None, kind: str) -> None:
    assert kind_of(name, told) == kind


@pytest.mark.parametrize("fault", ["kill-node", "kill-postmaster", "pause-node", "none"])
def test_no_loss_after_anything_but_a_partition_is_inconclusive(tmp_path: Path, fault: str) -> None:
    analysis = analyse(make_record(tmp_path / "run", fault=fault))
    assert verdict(analysis) == "inconclusive"
    assert "it takes a partition" in found(analysis).why
    assert analysis.finding("ledger.lost").status == "inconclusive"  # type: ignore[union-attr]
    assert analysis.finding("rpo.seconds").status == "inconclusive"  # type: ignore[union-attr]


def test_no_loss_in_a_partition_of_the_primary_is_met(tmp_path: Path) -> None:
    analysis = analyse(expose(make_record(tmp_path / "run", fault="isolate-primary")))
    assert verdict(analysis) == "met"
    assert found(analysis).detail["exposed"] > 1000
    assert [t.exposure.proof for t in analysis.trials] == ["proves"] * 3


@pytest.mark.parametrize("missing", ["reached", "unreplicated"])
def test_a_primary_that_could_not_lose_anything_proves_nothing(tmp_path: Path, missing: str) -> None:
    """Clients had lost it too (as by ``isolate``), or it still replicated (as by ``cut-from-etcd``)."""
    record = make_record(tmp_path / "run", fault="isolate-primary")
    expose(record, reached=missing != "reached", unreplicated=missing != "unreplicated")
    analysis = analyse(record)
    assert all(t.exposure.took_over and t.exposure.attempted for t in analysis.trials)
    assert [t.exposure.proof for t in analysis.trials] == ["no proof"] * 3
    assert verdict(analysis) == "inconclusive"
    words = {"reached": "clients had lost the old primary", "unreplicated": "had all that the old one wrote"}
    assert words[missing] in found(analysis).why


def test_the_record_s_word_on_the_kind_counts(tmp_path: Path) -> None:
    record = expose(make_record(tmp_path / "run"))

    def tell(row: dict[str, Any], detail: dict[str, Any]) -> None:
        if row["kind"] == "fault-begin":
            detail["kind"] = "partition"

    change_events(record, tell)
    assert verdict(analyse(record)) == "met"


@pytest.mark.parametrize("fault", ["kill-node", "isolate-primary", "pause-node"])
def test_lost_writes_are_not_met_whatever_the_fault(tmp_path: Path, fault: str) -> None:
    analysis = analyse(make_record(tmp_path / "run", fault=fault, lost=(0, 84, 0)))
    assert verdict(analysis) == "not met"
    assert found(analysis).value == 84


def test_a_partition_that_exposed_nothing_is_invalid(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", fault="isolate-primary")
    silence(record, (1, 2, 3))
    analysis = analyse(record)
    assert [t.exposure.proof for t in analysis.trials] == ["vacuous"] * 3
    assert verdict(analysis) == "invalid"
    assert found(analysis).value is None
    assert "exposed no write" in found(analysis).why


def test_a_vacuous_trial_is_left_out_and_two_are_too_few(tmp_path: Path) -> None:
    record = expose(make_record(tmp_path / "run", fault="isolate-primary"))
    silence(record, (2,))
    analysis = analyse(record)
    assert verdict(analysis) == "inconclusive"
    assert found(analysis).detail["trials"] == 2
    assert "trial 2" in found(analysis).why


def test_a_loss_in_a_vacuous_trial_is_a_loss(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", fault="isolate-primary", lost=(0, 3, 0))
    silence(record, (2,))
    assert verdict(analyse(record)) == "not met"


def test_a_partition_of_another_node_proves_nothing(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", fault="isolate-node")

    def elsewhere(row: dict[str, Any], detail: dict[str, Any]) -> None:
        if row["kind"] in ("fault-begin", "fault-effect"):
            row["node"] = "pg3"
        if row["kind"] == "fault-begin":
            detail["resolved"] = "pg3"

    change_events(record, elsewhere)
    analysis = analyse(record)
    assert verdict(analysis) == "inconclusive"
    assert "did not cut off the primary" in found(analysis).why


def test_a_partition_after_which_nobody_took_over_proves_nothing(tmp_path: Path) -> None:
    analysis = analyse(make_record(tmp_path / "run", fault="isolate-primary", outage_s=(None,)))
    assert verdict(analysis) == "inconclusive"
    assert "no other node took over" in found(analysis).why


def test_a_kill_that_follows_a_partition_of_the_primary_leaves_its_proof(tmp_path: Path) -> None:
    record = expose(make_record(tmp_path / "run", fault="isolate-primary"))
    rows = pq.read_table(record / "events.parquet").to_pylist()
    for one in truth(record).trials:
        for kind, at in (("fault-begin", 2), ("fault-effect", 3)):
            rows.append(
                {
                    "t": one.effect + at * 1_000_000_000,
                    "kind": kind,
                    "trial": one.trial,
                    "node": one.old_primary,
                    "source": "runner",
                    "uncertainty": 0,
                    "detail": json.dumps({"fault": "kill-node", "kind": "kill"}),
                }
            )
    rows.sort(key=lambda row: row["t"])
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLES["events"]), record / "events.parquet")
    analysis = analyse(record)
    assert analysis.trials[0].exposure.kinds == ("partition", "kill")
    assert [f.effect_s is not None for f in analysis.trials[0].faults] == [True, True]
    assert verdict(analysis) == "met"
