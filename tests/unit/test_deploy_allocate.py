"""Allocation: nothing that is taken is given out again, and the same topology gets the same sample."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import closing
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.deploy import allocate as module
from lab.deploy.allocate import Machine, allocate, choose_networks, choose_ports, sample_allocation
from lab.deploy.allocation import Allocation
from lab.deploy.endpoints import networks_of, published_ports
from lab.deploy.render import render
from lab.errors import LabError, UsageError
from lab.topology.loader import load_topology
from lab.topology.sizing import cores_for

TOPOLOGY = load_topology("risk-prod")
MACHINE = Machine(cores=4, memory_bytes=16 * 1024**3)


def _allocate(name: str, machine: Machine) -> Allocation:
    images = {"postgres": "p:1", "client": "c:1"}
    return allocate(
        name, TOPOLOGY, machine, images=images, postgres_version="15", toxiproxy=True, probe_ports=False
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 30)).map(
            lambda pair: IPv4Network(pair, strict=False)
        ),
        max_size=30,
    )
)
def test_networks_never_overlap_with_what_is_taken(taken: list[IPv4Network]) -> None:
    chosen = [IPv4Network(text) for text in choose_networks(taken).values()]
    assert len(chosen) == 3
    assert not any(one.overlaps(other) for one in chosen for other in taken)
    assert not any(a.overlaps(b) for i, a in enumerate(chosen) for b in chosen[i + 1 :])


def test_no_subnet_left_is_an_error_with_a_hint() -> None:
    with pytest.raises(LabError) as caught:
        choose_networks([IPv4Network("0.0.0.0/0")])
    assert caught.value.hint


@settings(max_examples=25, deadline=None)
@given(st.frozensets(st.integers(15000, 15100)))
def test_ports_are_distinct_and_free(taken: frozenset[int]) -> None:
    chosen = choose_ports(TOPOLOGY, taken, probe=False)
    assert set(chosen) == set(published_ports(TOPOLOGY))
    assert len(set(chosen.values())) == len(chosen)
    assert not set(chosen.values()) & taken


def test_a_port_that_a_program_holds_is_not_chosen() -> None:
    first = min(choose_ports(TOPOLOGY, ()).values())
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", first))
        assert first not in choose_ports(TOPOLOGY, ()).values()


def test_two_labs_share_nothing() -> None:
    one = _allocate("one", MACHINE)
    subnets = tuple(IPv4Network(text) for text in one.networks.values())
    two = _allocate("two", Machine(4, 16 * 1024**3, subnets, frozenset(one.published.values())))
    assert not set(one.published.values()) & set(two.published.values())
    assert not set(one.networks.values()) & set(two.networks.values())
    assert one.instance_id != two.instance_id


def test_every_node_has_an_address_on_each_of_its_networks() -> None:
    made = sample_allocation("demo", TOPOLOGY)
    seen = set()
    for node, networks in networks_of(TOPOLOGY).items():
        assert set(made.addresses[node]) == set(networks)
        for network, address in made.addresses[node].items():
            assert ipaddress.ip_address(address) in IPv4Network(made.networks[network])
            assert address not in seen
            seen.add(address)


@pytest.mark.parametrize(
    ("machine_cores", "clients", "others"), [(2, "1", "0"), (4, "3", "0-2"), (16, "12-15", "0-11")]
)
def test_pinned_nodes_share_no_core_with_clients(machine_cores: int, clients: str, others: str) -> None:
    assert cores_for(TOPOLOGY, machine_cores) == {}
    found = cores_for(load_topology("risk-prod", ["pinned=true"]), machine_cores)
    assert set(found) == {member.name for member in TOPOLOGY.members()}
    assert {node for node, cores in found.items() if cores == clients} == {"client", "observer"}
    assert set(found.values()) == {clients, others}


def test_one_core_cannot_be_shared_out() -> None:
    with pytest.raises(UsageError, match="two cores"):
        cores_for(load_topology("risk-prod", ["pinned=true"]), 1)


def test_compose_is_told_the_cores() -> None:
    topology = load_topology("risk-prod", ["pinned=true"])
    text = render(topology, sample_allocation("demo", topology))["compose.yaml"]
    services = yaml.safe_load(text)["services"]
    assert services["client"]["cpuset"] != services["pg1"]["cpuset"] == services["etcd1"]["cpuset"]
    free = render(TOPOLOGY, sample_allocation("demo", TOPOLOGY))["compose.yaml"]
    assert "cpuset" not in free


def test_the_sample_is_always_the_same() -> None:
    assert sample_allocation("demo", TOPOLOGY) == sample_allocation("demo", TOPOLOGY)


def test_host_routes_leave_out_the_default_route(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    assert list(module.host_routes(table)) == [IPv4Network("192.168.0.0/16")]
    assert list(module.host_routes(tmp_path / "none")) == []
