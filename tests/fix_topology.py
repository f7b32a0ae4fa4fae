"""A topology's allocation without a machine: fixed subnets, addresses and ports."""

from __future__ import annotations

from lab.deploy.allocation import Allocation
from lab.deploy.endpoints import images_of, networks_of, published_ports
from lab.topology.instances import GIB
from lab.topology.models import Topology
from lab.topology.sizing import resources_for, scale_for


def allocate(
    topology: Topology,
    *,
    lab: str = "test",
    second: int = 90,
    port: int = 25000,
    toxiproxy: bool = True,
    cores: float = 2,
    memory_bytes: int = 24 * GIB,
    images: dict[str, str] | None = None,
) -> Allocation:
    """Networks 10.<second>.{1,2,3}.0/24, addresses from .10 on, ports from ``port`` on."""
    third = {"app": 1, "data": 2, "control": 3}
    scale = scale_for(topology, cores, memory_bytes)
    return Allocation(
        lab=lab,
        networks={name: f"10.{second}.{number}.0/24" for name, number in third.items()},
        addresses={
            node: {network: f"10.{second}.{third[network]}.{10 + index}" for network in networks}
            for index, (node, networks) in enumerate(networks_of(topology).items())
        },
        published={name: port + index for index, name in enumerate(published_ports(topology))},
        scale=scale,
        resources=resources_for(topology, scale)[0],
        images=images or {kind: f"pglab/{kind}:dev" for kind in set(images_of(topology).values())},
        postgres_version="15",
        toxiproxy=toxiproxy,
        instance_id="0123456789ab",
    )
