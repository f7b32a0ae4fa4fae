"""How instance classes become limits on this machine.

Every class of a topology is scaled by *one* factor, so that the ratios between the nodes stay those
of the document. Counts such as ``max_connections`` are never scaled. Sizes are bytes, CPU is cores.
"""

from __future__ import annotations

import math

from lab.deploy.allocation import Resources
from lab.errors import UsageError
from lab.topology.instances import GIB, MIB, InstanceClass, instance_class, serverless
from lab.topology.models import DatabaseNode, Topology

CPU_FLOOR = 0.5
"""Cores that a database node gets at least: below it, PostgreSQL and Patroni starve each other."""
MEMORY_FLOOR = 512 * MIB
"""Bytes that a database node gets at least."""
CACHE_MEMORY_FLOOR = 128 * MIB
"""Bytes that a cache node gets at least."""
SMALLEST_SCALE = 1 / 1024


def size_of(node: DatabaseNode) -> InstanceClass:
    """What the document gives a database node: its class, its largest capacity, or its own numbers."""
    if node.acu is not None:
        return serverless(node.acu.maximum, node.acu.minimum)
    if node.vcpu is not None and node.memory_gib is not None:
        return InstanceClass(node.vcpu, node.memory_gib)
    return instance_class(node.instance_class)


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
    classes = [size_of(node) for node in topology.postgres.nodes]
    largest = max(item.vcpu for item in classes)
    total = sum(item.memory_bytes for item in classes)
    machine = math.ceil(memory_bytes / GIB) * GIB
    scale = 1.0
    while scale > SMALLEST_SCALE and (largest * scale > cores / 2 or total * scale > machine):
        scale /= 2
    return scale


def cores_for(topology: Topology, cores: float) -> dict[str, str]:
    """Node → the cores that it may use, as cgroups write them; empty where the topology pins nothing.

    Clients and observer get a quarter of the machine, one core at least; everything else gets the rest.

    Raises UsageError where the machine has too few.
    """
    if not topology.pinned:
        return {}
    whole = int(cores)
    if whole < 2:
        raise UsageError("pinned takes two cores, the engine's host has one", hint="--set pinned=false")
    first = whole - outside_cores(whole)
    outside = {member.name for member in (*topology.clients, topology.observer)}
    ours, theirs = _span(first, whole - 1), _span(0, first - 1)
    return {member.name: ours if member.name in outside else theirs for member in topology.members()}


def outside_cores(whole: int) -> int:
    """Of so many cores, those of clients and observer on a pinned lab."""
    return max(1, whole // 4)


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def resources_for(topology: Topology, scale: float) -> tuple[dict[str, Resources], list[str]]:
    """Limits by node, and a note for every node that got a floor instead of its share.

    Database nodes get CPU and memory, cache nodes memory only; every other node is not limited and
    is absent. The notes are sentences for ``lab up`` and the run record.
    """
    limits: dict[str, Resources] = {}
    notes: list[str] = []
    for node in topology.postgres.nodes:
        item = size_of(node)
        cpus, memory = item.vcpu * scale, int(item.memory_bytes * scale)
        floors = []
        if cpus < CPU_FLOOR:
            floors.append(f"{CPU_FLOOR:g} CPU instead of {cpus:g}")
        if memory < MEMORY_FLOOR:
            floors.append(f"{MEMORY_FLOOR // MIB} MiB instead of {memory // MIB}")
        if node.acu is not None:
            notes.append(
                f"{node.name} is serverless, {node.acu.minimum:g} to {node.acu.maximum:g} ACU: held at the "
                f"largest, scaled to {cpus:g} CPU and {memory // MIB} MiB; scaling by load is not built yet"
            )
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
