"""Every fault on a real lab under load: injected, seen, healed twice, and the lab whole afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from lab.deploy.docker_driver import DockerLab
from lab.deploy.readiness import wait_ready
from lab.errors import LabError
from lab.faults import _patroni, faults, find
from lab.faults._base import Fault, On, plan_for, traits
from lab.faults._shell import postmaster
from lab.load import LoadHandle, LoadSpec, start_load
from lab.scenario import needs

# The engine's client leaves sockets to the garbage collector, in whatever test is running then.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WHOLE_WITHIN_S = 180.0
LOAD_S = 3600.0


@pytest.fixture(scope="module")
def lab(lab_risk_prod: DockerLab) -> Iterator[DockerLab]:
    """Under a load for as long as this module lasts: some faults need clients that they can hit."""
    handle: LoadHandle = start_load(
        lab_risk_prod, LoadSpec(rate=50, deadline_s=LOAD_S), f"faults-{os.getpid()}"
    )
    yield lab_risk_prod
    handle.stop(5)


def victim(lab: DockerLab, fault: Fault) -> str:
    """A node that the fault can hit: the leader where it hits databases, but replay is a replica's."""
    if fault.name in ("pause-replay", "oom-kill", "squeeze-memory"):
        leads = _patroni.leader(lab)
        return next(n.name for n in reversed(lab.topology.postgres.nodes) if n.name != leads)
    on: tuple[On, ...] = traits(fault).on or ("database",)
    if "database" in on:
        leads = _patroni.leader(lab)
        assert leads is not None
        return leads
    if "pooler" in on:
        return lab.topology.poolers[0].name
    if "redis" in on:
        assert lab.topology.cache is not None
        secret = 'REDISCLI_AUTH="$(</run/secrets/password_redis)"'
        ask = ["bash", "-c", f"{secret} redis-cli --tls --cacert /run/secrets/ca.crt ROLE"]
        for node in lab.topology.cache.nodes:
            if "master" in lab.nodes[node.name].run(ask).stdout:
                return node.name
    members: dict[On, tuple[str, ...]] = {
        "etcd": tuple(m.name for m in lab.topology.etcd),
        "router": tuple(m.name for m in lab.topology.routers),
        "proxy": (lab.topology.proxy.name,) if lab.topology.proxy else (),
        "client": tuple(m.name for m in lab.topology.clients),
    }
    return next(name for sort in on for name in members.get(sort, ()))


@pytest.mark.parametrize("name", [name for name in faults() if name != "none"])
def test_every_fault_takes_effect_and_heals(lab: DockerLab, name: str) -> None:
    fault = find(name)
    node = victim(lab, fault)
    why = needs.unmet(lab, fault, [node])
    if why:
        pytest.skip(f"not run: {why}")
    wait_ready(lab, timeout_s=WHOLE_WITHIN_S)
    plan = {**plan_for(fault, lab, node, (node,)), "deadline_s": 150.0}
    # Healing is harmless where the injection never happened.
    fault.heal(lab, plan)
    before = time.time()
    try:
        effect = fault.inject(lab, node, plan)
        assert before - 1 <= effect.wall_earliest <= effect.wall_latest <= time.time() + 1
        evidence = fault.verify(lab, effect)
    finally:
        fault.heal(lab, plan)
        fault.heal(lab, plan)
    assert evidence.found, evidence.how
    healed = fault.verify_healed(lab, plan)
    assert healed.found, healed.how
    wait_ready(lab, timeout_s=WHOLE_WITHIN_S)


@pytest.mark.parametrize(
    "name", ["pause-postmaster", "pause-patroni", "pause-pool", "lose-patroni", "pause-replay"]
)
def test_the_node_undoes_it_at_its_deadline(lab: DockerLab, name: str) -> None:
    """Nobody heals: the deadline on the node itself does."""
    fault = find(name)
    node = victim(lab, fault)
    wait_ready(lab, timeout_s=WHOLE_WITHIN_S)
    plan = {**fault.plan(lab, node), "deadline_s": 8.0}
    effect = fault.inject(lab, node, plan)
    try:
        assert fault.verify(lab, effect).found
        time.sleep(max(0.0, effect.wall_latest + 9 - time.time()))
        healed = fault.verify_healed(lab, plan)
        assert healed.found, healed.how
    finally:
        fault.heal(lab, plan)
    wait_ready(lab, timeout_s=WHOLE_WITHIN_S)


def test_the_null_fault_changes_nothing(lab: DockerLab) -> None:
    wait_ready(lab, timeout_s=WHOLE_WITHIN_S)

    def look() -> tuple[object, ...]:
        return (
            _patroni.leader(lab),
            {n.name: postmaster(lab, n.name) for n in lab.topology.postgres.nodes},
            {name: (node.state().started_at, node.state().paused) for name, node in lab.nodes.items()},
        )

    before, fault = look(), find("none")
    effect = fault.inject(lab, "pg1", fault.plan(lab, "pg1"))
    assert fault.verify(lab, effect).found
    fault.heal(lab, effect.heal)
    assert fault.verify_healed(lab, effect.heal).found
    assert look() == before


def test_what_is_not_there_cannot_be_hit(lab: DockerLab) -> None:
    replica = victim(lab, find("pause-replay"))
    with pytest.raises(LabError, match="does not lead"):
        find("switchover").inject(lab, replica, {"node": replica})
    leads = victim(lab, find("switchover"))
    with pytest.raises(LabError, match="no replica"):
        find("pause-replay").inject(lab, leads, {"node": leads})
