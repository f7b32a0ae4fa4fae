"""Every fault on topologies of a single database: planned, or *not run (why)* before anything is injected."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from lab.deploy.allocate import sample_allocation
from lab.deploy.allocation import Allocation
from lab.faults import faults
from lab.faults._base import traits
from lab.record.reader import RecordReader
from lab.scenario.chaos import ANY, TARGETS, choices
from lab.scenario.journal import Journal
from lab.scenario.loader import list_scenarios, load_scenario
from lab.scenario.models import Scenario
from lab.scenario.needs import lacking
from lab.scenario.outline import as_json
from lab.scenario.plan import Plan, make_plan
from lab.scenario.runner import run_scenario
from lab.scenario.targets import candidates
from lab.topology import loader
from lab.topology.models import Topology
from tests.fake_lab import FakeLab

load_topology = cache(loader.load_topology)


@cache
def allocation(name: str) -> Allocation:
    return sample_allocation("t", load_topology(name))


SINGLE = [
    name for name in loader.list_topologies() if load_topology(name).postgres.high_availability == "none"
]
OF_PATRONI = {
    "abandoned-slot", "change-configuration", "kill-patroni", "lose-patroni", "pause-both", "pause-patroni",
    "restart-postgres", "rolling-restart", "switchover",
}  # fmt: skip
OF_PEERS = {"cut-from-etcd", "cut-from-replicas", "isolate-from-peers"}
ABSENT = {"standby", "any-replica", "sync-replica", "etcd-leader", "etcd-follower", "etcd-majority"}


def story(fault: str, target: str, workload: str = "bank") -> Scenario:
    return Scenario.model_validate(
        {
            "name": "x",
            "title": "t",
            "claim": "c",
            "load": {"workload": workload},
            "steps": [{"fault": fault, "target": target}],
        }
    )


def planned(fault: str, target: str, topology: Topology) -> Plan:
    return make_plan(story(fault, target), topology, allocation(topology.name), 1)


def test_there_are_topologies_of_one_database() -> None:
    assert {"risk-dev", "clinical-dev", "dora-dev"} <= set(SINGLE)


@pytest.mark.parametrize("fault", sorted(faults()))
def test_a_fault_is_planned_or_not_run(fault: str) -> None:
    for name in SINGLE:
        check(fault, load_topology(name))


def check(fault: str, topology: Topology) -> None:
    for sort in traits(faults()[fault]).on or ANY:
        for target in TARGETS[sort]:
            plan = planned(fault, target, topology)
            document = as_json(plan)  # what --dry-run prints
            if plan.not_run:
                assert (plan.trials, document["steps"]) == (0, [])
                assert plan.not_run.startswith(f"step 1: {fault}: ")
                assert topology.name in plan.not_run or "no such peer" in plan.not_run
            else:
                assert plan.trials > 0
                assert candidates(target, topology)
                assert document["not_run"] is None
            if target in ABSENT or (fault in OF_PATRONI | OF_PEERS and target == "primary"):
                assert plan.not_run


@pytest.mark.parametrize("name", SINGLE)
def test_what_a_single_database_has_room_for_is_performed(name: str) -> None:
    topology = load_topology(name)
    for fault in ("kill-postmaster", "kill-node", "isolate", "pause-postmaster", "kill-backend", "oom-kill"):
        assert not planned(fault, "primary", topology).not_run


def test_a_cluster_has_room_for_every_fault() -> None:
    topology = load_topology("risk-prod")
    for name, fault in faults().items():
        for sort in traits(fault).on or ("database",):
            for target in TARGETS[sort]:
                assert not planned(name, target, topology).not_run, name


@pytest.mark.parametrize("name", SINGLE)
def test_every_shipped_scenario_is_planned_or_not_run(name: str) -> None:
    topology = load_topology(name)
    for scenario in list_scenarios():
        settings = ["load.workload=bank", "load.pool=null"] if topology.system != "risk" else []
        loaded = load_scenario(scenario, settings)
        plan = make_plan(loaded, topology, allocation(topology.name), 1)
        assert bool(plan.trials) == bool(loaded.step and not plan.not_run)


def test_chaos_draws_only_what_a_single_database_has_room_for() -> None:
    topology = load_topology("risk-dev")
    for fault, target in choices(topology):
        assert not lacking(topology, faults()[fault], candidates(target, topology)), (fault, target)


def test_nothing_is_touched_where_a_fault_has_no_room(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path, topology="risk-dev")
    done = run_scenario(lab, story("switchover", "primary"), seed=1, runs_dir=tmp_path / "runs")
    record = RecordReader(done.path)
    why = "step 1: switchover: topology risk-dev has no Patroni"
    assert (done.trials, record.manifest.state, record.manifest.not_run) == (0, "closed", why)
    assert all(not node.calls for node in lab.nodes.values())
    assert not Journal(lab.state_dir).pending()
