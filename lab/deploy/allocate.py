"""Choosing what a new lab gets: subnets, addresses, ports, scale. The result is frozen and recorded.

Two labs never collide: the choice is made under a lock, is written down before the lock is let go, and
takes into account what other labs wrote down, what the engine really has, and what this host uses.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from lab.deploy import state
from lab.deploy.allocation import Allocation
from lab.deploy.endpoints import NETWORKS, images_of, networks_of, published_ports
from lab.errors import LabError
from lab.topology.models import Topology
from lab.topology.sizing import cores_for, resources_for, scale_for

FIRST_PORT = 15000
LAST_PORT = 29999
"""Published ports come from below the kernel's ephemeral range (32768 on)."""
FIRST_HOST = 10
"""Last byte of the first node's address; those before it are the gateway's and the engine's."""
_SAMPLE_CORES = 4
_SAMPLE_MEMORY = 8 * 1024**3


@dataclass(frozen=True)
class Machine:
    """The engine's host, and what is taken on it."""

    cores: float
    memory_bytes: int
    taken_networks: tuple[IPv4Network, ...] = ()
    taken_ports: frozenset[int] = field(default_factory=frozenset)


def look_at_machine() -> Machine:
    """Ask the engine, this host and the other labs' allocations. EngineError where no engine answers."""
    # Slow to import, and a plan on paper needs none.
    from lab.deploy.engine import api, engine_errors, is_local

    networks: list[IPv4Network] = []
    ports: set[int] = set()
    with engine_errors("ask the engine for its networks and ports"):
        info = api().info()
        for network in api().networks():
            for config in (network.get("IPAM") or {}).get("Config") or ():
                networks += _ipv4(config.get("Subnet"))
        for container in api().containers(all=True):
            ports |= {int(p["PublicPort"]) for p in container.get("Ports") or () if p.get("PublicPort")}
    if is_local():
        networks += list(host_routes())
    for other in state.lab_names():
        try:
            allocation = state.load_allocation(other)
        except LabError:
            continue  # half-made: what it has is in the engine's own lists
        ports |= set(allocation.published.values())
        for subnet in allocation.networks.values():
            networks += _ipv4(subnet)
    return Machine(float(info["NCPU"]), int(info["MemTotal"]), tuple(networks), frozenset(ports))


def _ipv4(text: str | None) -> list[IPv4Network]:
    try:
        return [ipaddress.IPv4Network(text, strict=False)] if text else []
    except ValueError:
        return []  # IPv6: the lab uses none


def host_routes(table: Path = Path("/proc/net/route")) -> Iterator[IPv4Network]:
    """Networks that this host routes to, without the default route. None where there is no such table."""
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        address, mask = (socket.inet_ntoa(struct.pack("=L", int(fields[i], 16))) for i in (1, 7))
        if mask != "0.0.0.0":
            yield IPv4Network(f"{address}/{mask}", strict=False)


def candidates() -> Iterator[IPv4Network]:
    """Private /24 networks, those first that least often mean something on a network."""
    for block in ("10.201.0.0/16", "10.202.0.0/16", "172.29.0.0/16", "172.30.0.0/16", "192.168.128.0/17"):
        yield from ipaddress.IPv4Network(block).subnets(new_prefix=24)


def choose_networks(taken: Iterable[IPv4Network]) -> dict[str, str]:
    """Three subnets that overlap with none of those taken. LabError where there are not three left."""
    used = tuple(taken)
    free = (net for net in candidates() if not any(net.overlaps(other) for other in used))
    chosen: dict[str, str] = dict(zip(NETWORKS, (str(net) for net in free), strict=False))
    if len(chosen) < len(NETWORKS):
        raise LabError(
            "no three free private subnets are left on this host",
            hint="`docker network prune` removes unused networks; a VPN may route all private addresses.",
        )
    return chosen


def choose_addresses(topology: Topology, networks: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Node → network → address. A node has the same last byte on each of its networks."""
    attached = networks_of(topology)
    members = topology.members()
    if len(members) > 254 - FIRST_HOST:
        raise LabError(f"{len(members)} nodes do not fit into a /24 network")
    return {
        member.name: {
            network: str(IPv4Network(networks[network])[FIRST_HOST + index])
            for network in attached[member.name]
        }
        for index, member in enumerate(members)
    }


def choose_ports(topology: Topology, taken: Iterable[int], *, probe: bool = True) -> dict[str, int]:
    """A free port on 127.0.0.1 for everything published, counting up from FIRST_PORT.

    Args:
        topology: says what is published.
        taken: ports of other labs and of the engine's containers.
        probe: also try to bind each port on this host.
    """
    used = set(taken)
    chosen: dict[str, int] = {}
    port = FIRST_PORT
    for name in published_ports(topology):
        while port in used or (probe and not _is_free(port)):
            port += 1
        if port > LAST_PORT:
            raise LabError(f"no free port between {FIRST_PORT} and {LAST_PORT} on 127.0.0.1")
        chosen[name] = port
        port += 1
    return chosen


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with closing(socket.socket(socket.AF_INET, kind)) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def allocate(
    name: str,
    topology: Topology,
    machine: Machine,
    *,
    images: Mapping[str, str],
    postgres_version: str,
    toxiproxy: bool,
    probe_ports: bool = True,
    instance_id: str | None = None,
) -> Allocation:
    """Choose everything for a new lab. Call with the allocation lock held, and save the result under it."""
    networks = choose_networks(machine.taken_networks)
    scale = scale_for(topology, machine.cores, machine.memory_bytes)
    resources, _ = resources_for(topology, scale)
    needed = set(images_of(topology).values())
    return Allocation(
        lab=name,
        networks=networks,
        addresses=choose_addresses(topology, networks),
        published=choose_ports(topology, machine.taken_ports, probe=probe_ports),
        scale=scale,
        resources=resources,
        cores=cores_for(topology, machine.cores),
        images={kind: images[kind] for kind in sorted(needed) if kind in images},
        postgres_version=postgres_version,
        toxiproxy=toxiproxy,
        instance_id=instance_id or secrets.token_hex(4),
    )


def sample_allocation(name: str, topology: Topology) -> Allocation:
    """The allocation that `lab render` shows when no such lab is up: the same on every machine."""
    images = {kind: f"pglab/{kind}:sample" for kind in set(images_of(topology).values())}
    return allocate(
        name,
        topology,
        Machine(_SAMPLE_CORES, _SAMPLE_MEMORY),
        images=images,
        postgres_version="15",
        toxiproxy=topology.proxy is not None,
        probe_ports=False,
        instance_id="00000000",
    )
