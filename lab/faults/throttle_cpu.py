"""The node's processor becomes slow: it gets a tenth of what it had.

As a burstable instance out of credits, or a neighbour on the same host. Nothing on the node can lift this: it
has no deadline of its own, the journal heals it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions, first_true, node_of
from lab.faults._shell import NodeFault, shell

SHARE = 0.1
LEAST_CPUS = 0.1
"""Less than this the kernel does not grant by the period that the lab uses."""

# CPUs that the kernel grants ("max": any), and periods in which it made the node wait, after some work.
_LOOK = r"""
timeout 0.5 bash -c 'while :; do :; done'
cd /sys/fs/cgroup
if [ -e cpu.max ]; then
  awk '{print ($1 == "max") ? "max" : $1 / $2}' cpu.max; f=cpu.stat
elif [ -e cpu/cpu.cfs_quota_us ]; then
  q=$(cat cpu/cpu.cfs_quota_us); p=$(cat cpu/cpu.cfs_period_us); f=cpu/cpu.stat
  awk -v q="$q" -v p="$p" 'BEGIN {print (q < 0) ? "max" : q / p}'
fi
awk '$1 == "nr_throttled" {print $2}' $f
"""


def _granted(lab: Lab, node: str) -> tuple[float | None, int]:
    """(CPUs, None: no limit; periods in which the node had to wait), as its own kernel files say."""
    cpus, throttled = shell(lab, node, _LOOK).split()
    return None if cpus == "max" else float(cpus), int(throttled)


@dataclass(frozen=True)
class ThrottleCpu(NodeFault):
    def plan(self, lab: Lab, node: str) -> Instructions:
        limits = lab.allocation.resources.get(node_of(lab, node).name)
        normal = limits.cpus if limits else None
        return {"node": node, "normal": normal, "cpus": max(round((normal or 1.0) * SHARE, 3), LEAST_CPUS)}

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        return node_of(lab, node).limit_cpu(plan["cpus"])

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The kernel grants so much, and makes the node wait when it wants more."""
        node, wanted = str(effect.node), effect.heal["cpus"]
        _, before = _granted(lab, node)
        cpus, after = _granted(lab, node)
        how = (
            f"{node}: {'any' if cpus is None else f'{cpus:g}'} CPUs, had to wait in {after - before} periods"
        )
        return Evidence(cpus is not None and abs(cpus - wanted) < 0.01 and after > before, how)

    def heal(self, lab: Lab, instructions: Instructions) -> None:
        node = node_of(lab, str(instructions["node"]))
        node.limit_cpu(None)
        super().heal(lab, instructions)

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        node, normal = str(instructions["node"]), instructions["normal"]

        def look() -> Evidence:
            cpus, _ = _granted(lab, node)
            good = cpus is None if normal is None else cpus is not None and abs(cpus - normal) < 0.01
            return Evidence(
                good, f"{node}: {'any' if cpus is None else f'{cpus:g}'} CPUs, as allotted: {normal}"
            )

        return first_true(look, 3, lambda: time.sleep(0.3))


FAULT = ThrottleCpu(
    name="throttle-cpu",
    summary=f"the node gets {SHARE:.0%} of its processor",
    colour="#f9ab00",
    kind="resource",
    on=("database", "etcd", "pooler", "router", "redis", "sentinel", "proxy"),
    lasts_s=40,
)
