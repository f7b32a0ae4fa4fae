"""What a fault needs of the topology, and of the machine: where one lacks it, it is *not run (why)*.

The topology is asked on paper (``lacking``), the machine by trying (``unmet``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lab.driver import Lab, Node
from lab.errors import LabError
from lab.faults import Fault
from lab.faults._base import lacks, misfit, node_of
from lab.topology.models import Topology

PROBE_S = 10.0

# Rules and disciplines for an address, or a device, that nothing uses; removed at once.
_FILTER = "iptables -w -A INPUT -s 192.0.2.1 -j DROP && iptables -w -D INPUT -s 192.0.2.1 -j DROP"
_NETEM = "tc qdisc add dev lo root netem delay 1us && tc qdisc del dev lo root"


def _runs(node: Node, script: str) -> str:
    try:
        done = node.run(["sh", "-c", script], timeout_s=PROBE_S, check=False)
    except LabError as error:
        return str(error)
    if done.exit_code == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit code {done.exit_code}"])[-1]


def _iptables(lab: Lab, node: str) -> str:
    why = _runs(node_of(lab, node), _FILTER)
    return why and f"packets cannot be filtered in {node}: {why}"


def _netem(lab: Lab, node: str) -> str:
    why = _runs(node_of(lab, node), _NETEM)
    return why and f"the kernel has no netem: {why}"


def _toxiproxy(lab: Lab, node: str) -> str:  # noqa: ARG001
    if lab.topology.proxy is None:
        return f"topology {lab.topology.name} has no Toxiproxy"
    return "" if lab.allocation.toxiproxy else "Toxiproxy could not be had on this machine"


PROBES: dict[str, Callable[[Lab, str], str]] = {
    "iptables": _iptables,
    "netem": _netem,
    "toxiproxy": _toxiproxy,
}
"""Word of ``Fault.needs`` → (lab, node) → why it cannot be had there, "" where it can."""


def _no_patroni(topology: Topology) -> str:
    managed = topology.postgres.high_availability == "patroni"
    return "" if managed else f"topology {topology.name} has no Patroni"


def _no_standby(topology: Topology) -> str:
    several = len(topology.postgres.promotable) > 1
    return "" if several else f"topology {topology.name} has no standby that could lead"


PARTS: dict[str, Callable[[Topology], str]] = {"patroni": _no_patroni, "standby": _no_standby}
"""Word of ``Fault.needs`` → why the topology lacks that part, "" where it has it."""


def lacking(topology: Topology, fault: Fault, nodes: Iterable[str]) -> str:
    """Why a fault can never be performed on these nodes of a topology, "" where it may. Pure."""
    told = [PARTS[need](topology) for need in fault.needs if need in PARTS]
    told += [misfit(fault, topology, node) for node in nodes]
    return next((f"{fault.name}: {why}" for why in told if why), "")


def unmet(lab: Lab, fault: Fault, nodes: Iterable[str]) -> str:
    """Why a fault cannot be performed on these nodes of a lab, "" where it can."""
    nodes = tuple(nodes)
    if why := lacking(lab.topology, fault, nodes):
        return why
    for node in nodes:
        for need in fault.needs:
            if need in PARTS:
                continue
            probe = PROBES.get(need)
            why = probe(lab, node) if probe else f"it needs {need!r}, which this version does not know"
            if why:
                return f"{fault.name}: {why}"
        why = lacks(fault, lab, node)
        if why:
            return f"{fault.name}: {why}"
    return ""
