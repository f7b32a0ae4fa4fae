"""Instance classes, and how they become limits on this machine.

Every class of a topology is scaled by *one* factor, so that the ratios between the nodes stay those
of the document. Counts such as ``max_connections`` are never scaled. Sizes are bytes, CPU is cores.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from lab.deploy.allocation import Resources
from lab.errors import UsageError
from lab.topology.models import Topology

GIB = 1024**3
MIB = 1024**2

TABLE_DATED = "2026-11"
"""When the table was last compared with its source."""

CPU_FLOOR = 0.5
"""Cores that a database node gets at least: below it, PostgreSQL and Patroni starve each other."""
MEMORY_FLOOR = 512 * MIB
"""Bytes that a database node gets at least."""
CACHE_MEMORY_FLOOR = 128 * MIB
"""Bytes that a cache node gets at least."""
SMALLEST_SCALE = 1 / 1024


@dataclass(frozen=True)
class InstanceClass:
    """Size of a managed instance as its vendor states it."""

    vcpu: float
    memory_gib: float

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * GIB)


# Source: the vendor's "DB instance classes" and "ElastiCache supported node types" pages, vCPU and GiB.
# Burstable (t) classes are taken at their full vCPU count: CPU credits are not modelled.
INSTANCE_CLASSES: dict[str, InstanceClass] = {
    "db.t3.micro": InstanceClass(2, 1),
    "db.t3.small": InstanceClass(2, 2),
    "db.t3.medium": InstanceClass(2, 4),
    "db.t3.large": InstanceClass(2, 8),
    "db.m6i.large": InstanceClass(2, 8),
    "db.r5.large": InstanceClass(2, 16),
    "db.r5.xlarge": InstanceClass(4, 32),
    "cache.t3.micro": InstanceClass(2, 0.5),
    "cache.t3.small": InstanceClass(2, 1.37),
    "cache.t3.medium": InstanceClass(2, 3.09),
    "cache.r6g.large": InstanceClass(2, 13.07),
}


def instance_class(name: str) -> InstanceClass:
    """The class of that name. UsageError, with the nearest names, where the table has none."""
    try:
        return INSTANCE_CLASSES[name]
    except KeyError:
        near = difflib.get_close_matches(name, INSTANCE_CLASSES, n=3)
        raise UsageError(
            f"unknown instance class {name!r}",
            hint=f"Known are: {', '.join(near or sorted(INSTANCE_CLASSES))}.",
        ) from None


def scale_for(topology: Topology, cores: float, memory_bytes: int) -> float:
    """The factor that fits the topology's database nodes onto a machine.

    Args:
        topology: its instance classes count.
        cores: CPU cores of the machine (of the engine's host).
        memory_bytes: memory of the machine as its kernel states it. It is rounded up to whole GiB, since
            the kernel keeps a part of the nominal size to itself, and limits are ceilings, not reservations.

    Returns:
        The largest of 1, 1/2, 1/4, … with which the largest instance gets at most half of the cores
        and the memory of all database nodes together at most that of the machine. Floors of
        :func:`resources_for` do not count here.
    """
    classes = [instance_class(node.instance_class) for node in topology.postgres.nodes]
    largest = max(item.vcpu for item in classes)
    total = sum(item.memory_bytes for item in classes)
    machine = math.ceil(memory_bytes / GIB) * GIB
    scale = 1.0
    while scale > SMALLEST_SCALE and (largest * scale > cores / 2 or total * scale > machine):
        scale /= 2
    return scale


def resources_for(topology: Topology, scale: float) -> tuple[dict[str, Resources], list[str]]:
    """Limits by node, and a note for every node that got a floor instead of its share.

    Database nodes get CPU and memory, cache nodes memory only; every other node is not limited and
    is absent. The notes are sentences for ``lab up`` and the run record.
    """
    limits: dict[str, Resources] = {}
    notes: list[str] = []
    for node in topology.postgres.nodes:
        item = instance_class(node.instance_class)
        cpus, memory = item.vcpu * scale, int(item.memory_bytes * scale)
        floors = []
        if cpus < CPU_FLOOR:
            floors.append(f"{CPU_FLOOR:g} CPU instead of {cpus:g}")
        if memory < MEMORY_FLOOR:
            floors.append(f"{MEMORY_FLOOR // MIB} MiB instead of {memory // MIB}")
        if floors:
            notes.append(
                f"{node.name} ({node.instance_class} × {scale:g}) is raised to the floor: "
                f"{', '.join(floors)}; its ratio to the other nodes is not the document's"
            )
        limits[node.name] = Resources(cpus=max(cpus, CPU_FLOOR), memory_bytes=max(memory, MEMORY_FLOOR))
    if topology.cache:
        memory = int(instance_class(topology.cache.instance_class).memory_bytes * scale)
        for member in topology.cache.nodes:
            limits[member.name] = Resources(memory_bytes=max(memory, CACHE_MEMORY_FLOOR))
        if memory < CACHE_MEMORY_FLOOR:
            notes.append(
                f"cache nodes ({topology.cache.instance_class} × {scale:g}) are raised to the floor: "
                f"{CACHE_MEMORY_FLOOR // MIB} MiB instead of {memory // MIB}"
            )
    return limits, notes
