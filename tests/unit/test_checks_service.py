"""Availability, longest outage, redundancy, reconnects, freshness of reads, progress after healing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lab.record.schema import NS, TABLES
from reports.analysis import Analysis, analyse
from reports.analysis.availability import service
from reports.analysis.columns import MISSING
from reports.analysis.rto import Operations
from reports.findings import Finding
from tests.synthetic import make_record, stamp, truth


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_record(tmp_path_factory.mktemp("service") / "run")


@pytest.fixture(scope="module")
def found(record: Path) -> Analysis:
    return analyse(record)


def get(analysis: Analysis, metric: str) -> Finding:
    finding = analysis.finding(metric)
    assert finding is not None
    return finding


def edit(record: Path, table: str, change: Any) -> None:
    rows = pq.read_table(record / f"{table}.parquet").to_pylist()
    rows = [row for row in rows if change(row) is not False]
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLES[table]), record / f"{table}.parquet")


# --- availability


def operations(bad: list[int], count: int = 100, never: tuple[int, ...] = ()) -> Operations:
    """One operation every 0.1 s from 0, back after 10 ms; those of ``bad`` fail."""
    intended = np.arange(count, dtype=np.int64) * (NS // 10)
    done = intended + 10_000_000
    done[list(never)] = MISSING
    answered = np.ones(count, dtype=bool)
    answered[bad] = False
    answered[list(never)] = False
    none, zeros = np.zeros(count, dtype=bool), np.zeros(count, dtype=np.int64)
    return Operations(intended, done, answered, ~answered, none, none, none, zeros, zeros, none, none)


def test_the_longest_outage_is_from_the_first_bad_to_the_next_good() -> None:
    seen = service(operations([5, 20, 21, 22, 40]), 0, 10 * NS, NS, 0)
    assert seen is not None
    assert (seen.operations, seen.good, seen.seconds, seen.bad_seconds) == (100, 95, 10, 3)
    assert seen.longest_s == pytest.approx(0.31)
    assert seen.longest_at_s == pytest.approx(2.0)
    assert seen.longest_ended


def test_an_outage_up_to_the_end_is_at_least_so_long() -> None:
    seen = service(operations(list(range(70, 100))), 0, 10 * NS, NS, 0)
    assert seen is not None
    assert not seen.longest_ended
    assert seen.longest_s == pytest.approx(3.0)


def test_an_operation_whose_answer_could_not_be_awaited_is_left_out() -> None:
    seen = service(operations([], never=(95,)), 0, 10 * NS, NS, 0)
    assert seen is not None
    assert (seen.operations, seen.good) == (99, 99)
    early = service(operations([], never=(50,)), 0, 10 * NS, NS, 0)
    assert early is not None
    assert (early.operations, early.good) == (100, 99)


def test_availability_of_the_whole_run(found: Analysis, record: Path) -> None:
    told = truth(record)
    down = sum(one.outage_s or 0 for one in told.trials)
    length = (told.end - NS - told.steady[0]) / NS
    assert get(found, "availability.write").value == pytest.approx(100 * (1 - down / length), abs=0.3)
    assert get(found, "availability.read").value == 100
    assert get(found, "outage.longest.write").value == pytest.approx(21.4, abs=0.1)
    assert get(found, "outage.longest.read").value == 0


def test_a_run_that_ends_in_an_outage_has_no_longest_one(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=5)
    last = truth(record).trials[0].effect

    def fail(row: dict[str, Any]) -> None:
        if row["intended"] >= last:
            row["outcome"] = "failed"

    edit(record, "writes", fail)
    finding = get(analyse(record), "outage.longest.write")
    assert finding.status == "inconclusive"
    assert finding.detail["at_least"] > 40


def test_a_late_probe_voids_availability(tmp_path: Path) -> None:
    late = analyse(make_record(tmp_path / "run", probe_lag_s=0.3, seconds=5))
    assert get(late, "availability.write").status == "invalid"


# --- redundancy and reconnects


def test_redundancy_is_the_worst_trial_and_never_0(found: Analysis, tmp_path: Path) -> None:
    assert get(found, "redundant.seconds").value == pytest.approx(43, abs=0.1)
    lame = make_record(tmp_path / "run", seconds=5)
    edit(lame, "events", lambda row: not (row["kind"] == "redundant" and row["trial"] == 2))
    finding = get(analyse(lame), "redundant.seconds")
    assert finding.value is None
    assert finding.status == "inconclusive"
    assert "trial 2" in finding.why


def test_the_rush_back_is_counted(found: Analysis, tmp_path: Path) -> None:
    assert get(found, "reconnect.peak").value == 0
    record = make_record(tmp_path / "run", trials=1, seconds=20)
    one = truth(record).trials[0]
    assert one.recovered is not None
    lines = "".join(
        f"{stamp(at)} [7] LOG C-0x1: risk/risk_app@10.77.0.9:5 login attempt: db={db} user=risk_app tls=no\n"
        for at, db in [
            *((one.recovered + i * 10_000_000, "risk") for i in range(80)),
            *((one.recovered + 5 * NS + i * NS, "risk") for i in range(5)),
            *((one.recovered + i, "pgbouncer") for i in range(50)),
            (one.effect - NS, "risk"),
        ]
    )
    with (record / "logs" / "pool-session.log").open("a") as log:
        log.write(lines)
    analysis = analyse(record)
    assert get(analysis, "reconnect.peak").value == 80
    assert 70 < (get(analysis, "reconnect.retries").value or 0) < 85
    for log_file in (record / "logs").glob("pool-*.log"):
        log_file.write_text("")
    assert get(analyse(record), "reconnect.peak").status == "not run"


# --- reads


def test_fresh_reads_are_fresh(found: Analysis) -> None:
    assert get(found, "reads.backwards").value == 0
    assert get(found, "reads.staleness").value == pytest.approx(0.025, abs=0.02)  # visible after 20 ms


def test_a_session_that_goes_back_in_time_is_seen(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=10)
    seen: dict[int, int] = {}

    def back(row: dict[str, Any]) -> None:
        seen[row["session"]] = seen.get(row["session"], 0) + 1
        if row["session"] == 2 and 50 <= seen[2] < 53:
            row["newest"] -= 60

    edit(record, "reads", back)
    analysis = analyse(record)
    assert get(analysis, "reads.backwards").value == 3


def test_a_replica_that_stands_still_is_stale_and_lacks_own_writes(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=20)
    told = truth(record)
    begin = told.steady[0] + 10 * NS
    held: dict[str, int] = {}

    def freeze(row: dict[str, Any]) -> None:
        if row["server"] == "pg4" and begin <= row["intended"] < begin + 4 * NS:
            row["newest"] = held.setdefault("newest", row["newest"])
        else:
            row["newest"] += 50  # what was acknowledged since, too

    edit(record, "reads", freeze)
    analysis = analyse(record)
    staleness = get(analysis, "reads.staleness")
    assert staleness.value == pytest.approx(4, abs=0.1)
    assert staleness.detail["servers"]["pg3"] == 0
    own = get(analysis, "reads.missing_own").detail["servers"]
    assert own["pg3"] == 0
    assert 3 < own["pg4"] < 12  # 4 of about 70 s


def test_lost_writes_make_no_read_stale(tmp_path: Path) -> None:
    analysis = analyse(make_record(tmp_path / "run", trials=1, lost=60, outage_s=(20.0,)))
    assert (get(analysis, "reads.staleness").value or 0) < 0.1
    blind = analyse(make_record(tmp_path / "blind", trials=1, caught_up=False, seconds=5))
    assert get(blind, "reads.staleness").status == "inconclusive"


# --- progress


def test_everybody_goes_on(found: Analysis) -> None:
    finding = get(found, "progress.stuck")
    assert finding.value == 0
    assert finding.detail["workers"] == 10
    assert finding.detail["sessions"] >= 8


def test_a_worker_without_an_answer_after_the_healing_is_stuck(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=20, request_rate=400)
    healed = truth(record).trials[0].window_end

    def hang(row: dict[str, Any]) -> None:
        mine = row["worker"] == 1 and row["endpoint"] == "pool-transaction.writer"
        if mine and row["intended"] >= healed:
            row["outcome"] = "08006"

    edit(record, "requests", hang)
    finding = get(analyse(record), "progress.stuck")
    assert finding.value == 1
    assert "load worker 1 at pool-transaction.writer" in finding.why


def test_a_worker_that_fell_silent_is_stuck(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=20, request_rate=400)
    healed = truth(record).trials[0].window_end
    table = pq.read_table(record / "requests.parquet")
    gone = pc.and_(pc.equal(table["worker"], 0), pc.greater_equal(table["intended"], healed))
    pq.write_table(table.filter(pc.invert(gone)), record / "requests.parquet")
    assert (get(analyse(record), "progress.stuck").value or 0) >= 1


def test_a_user_who_waits_for_ever_is_stuck(tmp_path: Path) -> None:
    """Its last request, begun during the fault, ends with the load; the others of its worker go on."""
    record = make_record(tmp_path / "run", trials=1, seconds=20, request_rate=400)
    one = truth(record).trials[0]
    table = pq.read_table(record / "requests.parquet")
    mine = pc.and_(pc.equal(table["worker"], 1), pc.equal(table["user"], 4))
    gone = pc.and_(mine, pc.greater_equal(table["intended"], one.effect))
    pq.write_table(table.filter(pc.invert(gone)), record / "requests.parquet")
    finding = get(analyse(record), "progress.stuck")
    assert finding.value == 1
    assert finding.detail["stuck"] == ["trial 1: load user 1/4"]
    assert finding.detail["users"] == 20
    # A record of an older version tells nobody apart.
    older = pq.read_table(record / "requests.parquet").drop_columns(["user"])
    pq.write_table(older, record / "requests.parquet")
    before = get(analyse(record), "progress.stuck")
    assert (before.value, before.detail["users"]) == (0, 0)


def test_users_who_only_fail_after_the_healing_are_stuck_and_named(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=20, request_rate=400)
    healed = truth(record).trials[0].window_end

    def fail(row: dict[str, Any]) -> None:
        if row["user"] in (2, 9) and row["worker"] == 0 and row["done"] and row["done"] >= healed:
            row["outcome"] = "08006"

    edit(record, "requests", fail)
    finding = get(analyse(record), "progress.stuck")
    assert finding.value == 2
    assert finding.detail["stuck"] == ["trial 1: load user 0/2", "trial 1: load user 0/9"]


def test_a_probe_session_that_only_fails_after_the_healing_is_stuck(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=5)
    healed = truth(record).trials[0].window_end

    def fail(row: dict[str, Any]) -> None:
        if row["session"] == 1003 and row["intended"] >= healed:
            row["outcome"] = "failed"

    edit(record, "writes", fail)
    finding = get(analyse(record), "progress.stuck")
    assert finding.value == 1
    assert "writer session 1003" in finding.why


def test_without_time_after_the_healing_nothing_is_said(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=5)
    end = truth(record).end

    def late(row: dict[str, Any]) -> None:
        if row["kind"] == "heal-verified":
            row["t"] = end - 2 * NS

    edit(record, "events", late)
    assert get(analyse(record), "progress.stuck").status == "inconclusive"
    edit(record, "events", lambda row: row["kind"] not in ("heal-verified", "window-end"))
    assert get(analyse(record), "progress.stuck").status == "not run"
    assert json.dumps(get(analyse(record), "progress.stuck").detail) == "{}"


def test_a_slow_session_goes_on_all_the_same(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=5)
    healed = truth(record).trials[0].window_end

    def slow(row: dict[str, Any]) -> None:
        if row["session"] == 1003 and row["intended"] >= healed:
            row["done"] = row["intended"] + 2 * NS

    edit(record, "writes", slow)
    assert get(analyse(record), "progress.stuck").value == 0
