"""Contradictions on paper: each rule with a case that fires and one that does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab import cli
from lab.topology.loader import load_topology
from lab.topology.models import Topology
from reports.findings import Target, Verdict
from reports.paper import Paper, check, paper_of, rules, units
from reports.targets import Stated


def target(metric: str, comparison: str, limit: float, unit: str, **more: Any) -> Target:
    return Target.model_validate(
        {
            "id": "X1", "quote": "q", "place": "p", "metric": metric, "comparison": comparison,
            "limit": limit, "unit": unit, **more,
        }
    )  # fmt: skip


def paper(*targets: Target, stated: Stated | None = None, sets: tuple[str, ...] = ()) -> Paper:
    return Paper(load_topology("risk-prod", sets), stated or Stated(), targets)


def said(found: list[Verdict], metric: str) -> Verdict:
    return next(verdict for verdict in found if verdict.target.metric == metric)


def status(on: Paper, metric: str) -> str:
    return said(check(on), metric).status


RTO = target("rto.write", "<", 300, "s", scenarios=("kill-primary",), min_trials=3)
AUTOMATIC = target("failover.automatic", ">=", 100, "%", scenarios=("kill-primary",))
RPO = target("rpo.rows", "==", 0, "rows", scenarios=("kill-primary",))
ON_PAPER = {"method": "on paper"}


def test_every_verdict_is_on_paper_and_shows_its_arithmetic() -> None:
    found = check(paper_of(load_topology("risk-prod")))
    assert found
    for verdict in found:
        assert verdict.target.method == "on paper"
        assert verdict.why
        assert verdict.finding is None or verdict.finding.unit == units()[verdict.target.metric]


def test_a_rule_has_an_id_and_metrics_of_its_own() -> None:
    assert len(rules()) >= 6
    assert all(rule.title and rule.metrics for rule in rules().values())


def test_recovery_against_the_settings() -> None:
    good = said(check(paper(RTO)), "rto.predicted")
    assert good.status == "met"
    assert good.finding is not None
    # ttl 20 + 0.5, loop_wait 1 + 2, 1.5, 0.25 + 0.25, 0.2 + 0.25: docs/measurement.md
    assert good.finding.value == pytest.approx(25.95)
    assert "detect 20.5" in good.why
    slow = paper(RTO, sets=("postgres.patroni.ttl=300",))
    assert status(slow, "rto.predicted") == "not met"


def test_failover_needs_somebody_who_takes_over() -> None:
    assert status(paper(AUTOMATIC), "failover.successors") == "met"
    alone = paper(AUTOMATIC, sets=("postgres.nodes.pg2.role=replica",))
    assert status(alone, "failover.successors") == "not met"
    assert "rto.predicted" not in {v.target.metric for v in check(paper(RTO, sets=alone_sets()))}


def alone_sets() -> tuple[str, ...]:
    return ("postgres.nodes.pg2.role=replica",)


def test_nothing_lost_needs_a_synchronous_standby() -> None:
    good = said(check(paper(RPO)), "synchronous.standbys")
    assert good.status == "met"
    assert "second failure" in good.why
    assert status(paper(RPO, sets=("postgres.synchronous=off",)), "synchronous.standbys") == "not met"
    some = target("rpo.rows", "<=", 10, "rows", scenarios=("kill-primary",))
    assert "synchronous.standbys" not in {v.target.metric for v in check(paper(some))}


def test_pools_against_what_the_databases_accept() -> None:
    found = said(check(paper()), "paper.connections_of_node")
    # 16 GiB / 9531392 = 1802; readers' parts of 100, 50 and 200 at 40 %.
    assert (found.status, found.target.limit) == ("met", 1799)
    assert found.finding is not None
    assert found.finding.value == 40 + 20 + 80
    many = paper(sets=("poolers.pool-statement.max_server_connections=6000",))
    assert status(many, "paper.connections_of_node") == "not met"
    few = paper(sets=("postgres.parameters.max_connections=120",))
    assert status(few, "paper.connections_of_node") == "not met"


def test_pool_connections_against_a_promise() -> None:
    most = target("paper.pool_connections", "<=", 350, "1", **ON_PAPER)
    assert status(paper(most), "paper.pool_connections") == "met"
    less = target("paper.pool_connections", "<=", 80, "1", **ON_PAPER)
    assert status(paper(less), "paper.pool_connections") == "not met"


@pytest.mark.parametrize(("hours", "expected"), [(24, "not met"), (23, "met"), (168, "not met")])
def test_a_backup_a_day_does_not_give_less_than_a_day(hours: float, expected: str) -> None:
    promise = target("backup.rpo_on_paper", "<", 24, "h", **ON_PAPER)
    on = paper(promise, stated=Stated(backup_interval_h=hours))
    assert status(on, "backup.rpo_on_paper") == expected


def test_a_monthly_archive_does_not_give_a_week() -> None:
    promise = target("archive.rpo_on_paper", "<", 7, "d", **ON_PAPER)
    assert status(paper(promise, stated=Stated(archive_interval_d=30.4)), promise.metric) == "not met"
    assert status(paper(promise, stated=Stated(archive_interval_d=6)), promise.metric) == "met"
    assert status(paper(promise), promise.metric) == "not run"


def test_point_in_time_against_the_upload_of_logs() -> None:
    tight = target("pitr.rpo", "<", 300, "s", not_built="x")
    loose = target("pitr.rpo", "<", 900, "s", not_built="x")
    assert status(paper(tight, stated=Stated(pitr=True)), "pitr.rpo_on_paper") == "not met"
    assert status(paper(loose, stated=Stated(pitr=True)), "pitr.rpo_on_paper") == "met"
    daily = Stated(pitr=False, backup_interval_h=24)
    assert status(paper(loose, stated=daily), "pitr.rpo_on_paper") == "not met"
    assert "pitr.rpo_on_paper" not in {v.target.metric for v in check(paper(loose))}


@pytest.mark.parametrize(("days", "expected"), [(35, "met"), (7, "not met"), (40, "met")])
def test_retention(days: float, expected: str) -> None:
    promise = target("backup.retention_allowed", ">=", 35, "d", **ON_PAPER)
    assert status(paper(promise, stated=Stated(retention_d=days)), promise.metric) == expected


def test_no_service_keeps_automated_backups_longer_than_it_does() -> None:
    promise = target("backup.retention_allowed", ">=", 60, "d", **ON_PAPER)
    assert status(paper(promise, stated=Stated(retention_d=60)), promise.metric) == "not met"


@pytest.mark.parametrize(
    ("sets", "expected", "word"),
    [
        ((), "met", "can be lost"),
        (("etcd.etcd2.zone=a",), "not met", "majority of etcd"),
        (("postgres.nodes.pg2.zone=a",), "not met", "promotable database"),
        (("cache.sentinels.sentinel2.zone=a",), "not met", "majority of the Sentinels"),
        (("cache.nodes.redis2.zone=a",), "not met", "cache node"),
    ],
)
def test_the_loss_of_a_zone(sets: tuple[str, ...], expected: str, word: str) -> None:
    found = said(check(paper(AUTOMATIC, sets=sets)), "topology.survives_zone")
    assert found.status == expected
    assert word in found.why


@pytest.mark.parametrize(
    ("metric", "value", "unit"),
    [
        ("topology.databases", 4, "1"), ("topology.primaries", 1, "1"), ("topology.standbys", 1, "1"),
        ("topology.replicas", 2, "1"), ("topology.zones", 3, "1"), ("topology.cache_nodes", 2, "1"),
        ("topology.sentinels", 3, "1"), ("topology.cache_ttl", 300, "s"),
        ("topology.tls_min_version", 1.2, "1"),
    ],
)  # fmt: skip
def test_what_there_is(metric: str, value: float, unit: str) -> None:
    assert status(paper(target(metric, "==", value, unit, **ON_PAPER)), metric) == "met"
    assert status(paper(target(metric, ">", value, unit, **ON_PAPER)), metric) == "not met"


def test_without_tls_there_is_no_version() -> None:
    promise = target("topology.tls_min_version", ">=", 1.2, "1", **ON_PAPER)
    assert status(paper(promise, sets=("tls.enabled=false",)), promise.metric) == "not met"


def test_a_promise_on_paper_that_nothing_answers_is_not_run() -> None:
    found = check(paper(target("nobody.knows", "==", 1, "1", **ON_PAPER)))
    assert said(found, "nobody.knows").status == "not run"


def test_promises_of_another_environment_are_left_out() -> None:
    ids = {one.id for one in paper_of(load_topology("risk-prod")).targets}
    assert "R1.primary" in ids
    assert "R1.dev" not in ids


COST = target("cost.month", "<=", 15, "$", **ON_PAPER)
PAUSE = target("acu.auto_pause_possible", "==", 100, "%", **ON_PAPER)


def serverless(minimum: float, version: str = "15.4", pause_s: float | None = None) -> Paper:
    sets = (f"postgres.nodes.pg1.acu.minimum={minimum}", f"postgres.version={version}")
    return Paper(load_topology("clinical-dev", sets), Stated(auto_pause_s=pause_s), (COST, PAUSE))


def test_one_capacity_unit_for_a_month() -> None:
    one = said(check(serverless(1)), "cost.month")
    assert one.status == "not met"
    assert one.finding is not None
    assert one.finding.value == pytest.approx(87.60)
    assert "1 ACU × 0.12 $/h × 730 h = 87.60 $" in one.why
    half = said(check(serverless(0.5)), "cost.month")
    assert half.finding is not None
    assert half.finding.value == pytest.approx(43.80)


def test_a_cost_that_is_kept() -> None:
    more = COST.model_copy(update={"limit": 50.0})
    on = serverless(0.5)
    assert status(Paper(on.topology, on.stated, (more,)), "cost.month") == "met"


def test_every_instance_is_paid_for() -> None:
    found = said(check(Paper(load_topology("clinical-prod"), Stated(), (COST,))), "cost.month")
    assert found.finding is not None
    assert found.finding.value == pytest.approx(3 * 87.60)


def test_classes_have_prices_and_what_has_none_is_not_run() -> None:
    assert status(paper(COST), "cost.month") == "not met"
    own = Paper(load_topology("dora-prod"), Stated(), (COST,))
    assert status(own, "cost.month") == "not run"


def test_what_pauses_has_no_least_cost() -> None:
    assert status(serverless(0, "16.4", 300), "cost.month") == "inconclusive"


@pytest.mark.parametrize(
    ("minimum", "version", "idle", "expected", "word"),
    [
        (0, "15.7", 300, "met", "allow it"),
        (0, "17.1", 300, "met", "allow it"),
        (0, "16", 300, "met", "allow it"),
        (0, "15.4", 300, "not met", "version 15.4"),
        (0, "12.20", 300, "not met", "version 12.20"),
        (0.5, "15.7", 300, "not met", "0.5 ACU"),
        (0, "15.7", 60, "not met", "idle time"),
    ],
)
def test_auto_pause(minimum: float, version: str, idle: float, expected: str, word: str) -> None:
    found = said(check(serverless(minimum, version, idle)), PAUSE.metric)
    assert found.status == expected
    assert word in found.why


def test_only_a_serverless_database_pauses() -> None:
    on = paper(PAUSE, stated=Stated(auto_pause_s=300))
    assert "no instance is serverless" in said(check(on), PAUSE.metric).why
    assert status(paper(PAUSE), PAUSE.metric) == "not run"


def test_readers_may_take_over_and_serve() -> None:
    found = check(Paper(load_topology("experimentation-prod"), Stated(), (AUTOMATIC,)))
    assert said(found, "failover.successors").status == "met"
    alone = check(Paper(load_topology("innovate-dev"), Stated(), (AUTOMATIC,)))
    assert said(alone, "failover.successors").status == "not met"


def test_every_shipped_topology_can_be_checked() -> None:
    from lab.topology.loader import list_topologies

    for name in list_topologies():
        for verdict in check(paper_of(load_topology(name))):
            assert verdict.status in ("met", "not met"), (name, verdict.target.id, verdict.why)


# The command


def test_the_command_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["check", "risk-prod"]) == 1
    out = capsys.readouterr().out
    assert "contradiction" in out
    assert "R19.rpo" in out
    assert "R16.rto-write" not in out
    assert cli.run(["check", "risk-prod", "--all", "--set", "postgres.patroni.ttl=300"]) == 1
    assert "R16.rto-write" in capsys.readouterr().out


def test_the_command_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["check", "risk-prod", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == 1
    assert {v["target"]["method"] for v in document["topologies"]["risk-prod"]} == {"on paper"}


def test_a_topology_of_ones_own_has_no_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = load_topology("risk-prod").model_copy(update={"name": "mine", "system": "mine"})
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(own.model_dump(mode="json")))
    assert cli.run(["check", str(path)]) == 0
    assert cli.run(["check", "nothing-such"]) == 3
    assert "nothing-such" in capsys.readouterr().err


def test_a_topology_without_poolers_says_nothing_of_them() -> None:
    own = load_topology("risk-prod").model_dump(mode="json")
    bare = Topology.model_validate({**own, "poolers": [], "links": []})
    assert "paper.connections_of_node" not in {v.target.metric for v in check(Paper(bare))}
