"""What the machine can do, asked of the machine itself: a fault that it cannot perform is *not run (why)*."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lab.driver import Lab, Node
from lab.errors import LabError
from lab.faults import Fault
from lab.faults._base import lacks, node_of

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


def unmet(lab: Lab, fault: Fault, nodes: Iterable[str]) -> str:
    """Why a fault cannot be performed on these nodes, "" where it can."""
    for node in nodes:
        for need in fault.needs:
            probe = PROBES.get(need)
            why = probe(lab, node) if probe else f"it needs {need!r}, which this version does not know"
            if why:
                return f"{fault.name}: {why}"
        why = lacks(fault, lab, node)
        if why:
            return f"{fault.name}: {why}"
    return ""
