"""The pooling experiments: designs, the further pooler's configuration, figures with a known answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import cli
from lab.errors import Exit, RecordError, UsageError
from lab.experiment import compat, compat_inside, pooling, sizing
from lab.experiment.bouncer import Settings, rewritten
from lab.record.reader import RecordReader
from lab.record.schema import NS
from lab.record.writer import RecordWriter
from lab.topology.loader import load_topology
from reports import pools
from reports.analysis.little import residence
from reports.analysis.pool_cells import cells
from reports.experiments import pool_compat, pool_size
from reports.experiments import pooling as pooling_report
from reports.experiments._pooling_groups import Overhead, grouped, overheads
from reports.experiments.pooling import EXPERIMENT, analyse
from tests.fake_lab import FakeLab

INI = """;; Pooler
[databases]
risk = host=router port=5000 dbname=risk pool_size=60 max_db_connections=60
risk_ro = host=router port=5001 dbname=risk pool_size=40 max_db_connections=40

[pgbouncer]
listen_port = 6432
pool_mode = transaction
auth_type = scram-sha-256
auth_file = /run/lab/userlist.txt
server_lifetime = 3600
"""


# --- the further pooler


def test_a_further_pooler_keeps_the_address_and_takes_other_sizes() -> None:
    settings = Settings(mode="session", databases={"compat": 2}, values={"server_lifetime": "1", "x": "y"})
    text = rewritten(INI, "/run/lab/r/b", 16432, settings)
    assert "compat = host=router port=5000 dbname=risk pool_size=2 max_db_connections=2\n" in text
    assert "risk_ro" not in text
    for line in ("listen_port = 16432", "pool_mode = session", "auth_file = /run/lab/r/b/userlist.txt"):
        assert f"\n{line}\n" in text
    assert "\nserver_lifetime = 1\n" in text
    assert text.endswith("x = y\n")
    assert "6432\n" not in text.replace("16432", "")


def test_a_pool_size_changes_every_database_of_the_labs_own() -> None:
    text = rewritten(INI, "/f", 1, Settings(mode="transaction", pool_size=3))
    assert text.count("pool_size=3 max_db_connections=3") == 2


def test_a_configuration_without_databases_is_refused() -> None:
    with pytest.raises(ValueError, match="no databases"):
        rewritten("[pgbouncer]\n", "/f", 1, Settings(mode="session"))


# --- the designs


def test_every_cell_of_a_design_has_a_name_of_its_own_and_statement_pooling_no_transactions() -> None:
    found = pooling.design(load_topology("risk-prod"), (20, 100), pooling.GROUPS)
    assert len({one.name for one in found}) == len(found)
    assert not [v for v in found if v.path == "statement" and v.workload == pooling.TRANSACTION]
    assert {v.clients for v in found if v.group == "statement"} == {20, 100}
    assert {v.authentication for v in found} == {"stored secrets", "plain passwords", "md5"}


def test_a_single_client_is_measured_once() -> None:
    topology = load_topology("risk-prod")
    for clients in ((20, 100), (1, 20), (1,)):
        names = [v.name for v in pooling.design(topology, clients, pooling.GROUPS)]
        assert len(set(names)) == len(names)
        assert "direct limit-check lasting 1" in names


def test_wrong_names_are_clear_errors(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    with pytest.raises(UsageError, match="no group 'statements'"):
        pooling.run_pooling(lab, groups=("statements",), seed=1)
    with pytest.raises(UsageError, match="no feature 'sett'"):
        compat.run_compat(lab, features=("sett",))
    with pytest.raises(UsageError, match="no pool mode 'all'"):
        compat.run_compat(lab, modes=("all",))
    with pytest.raises(UsageError, match="beyond the connection budget of 3454"):
        sizing.run_sizing(lab, sizes=(4000,), seed=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pooling", "--group", "statements"], "no group 'statements'"),
        (["pool-compat", "--mode", "all"], "no pool mode 'all'"),
        (["pool-compat", "--feature", "sett"], "no feature 'sett'"),
        (["latency", "--duration", "5x"], "5x"),
        (["pool-report", "--runs", "nowhere"], "no closed record"),
    ],
)
def test_bad_input_is_told_before_any_lab_is_looked_for(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / ".lab"))
    assert cli.run(words) == Exit.USAGE
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_matrix_has_at_least_25_features_and_each_has_its_words() -> None:
    keys = compat.feature_keys()
    assert len(keys) == len(set(keys)) >= 25
    assert set(keys) == set(pool_compat.FEATURES)


# --- compatibility


@pytest.mark.parametrize(
    ("leaked", "kept", "failed", "outcome"),
    [
        (False, True, False, "works"),
        (False, False, False, "is lost"),
        (False, False, True, "fails loudly"),
        (True, True, False, "leaks"),
        (True, False, True, "leaks"),
    ],
)
def test_silence_is_worse_than_an_error(*, leaked: bool, kept: bool, failed: bool, outcome: str) -> None:
    error = compat_inside.psycopg.errors.UndefinedTable("gone") if failed else None
    assert compat_inside.outcome(leaked, kept, error)["outcome"] == outcome


def test_what_was_not_really_shared_is_not_called_working() -> None:
    row = {"outcome": "works", "why": "", "same": False, "moved": True}
    assert pool_compat.judged("transaction", row).outcome == "not run"
    assert pool_compat.judged("transaction", {**row, "same": True}).outcome == "works"
    assert pool_compat.judged("transaction", {**row, "same": True, "moved": False}).outcome == "not run"
    assert pool_compat.judged("transaction", {**row, "outcome": "leaks"}).outcome == "leaks"


def test_documentation_and_finding_differ_only_where_one_of_them_says_works() -> None:
    assert pool_compat.differs("never", "works")
    assert pool_compat.differs("yes", "leaks")
    assert not pool_compat.differs("never", "leaks")
    assert not pool_compat.differs("", "works")
    assert not pool_compat.differs("yes", "not run")


def compat_record(folder: Path, direct: str = "works") -> RecordReader:
    writer = RecordWriter.create(folder, "pool-compat", topology="t", lab="x", seed=1, trials_asked=0)
    rows = {"no pooler": direct, "session": "works", "transaction": "leaks", "statement": "fails loudly"}
    for number, (name, outcome) in enumerate(rows.items(), 1):
        said = {"feature": "set", "outcome": outcome, "why": "", "same": True, "moved": True}
        result = json.dumps({"features": [said]})
        row = {"cell": number, "name": name, "repeat": 1, "begin": 0, "end": 1, "parameters": "{}"}
        writer.rows("cells", [{**row, "result": result}])
    writer.close()
    return RecordReader(writer.path)


def test_a_feature_that_fails_without_a_pooler_shows_nothing(tmp_path: Path) -> None:
    assert {
        c.outcome for c in pool_compat.matrix(compat_record(tmp_path, "fails loudly"))["set"].values()
    } == {"not run"}


def test_leaks_are_counted_and_few_features_prove_nothing(tmp_path: Path) -> None:
    found = {one.metric: one for one in pool_compat.analyse(compat_record(tmp_path)).findings}
    assert found["pool.compat.leaks.transaction"].value == 1
    assert found["pool.compat.leaks.session"].value == 0
    assert found["pool.compat.leaks.transaction"].status == "inconclusive"


# --- pooling


def row(cell: int, path: str, connections: str, repeat: int, **more: Any) -> dict[str, Any]:
    return {
        "cell": cell, "path": path, "connections": connections, "repeat": repeat,
        "group": "statement", "workload": "limit-check", "clients": 4, "prepared": False,
        "authentication": "stored secrets", **more,
    }  # fmt: skip


SERVICE_MS = {
    ("direct", "per-request"): 50,
    ("direct", "lasting"): 10,
    ("transaction", "per-request"): 18,
    ("transaction", "lasting"): 8,
}
"""Overhead 40 ms direct and 10 ms pooled: a reduction of 75 %."""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RecordWriter]:
    made = RecordWriter.create(tmp_path, "pooling", topology="t", lab="x", seed=1, trials_asked=0)
    yield made
    made.release()


def under_way(rows: list[dict[str, Any]], at: int) -> list[dict[str, Any]]:
    """The generator's own count: the integral of the requests under way, every tenth of a second."""
    started, done = (np.array([r[name] for r in rows]) for name in ("started", "done"))
    return [
        {"t": t, "node": "client", "metric": "load_in_flight_seconds", "label": "0",
         "value": residence(started, done, 0, t)[1]}
        for t in range(at, at + 2 * NS, NS // 10)
    ]  # fmt: skip


def fill(
    writer: RecordWriter,
    *,
    repeats: int = 6,
    miscount: int = 0,
    think_ms: float = 0.0,
    counted: bool = True,
    unrecorded: float = 0.0,
    cpu_s: float = 0.3,
    control: float | None = None,
) -> RecordReader:
    """Cells of four clients in closed loop, each with its constant service time, one second each.

    A part of the requests may be ``unrecorded``, though they were under way. ``cpu_s`` is what the generator
    used in that second, ``control`` the efficiency (percent) of a pooler that keeps no connection.
    """
    number, at = 0, 10 * NS
    for repeat in range(1, repeats + 1):
        for (path, connections), ms in SERVICE_MS.items():
            for prepared in (True, False):
                number += 1
                step = round((ms + think_ms) * 1e6)
                rows = [
                    {
                        "intended": begin, "started": begin, "done": begin + round(ms * 1e6), "name": "GET",
                        "endpoint": "e", "outcome": "ok", "worker": 0,
                    }
                    for client in range(4)
                    for begin in range(at + client * step // 4, at + NS, step)
                ]  # fmt: skip
                writer.rows("requests", rows[: round(len(rows) * (1 - unrecorded))])
                if counted:
                    writer.rows("metrics", under_way(rows, at))
                given = row(number, path, connections, repeat, prepared=prepared)
                result: dict[str, Any] = {
                    "load": {"cpu_seconds": cpu_s, "seconds": 1.0, "setup_statements": 5}
                }
                if path != "direct":
                    given |= {"pooler": "pool-transaction", "room": 60}
                    count = len(rows) + 5 + miscount
                    result["new_connections"] = 1
                    result["pooler"] = {
                        "total_xact_count": count, "total_server_assignment_count": count,
                        "total_xact_time": 600_000 + count * 2000, "total_wait_time": count * 2000,
                    }  # fmt: skip
                line = {"cell": number, "name": f"{path} {connections}", "repeat": repeat, "begin": at}
                texts = {"parameters": json.dumps(given), "result": json.dumps(result)}
                writer.rows("cells", [{**line, "end": at + 2 * NS, **texts}])
                at += 3 * NS
    for lifetime, percent in ((None, 99.0), (1, control)) if control is not None else ():
        number += 1
        counts = {"pooler": {"total_server_assignment_count": 200}, "new_connections": 2 * (100 - percent)}
        line = {"cell": number, "name": f"control/{lifetime}", "repeat": 1, "begin": at, "end": at + NS}
        texts = {"parameters": json.dumps({"server_lifetime": lifetime}), "result": json.dumps(counts)}
        writer.rows("cells", [{**line, **texts}])
    writer.close("closed")
    return RecordReader(writer.path)


def test_figures_of_a_cell(writer: RecordWriter) -> None:
    found = {(c.parameters["path"], c.parameters["connections"]): c for c in cells(fill(writer, repeats=1))}
    direct = found["direct", "lasting"]
    assert direct.mean_ms == pytest.approx(10)
    assert direct.per_s == pytest.approx(400, rel=0.02)
    assert direct.little_percent == pytest.approx(0, abs=2)
    assert not direct.invalid
    assert not direct.limited
    pooled = found["transaction", "lasting"]
    assert pooled.utilisation == pytest.approx(1)
    assert pooled.wait_ms == pytest.approx(2)


def test_clients_that_think_in_between_are_no_closed_loop(writer: RecordWriter) -> None:
    # Four clients that are away for a sixth of the time are not four under way.
    bad = cells(fill(writer, repeats=1, think_ms=2.0))
    assert all("under way, not 4" in c.invalid[0] for c in bad if c.mean_ms == pytest.approx(10))


def test_requests_that_are_missing_from_the_record_break_littles_law(writer: RecordWriter) -> None:
    bad = cells(fill(writer, repeats=1, unrecorded=0.1))
    assert all("Little" in c.invalid[0] for c in bad)


def test_a_cell_without_the_generators_count_is_not_compared(writer: RecordWriter) -> None:
    assert all("did not count" in c.invalid[0] for c in cells(fill(writer, repeats=1, counted=False)))


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=8),
    st.integers(0, 50),
    st.integers(1, 50),
)
def test_time_within_a_window_is_the_integral_of_what_is_under_way(
    stays: list[tuple[int, int]], begin: int, length: int
) -> None:
    started = np.array([s for s, _ in stays], dtype=np.int64)
    done = started + np.array([d for _, d in stays], dtype=np.int64)
    end = begin + length
    ended, spent = residence(started, done, begin, end)
    under = sum(int(((started <= t) & (done > t)).sum()) for t in range(begin, end))
    assert spent * NS == pytest.approx(under)
    assert ended == sum(begin <= d < end for d in done)


def test_the_reduction_is_that_of_the_paired_overheads(writer: RecordWriter) -> None:
    record = fill(writer)
    over = {one.path: one for one in overheads(grouped(cells(record)))}
    assert set(over["direct"].ms) == set(range(1, 7))
    assert over["direct"].ms[1] == pytest.approx(40)
    assert over["transaction"].reduction == pytest.approx((75,) * 6)
    outcome = {one.metric: one for one in analyse(record).findings}
    found = outcome["pool.overhead_reduction"]
    assert found.value == pytest.approx(75)
    assert found.interval == pytest.approx((75, 75))
    assert found.status is None
    assert outcome["pool.counts"].value == 0
    assert outcome["pool.idle_timeout"].status == "not run"
    assert outcome["prepared.saved"].value == pytest.approx(0)
    assert outcome["pool.efficiency"].value is not None
    assert set(outcome) == set(EXPERIMENT.metrics)


@pytest.mark.parametrize(("control", "status"), [(80.0, None), (90.0, "invalid"), (99.5, "invalid")])
def test_an_efficiency_that_a_pool_without_connections_reaches_is_worth_nothing(
    writer: RecordWriter, control: float, status: str | None
) -> None:
    outcome = {one.metric: one for one in analyse(fill(writer, repeats=1, control=control)).findings}
    assert outcome["pool.efficiency_control"].value == pytest.approx(control)
    assert outcome["pool.efficiency"].status == status
    assert outcome["pool.efficiency"].value is not None


@pytest.mark.parametrize(("cpu_s", "status"), [(0.75, None), (0.85, "inconclusive")])
def test_a_reduction_at_the_generators_limit_is_a_lower_bound(
    writer: RecordWriter, cpu_s: float, status: str | None
) -> None:
    outcome = {one.metric: one for one in analyse(fill(writer, cpu_s=cpu_s)).findings}
    found = outcome["pool.overhead_reduction"]
    assert found.status == status
    assert ("at least 75 %" in found.why) == (status is not None)
    alone = Overhead("transaction", "stored secrets", 1, {}, (60.0,) * 6)
    several = Overhead("transaction", "stored secrets", 20, {}, (75.0,) * 6, limited=status is not None)
    chosen = pooling_report._reduction([alone, several])
    assert (chosen.value, chosen.status) == (75.0 if status is None else 60.0, None)


def test_two_repeats_are_too_few(writer: RecordWriter) -> None:
    outcome = {one.metric: one for one in analyse(fill(writer, repeats=2)).findings}
    assert outcome["pool.overhead_reduction"].status == "inconclusive"


def test_a_transaction_that_one_side_did_not_count_shows(writer: RecordWriter) -> None:
    outcome = {one.metric: one for one in analyse(fill(writer, repeats=1, miscount=1)).findings}
    assert (
        outcome["pool.counts"].value == 3
    )  # three cells can be compared: lasting unprepared, and both fresh


# --- one page


def test_the_page_joins_the_newest_records_of_one_topology(writer: RecordWriter, tmp_path: Path) -> None:
    fill(writer, control=80.0)
    compat_record(tmp_path)
    other = RecordWriter.create(tmp_path, "pool-size", topology="other", lab="x", seed=1, trials_asked=0)
    other.close("closed")
    found = pools.newest(tmp_path, "t")
    assert list(found) == ["pooling", "pool-compat"]
    page = pools.write(tmp_path, "t").read_text(encoding="utf-8")
    assert page.count("<svg") >= 5
    for said in ("75 %", "Missing:", "lab pool-size", "lab latency", "What a connection costs"):
        assert said in page, said
    modes = {mode.name: mode for mode in pools.compared(found)}
    assert modes["transaction"].saved == pytest.approx(75)
    assert modes["transaction"].rate == pytest.approx(125, rel=0.05)
    assert modes["transaction"].features["leaks"] == 1
    assert modes["statement"].saved is None


def test_a_folder_without_a_record_of_the_pools_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no closed record"):
        pools.write(tmp_path)
    open_one = RecordWriter.create(tmp_path, "pooling", topology="t", lab="x", seed=1, trials_asked=0)
    with pytest.raises(RecordError, match="no closed record"):
        pools.write(tmp_path)
    open_one.release()


# --- sizes


def sized(size: int, rate: float, tail: float, *, bad: float = 0.0, invalid: str = "") -> pool_size.Cell:
    given = {"latency_ms": 100.0}
    return pool_size.Cell(size, rate, 1, given, tail, "p99", bad, None, None, invalid)


def test_the_smallest_size_holds_with_every_larger_one() -> None:
    found = [sized(1, 50, 900), sized(2, 50, 90), sized(4, 50, 80), sized(8, 50, 70)]
    assert pool_size.smallest(found, 50) == 2
    assert pool_size.smallest([*found, sized(4, 50, 300)], 50) == 8
    assert pool_size.smallest([*found, sized(2, 50, 10, bad=0.02)], 50) == 4
    assert pool_size.smallest([sized(8, 50, 300)], 50) is None
    assert pool_size.smallest([sized(8, 50, 10, invalid="lagged")], 50) is None


def test_the_connections_that_rds_allows() -> None:
    assert pool_size.rds_connections("db.r5.xlarge") == 3604
    assert pool_size.rds_connections("db.t3.small") == 225
    assert pool_size.rds_connections("db.unknown") is None
