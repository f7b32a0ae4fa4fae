"""Faults of a link on a real lab: clients reach their pooler through Toxiproxy."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.deploy.docker_driver import DockerLab
from lab.deploy.down import down
from lab.deploy.readiness import wait_ready
from lab.deploy.up import up
from lab.faults import faults, find
from lab.faults._base import Fault
from lab.faults._toxics import LinkFault
from lab.record.reader import RecordReader
from lab.scenario.journal import Journal, heal_pending
from lab.scenario.loader import load_scenario
from lab.scenario.needs import unmet
from lab.scenario.runner import run_scenario
from lab.topology.loader import load_topology
from lab.topology.models import Topology
from reports.analysis import analyse
from tests.integration.conftest import Silent

# The engine's client leaves sockets to the garbage collector, in whatever test is running then.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

POOLER = "pool-transaction"


@pytest.fixture(scope="module")
def lab(state_dir: Path, small: Topology) -> Iterator[DockerLab]:
    """One database behind one pooler, with the link of the clients proxied."""
    assert state_dir
    links = load_topology("risk-prod", ["links.client-pooler.path=proxied"])
    cut = [link for link in links.links if (link.source, link.target) == ("client", "pooler")]
    topology = Topology.model_validate(
        {**small.model_dump(), "proxy": {"name": "toxiproxy"}, "links": [link.model_dump() for link in cut]}
    )
    name = f"it-{os.getpid()}-links"
    try:
        yield up(name, topology, Silent(), timeout_s=300).lab
    finally:
        down(name)


def seen(fault: Fault, lab: DockerLab, plan: dict[str, object]) -> None:
    """Inject, and see that it took effect; healing is not found while it is in force."""
    effect = fault.inject(lab, str(plan["node"]), plan)
    assert 0 <= effect.wall_latest - effect.wall_earliest < 2
    assert time.time() - 60 < effect.wall_earliest <= effect.wall_latest <= time.time() + 1
    evidence = fault.verify(lab, effect)
    assert evidence.found, evidence.how
    assert not fault.verify_healed(lab, plan).found


def test_latency_is_measured_and_undone_by_the_journal(lab: DockerLab) -> None:
    fault = find("latency")
    plan = {**fault.plan(lab, POOLER), "deadline_s": 120.0}
    # Before: a link that is as good through the proxy as past it.
    assert fault.verify_healed(lab, plan).found
    Journal(lab.state_dir).begin("heal", fault=fault.name, instructions=plan, trial=1, step=1)
    seen(fault, lab, plan)
    # Its runner is gone; this is what the next `lab` command does.
    assert heal_pending(lab)
    healed = fault.verify_healed(lab, plan)
    assert healed.found, healed.how
    assert not Journal(lab.state_dir).pending()
    # The other links are direct.
    assert "--set links.pooler-router.path=proxied" in unmet(lab, fault, ["router"])


def test_nobody_comes_back_and_the_proxys_node_undoes_it(lab: DockerLab) -> None:
    fault = find("latency")
    plan = {**fault.plan(lab, POOLER), "deadline_s": 6.0}
    begun = time.monotonic()
    seen(fault, lab, plan)
    time.sleep(max(0.0, begun + 8 - time.monotonic()))
    healed = fault.verify_healed(lab, plan)
    assert healed.found, healed.how


def test_writes_whose_answer_is_cut_are_unknown_and_there(lab: DockerLab, tmp_path: Path) -> None:
    wait_ready(lab)
    fields = ["settle=3", "trials=1", "settle_within=120", "load.rate=20", "recovery.window=10"]
    done = run_scenario(lab, load_scenario("commit-answer-cut", fields), seed=3, runs_dir=tmp_path / "runs")
    record = RecordReader(done.path)
    assert record.manifest.state == "closed"
    (trial,) = analyse(done.path).trials
    assert not trial.void, trial.void
    assert trial.verified
    ledger = trial.ledger
    assert ledger.complete, ledger.why
    # Each of them was committed, and none of them was told to be.
    assert ledger.unknown > 0
    assert ledger.unknown_present > 0
    assert ledger.lost == ledger.phantom == ledger.duplicate == 0
    # By hand: unknown numbers of the ledger that the database has.
    writes = record.frame("writes", ["n", "outcome"])
    unknown = set(writes[writes.outcome == "unknown"].n)
    words = ["psql", "-h", "/run/postgresql", "-d", lab.topology.postgres.database, "-AtXc"]
    query = f"SELECT n FROM lab.ledger WHERE run = '{record.manifest.run}'"
    there = lab.nodes["pg1"].run([*words, query], user="postgres", timeout_s=60).stdout.split()
    assert len(unknown & {int(n) for n in there}) == ledger.unknown_present


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, fault in faults().items() if isinstance(fault, LinkFault)])
def test_every_fault_of_a_link_takes_effect_and_heals(lab: DockerLab, name: str) -> None:
    fault = find(name)
    wait_ready(lab)
    plan = {**fault.plan(lab, POOLER), "deadline_s": 120.0}
    fault.heal(lab, plan)
    try:
        seen(fault, lab, plan)
    finally:
        fault.heal(lab, plan)
        fault.heal(lab, plan)
    healed = fault.verify_healed(lab, plan)
    assert healed.found, healed.how
