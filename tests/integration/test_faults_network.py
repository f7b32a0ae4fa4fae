"""Partitions on a real lab: the negative control of the whole product, and every cut seen and undone.

The primary is cut off from its peers while clients still reach it. With a synchronous standby nothing that
was acknowledged may be lost; without one something must be, and the verdict on RPO 0 must be *not met*.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.deploy.docker_driver import DockerLab
from lab.deploy.down import down
from lab.deploy.readiness import wait_ready
from lab.deploy.up import up
from lab.faults import find
from lab.faults._packets import Partition
from lab.record.reader import RecordReader
from lab.scenario.loader import load_scenario
from lab.scenario.runner import run_scenario
from lab.topology.loader import load_topology
from reports.analysis import Analysis, analyse
from reports.judge import judge
from reports.targets import targets_of
from tests.integration.conftest import Silent

SCENARIO = "isolate-primary-from-peers"

# The engine's client leaves sockets to the garbage collector, in whatever test is running then.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def partitioned(lab: DockerLab, runs: Path) -> Analysis:
    """One trial of the partition; the record is whole, the cut was seen, and another node took over."""
    wait_ready(lab)
    story = load_scenario(SCENARIO, ["settle=3", "trials=1", "settle_within=120", "load.rate=20"])
    done = run_scenario(lab, story, seed=7, runs_dir=runs)
    record = RecordReader(done.path)
    assert record.manifest.state == "closed"
    analysis = analyse(done.path)
    (trial,) = analysis.trials
    assert not trial.void, trial.void
    assert trial.verified
    assert trial.new_primary not in (None, trial.target)
    assert trial.ledger.complete, trial.ledger.why
    assert trial.ledger.phantom == trial.ledger.duplicate == 0
    assert by_hand(lab, record) == trial.ledger.lost
    return analysis


def by_hand(lab: DockerLab, record: RecordReader) -> int:
    """Acknowledged numbers that the primary does not have, found without the lab's own audit and analysis."""
    writes = record.frame("writes", ["n", "outcome"])
    acknowledged = set(writes[writes.outcome == "acknowledged"].n)
    for node in (n.name for n in lab.topology.postgres.nodes):
        words = ["psql", "-h", "/run/postgresql", "-d", lab.topology.postgres.database, "-AtXc"]
        said = lab.nodes[node].run([*words, "SELECT pg_is_in_recovery()"], user="postgres").stdout.strip()
        if said == "f":
            query = f"SELECT n FROM lab.ledger WHERE run = '{record.manifest.run}'"
            found = lab.nodes[node].run([*words, query], user="postgres", timeout_s=60).stdout.split()
            return len(acknowledged - {int(n) for n in found})
    raise AssertionError("no node accepts writes")


def rpo(analysis: Analysis) -> str:
    target = next(target for target in targets_of("risk") if target.id == "R16.rpo")
    return judge(analysis, target).status


def test_with_a_synchronous_standby_nothing_is_lost(lab_risk_prod: DockerLab, tmp_path: Path) -> None:
    analysis = partitioned(lab_risk_prod, tmp_path / "runs")
    assert analysis.trials[0].ledger.lost == 0
    assert analysis.trials[0].exposure.proof == "proves"
    # One trial proves nothing yet; three such do.
    assert rpo(analysis) == "inconclusive"


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("isolate", "pg4"),
        ("isolate", "pool-session"),
        ("isolate", "etcd3"),
        pytest.param("isolate-from-peers", "pg4", marks=pytest.mark.slow),
        ("cut-from-etcd", "pg4"),
        pytest.param("cut-from-replicas", "pg4", marks=pytest.mark.slow),
        pytest.param("cut-from-clients", "pg4", marks=pytest.mark.slow),
        pytest.param("isolate-inbound", "pg4", marks=pytest.mark.slow),
        ("isolate-outbound", "pg4"),
        pytest.param("reject", "pg4", marks=pytest.mark.slow),
        ("flapping", "pg4"),
        ("disconnect", "pg4"),
    ],
)
def test_a_cut_is_seen_from_the_other_side_and_undone(lab_risk_prod: DockerLab, name: str, node: str) -> None:
    lab, fault = lab_risk_prod, find(name)
    plan = {**fault.plan(lab, node), "deadline_s": 60.0}
    effect = fault.inject(lab, node, plan)
    try:
        assert effect.wall_latest - effect.wall_earliest < 2.0
        evidence = fault.verify(lab, effect)
        assert evidence.found, evidence.how
        assert name == "flapping" or not fault.verify_healed(lab, plan).found
    finally:
        fault.heal(lab, plan)
    fault.heal(lab, plan)
    evidence = fault.verify_healed(lab, plan)
    assert evidence.found, evidence.how
    assert not fault.verify(lab, effect).found


def test_a_node_undoes_its_cut_at_the_deadline(lab_risk_prod: DockerLab) -> None:
    lab, fault = lab_risk_prod, find("isolate")
    assert isinstance(fault, Partition)
    plan = {**fault.plan(lab, "pg4"), "deadline_s": 4.0}
    effect = fault.inject(lab, "pg4", plan)
    assert fault.verify(lab, effect).found
    # Nobody heals.
    evidence = fault.verify_healed(lab, plan)
    for _ in range(5):
        evidence = fault.verify_healed(lab, plan)
        if evidence.found:
            break
    assert evidence.found, evidence.how


@pytest.fixture
def asynchronous(state_dir: Path) -> Iterator[DockerLab]:
    """risk-prod as nobody should run it."""
    assert state_dir
    name = f"it-{os.getpid()}-async"
    try:
        yield up(name, load_topology("risk-prod", ["postgres.synchronous=off"]), Silent(), timeout_s=300).lab
    finally:
        down(name)


def test_without_one_acknowledged_writes_are_lost_and_the_promise_is_not_met(
    asynchronous: DockerLab, tmp_path: Path
) -> None:
    analysis = partitioned(asynchronous, tmp_path / "runs")
    (trial,) = analysis.trials
    assert trial.ledger.lost > 50
    assert trial.ledger.rpo_seconds is not None
    assert 1 < trial.ledger.rpo_seconds < 20
    assert rpo(analysis) == "not met"
