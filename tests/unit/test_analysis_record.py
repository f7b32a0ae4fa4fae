"""The whole analysis against records with a known truth, and negative controls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.errors import RecordError
from lab.record.schema import NS, TABLES
from reports.analysis import Analysis, analyse, to_json
from reports.analysis.analyse import measure
from reports.judge import judge
from reports.targets import targets_of
from tests.exposed import expose
from tests.synthetic import PG, POOLERS, Truth, make_record, truth


def of(path: Path, **options: Any) -> tuple[Analysis, Truth]:
    record = make_record(path / "run", **options)
    return analyse(record), truth(record)


def status(found: Analysis, target_id: str, **changes: Any) -> str:
    target = next(t for t in targets_of("risk") if t.id == target_id)
    return judge(found, target.model_copy(update=changes)).status


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, Truth]:
    return of(tmp_path_factory.mktemp("clean"))


def test_rto_of_every_trial_is_the_truth(clean: tuple[Analysis, Truth]) -> None:
    found, known = clean
    assert [t.write.seconds for t in found.trials] == pytest.approx([t.outage_s for t in known.trials])
    assert [t.new_primary for t in found.trials] == [t.new_primary for t in known.trials]
    assert [t.target for t in found.trials] == [t.old_primary for t in known.trials]
    assert all(not t.invalid and t.verified for t in found.trials)
    assert all(t.read.state == "no outage" for t in found.trials)


def test_the_breakdown_follows_the_milestones(clean: tuple[Analysis, Truth]) -> None:
    found, known = clean
    for trial, told in zip(found.trials, known.trials, strict=True):
        assert trial.breakdown is not None
        assert told.outage_s is not None
        parts = {part.name: part.seconds for part in trial.breakdown.parts}
        # Node and route probes look every 50 ms; the rest is exact.
        shares = {"detect": 0.9, "elect": 0.02, "promote": 0.03, "route": 0.03, "reconnect": 0.02}
        for name, share in shares.items():
            assert parts[name] == pytest.approx(share * told.outage_s, abs=0.055), name
        assert sum(p or 0 for p in parts.values()) == pytest.approx(told.outage_s)
        assert trial.breakdown.unattributed == pytest.approx(0, abs=1e-9)


def test_a_clean_run_meets_what_a_kill_can_prove(clean: tuple[Analysis, Truth]) -> None:
    found, _ = clean
    verdicts = {t.id: judge(found, t).status for t in targets_of("risk")}
    assert verdicts.pop("R16.rpo") == "inconclusive"
    judged = {k: v for k, v in verdicts.items() if k.startswith(("R16", "R7", "R15"))}
    assert set(judged.values()) == {"met"}
    elsewhere = {t.id for t in targets_of("risk") if found.manifest.scenario not in t.scenarios}
    assert {v for k, v in verdicts.items() if k in elsewhere and k not in judged} == {"not run"}


def test_a_limit_of_five_seconds_is_not_met(clean: tuple[Analysis, Truth]) -> None:
    assert status(clean[0], "R16.rto-write", limit=5.0) == "not met"


def test_load_is_counted_to_the_last_request(clean: tuple[Analysis, Truth]) -> None:
    found, known = clean
    assert found.load.all is not None
    assert found.load.all.count == known.requests
    assert found.load.all.dropped == known.requests_dropped
    assert found.load.all.errors == known.requests_failed == sum(found.load.errors.values())
    seconds = found.load.seconds
    assert sum(seconds.ok) + sum(seconds.errors) + sum(seconds.dropped) == known.requests
    assert sum(row.count for row in found.load.by_name) == known.requests
    assert found.load.steady is not None
    assert found.load.steady.errors == 0


def test_pools_are_counted(clean: tuple[Analysis, Truth]) -> None:
    found, known = clean
    for pool in found.pools:
        assert pool.new_connections == known.server_connections[pool.pooler]
        assert pool.max_server_connections == round(0.6 * POOLERS[pool.pooler])
        assert pool.efficiency == pytest.approx(100 * (1 - 40 / (pool.assignments or 0)))


def test_report_json_holds_no_nan_and_comes_back(clean: tuple[Analysis, Truth]) -> None:
    found, _ = clean
    data = json.loads(to_json(found))
    assert Analysis.model_validate(data).trials == found.trials


# --- negative controls ----------------------------------------------------------------------------


def test_lost_writes_are_not_met_even_after_a_kill(tmp_path: Path) -> None:
    found, known = of(tmp_path, lost=(0, 3, 0))
    assert [t.ledger.lost for t in found.trials] == [0, 3, 0]
    assert list(found.trials[1].ledger.lost_numbers) == known.trials[1].lost
    assert status(found, "R16.rpo") == "not met"
    assert found.finding("rpo.seconds").value > 0  # type: ignore[union-attr,operator]


def test_every_class_of_the_ledger_is_found(tmp_path: Path) -> None:
    found, known = of(
        tmp_path, lost=4, phantom=2, duplicates=3, dirty=2, unknown_present=1, acknowledged_locally=2
    )
    for trial, told in zip(found.trials, known.trials, strict=True):
        ledger = trial.ledger
        assert list(ledger.lost_numbers) == told.lost
        assert list(ledger.phantom_numbers) == told.phantom
        assert list(ledger.duplicate_numbers) == told.duplicates
        assert ledger.dirty == len(told.dirty)
        assert ledger.unknown_present == len(told.unknown_present)
        assert ledger.acknowledged_locally == told.acknowledged_locally
        assert ledger.complete
    for metric in ("ledger.lost", "ledger.phantom", "ledger.duplicate", "ledger.dirty"):
        assert found.finding(metric).value > 0, metric  # type: ignore[union-attr,operator]


def test_a_partition_without_loss_proves_it(tmp_path: Path) -> None:
    found = analyse(
        expose(make_record(tmp_path / "run", fault="partition-node", scenario="isolate-primary-from-peers"))
    )
    assert status(found, "R16.rpo") == "met"


def test_an_audit_that_had_not_caught_up_is_invalid(tmp_path: Path) -> None:
    found, _ = of(tmp_path, caught_up=False, fault="partition-node")
    assert status(found, "R16.rpo") == "invalid"
    assert found.finding("rpo.rows").value is None  # type: ignore[union-attr]


def test_a_node_that_was_not_audited_is_invalid(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", fault="partition-node")
    (record / "audit" / "2-pg4.parquet").unlink()
    assert status(analyse(record), "R16.rpo") == "invalid"


def test_a_write_from_before_the_trial_can_be_lost_by_its_fault(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run")
    for node in PG:
        file = record / "audit" / f"0-{node}.parquet"
        table = pq.read_table(file)
        pq.write_table(table.slice(0, table.num_rows - 7), file)
    found = analyse(record)
    # The last rows without a trial were written after the last trial, where no trial accounts for them.
    assert found.ledger.lost == 7
    assert status(found, "R16.rpo") == "not met"
    first = record / "audit" / "0-pg2.parquet"
    table = pq.read_table(first)
    pq.write_table(table.slice(5), first)
    assert analyse(record).trials[0].ledger.lost == 5


def test_split_brain_is_seen(tmp_path: Path) -> None:
    found, _ = of(tmp_path, split_brain=2.0)
    finding = found.finding("split_brain.seconds")
    assert finding is not None
    assert finding.value == pytest.approx(2.0, abs=0.11)
    assert found.trials[0].split_brain.pairs == (("pg1", "pg2"),)


def test_a_late_failure_is_the_outage_that_counts(tmp_path: Path) -> None:
    found, _ = of(tmp_path, late_failure_s=30.0)
    assert [t.write.seconds for t in found.trials] == pytest.approx([30.01] * 3, abs=0.03)


def test_a_stuck_session_shows_in_its_own_figure_only(tmp_path: Path) -> None:
    found, known = of(tmp_path, stuck_s=33.0)
    assert [t.write.seconds for t in found.trials] == pytest.approx([t.outage_s for t in known.trials])
    assert [t.write_open.seconds for t in found.trials] == pytest.approx([33.0] * 3)


def test_no_outage_is_not_zero_and_meets_the_target(tmp_path: Path) -> None:
    found, _ = of(tmp_path, outage_s=(None,))
    finding = found.finding("rto.write")
    assert finding is not None
    assert finding.value is None
    assert finding.samples == ()
    assert status(found, "R16.rto-write") == "met"


def test_a_fault_that_did_not_take_effect_is_invalid(tmp_path: Path) -> None:
    found, _ = of(tmp_path, outage_s=(None,), fault_effective=False)
    for target in ("R16.rto-write", "R16.rto-read", "R16.rpo", "R16.automatic"):
        assert status(found, target) == "invalid"


def test_an_uninjected_leader_change_voids_the_run(tmp_path: Path) -> None:
    found, _ = of(tmp_path, uninjected_leader_change=True)
    # Some metrics need a workload that this run did not have: they stay *not run*.
    sound, _ = of(tmp_path / "sound")
    of_this_run = [t.id for t in targets_of("risk") if status(sound, t.id) != "not run"]
    assert len(of_this_run) > 5
    assert {status(found, target) for target in of_this_run} == {"invalid"}


def test_a_generator_that_lagged_voids_what_it_measured(tmp_path: Path) -> None:
    found, _ = of(tmp_path, schedule_lag_ms=40.0)
    assert status(found, "R15.query-time") == "invalid"
    assert "lagged" in (found.finding("query.mean").why)  # type: ignore[union-attr]
    alarm = found.finding("alarm.latency")
    assert alarm is not None
    assert alarm.status == "invalid"
    assert status(found, "R16.rto-write") == "met"


def test_a_probe_that_lagged_blurs_the_outage_and_not_the_ledger(tmp_path: Path) -> None:
    found = analyse(
        expose(
            make_record(
                tmp_path / "run",
                probe_lag_s=0.3,
                fault="partition-node",
                scenario="isolate-primary-from-peers",
            )
        )
    )
    assert [bool(t.invalid) for t in found.trials] == [True, False, False]
    assert "lagged" in found.trials[0].invalid[0]
    assert status(found, "R16.rto-write") == "inconclusive"
    assert status(found, "R16.rpo") == "met"


def test_a_probe_that_lagged_while_the_load_was_starting_blurs_nothing(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", probe_lag_s=0.3)
    assert "lagged" in analyse(record).trials[0].invalid[0]
    # The same lag, and a steady state that began only after it.
    table = pq.read_table(record / "events.parquet").to_pandas()
    effect = table[table.kind == "fault-effect"].t.min()
    table.loc[table.kind == "steady-start", "t"] = effect - NS
    pq.write_table(pa.Table.from_pandas(table, TABLES["events"]), record / "events.parquet")
    assert not analyse(record).trials[0].invalid


def test_a_window_that_is_too_short_voids_the_trials(tmp_path: Path) -> None:
    found, _ = of(tmp_path, window_s=28.0)
    assert all("shorter" in " ".join(t.invalid) for t in found.trials)
    assert status(found, "R16.rto-write") == "invalid"


def test_two_trials_are_not_enough(tmp_path: Path) -> None:
    found, _ = of(tmp_path, trials=2)
    assert status(found, "R16.rto-write") == "inconclusive"
    assert status(found, "R16.rto-write", limit=5.0) == "not met"


def test_an_outage_longer_than_the_window(tmp_path: Path) -> None:
    found, _ = of(tmp_path, outage_s=(60.0,))
    assert {t.write.state for t in found.trials} == {"not recovered"}
    assert status(found, "R16.rto-write") == "inconclusive"
    assert status(found, "R16.rto-write", limit=30.0) == "not met"
    assert status(found, "R16.automatic") == "not met"


def test_six_trials_give_an_interval(tmp_path: Path) -> None:
    found, _ = of(tmp_path, trials=6, outage_s=(19.0, 20.0, 21.0, 22.0, 23.0, 24.0), seconds=5)
    finding = found.finding("rto.write")
    assert finding is not None
    assert finding.interval == pytest.approx((19.0, 24.0))
    assert finding.confidence == pytest.approx(1 - 2 / 64)


def test_too_many_server_connections_are_not_met(tmp_path: Path) -> None:
    found, _ = of(tmp_path, max_server_connections=1.1)
    assert {status(found, f"R7.{mode}") for mode in ("transaction", "session", "statement")} == {"not met"}


def test_a_pooler_that_reconnects_all_the_time_is_not_efficient(tmp_path: Path) -> None:
    found, _ = of(tmp_path, new_connections=300)
    assert status(found, "R15.pool-efficiency") == "not met"


def test_a_log_that_the_servers_contradict_is_not_believed(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run")
    log = record / "logs" / "pool-session.log"
    line = next(one for one in log.read_text().splitlines(keepends=True) if "new connection" in one)
    log.write_text(line * 500)
    found = analyse(record)
    assert status(found, "R15.pool-efficiency") == "not run"
    assert "counted" in found.finding("pool.efficiency").why  # type: ignore[union-attr]


def test_a_log_without_connections_gives_no_efficiency(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run")
    (record / "logs" / "pool-session.log").write_text("")
    assert status(analyse(record), "R15.pool-efficiency") == "inconclusive"


def test_a_run_without_a_fault(tmp_path: Path) -> None:
    found, _ = of(tmp_path, trials=0, scenario="steady")
    for metric in ("rto.write", "rpo.rows", "split_brain.seconds", "failover.automatic"):
        finding = found.finding(metric)
        assert finding is not None
        assert finding.status == "not run", metric


@pytest.mark.parametrize("gone", ["requests", "metrics", "nodes", "routes", "reads", "writes", "events"])
def test_a_missing_table_is_never_green(tmp_path: Path, gone: str) -> None:
    record = make_record(tmp_path / "run", seconds=5, request_rate=50, trials=3)
    (record / f"{gone}.parquet").unlink()
    found = analyse(record)
    needs = {
        "requests": ["R15.query-time", "R15.cpu"],
        "metrics": ["R15.cpu", "R7.session", "R15.pool-efficiency", "R15.pool-utilisation"],
        "nodes": [],
        "routes": [],
        "reads": ["R16.rto-read"],
        "writes": ["R16.rto-write", "R16.rpo", "R16.rto-open-sessions", "R16.automatic"],
        "events": [t.id for t in targets_of("risk") if t.id.startswith(("R16", "R15"))],
    }
    for target in needs[gone]:
        assert status(found, target) != "met", target
    if gone == "nodes":
        assert found.finding("split_brain.seconds").status == "not run"  # type: ignore[union-attr]


def test_a_folder_without_a_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        analyse(tmp_path / "nothing")


def test_measure_is_stable(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", seconds=5)
    assert analyse(record).trials == analyse(str(record)).trials
    from lab.record.reader import RecordReader

    assert measure(RecordReader(record)).findings == ()
    assert truth(record).trials[0].effect > NS
