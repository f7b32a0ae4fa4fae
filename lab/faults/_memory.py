"""The memory of a node's control group, read on the node itself: version 1 and 2."""

from __future__ import annotations

from dataclasses import dataclass

from lab.driver import Lab
from lab.faults._shell import shell

GIB = 1024**3
HOST_RESERVE = 2 * GIB
"""What must stay free on the machine beyond what a fault takes."""

_READ = r"""
if [ -e /sys/fs/cgroup/memory.max ]; then
  cd /sys/fs/cgroup; cat memory.max; cat memory.current; awk '$1 == "oom_kill" {print $2}' memory.events
else
  cd /sys/fs/cgroup/memory 2>/dev/null || exit 0
  cat memory.limit_in_bytes; cat memory.usage_in_bytes; awk '$1 == "oom_kill" {print $2}' memory.oom_control
fi
awk '$1 == "MemAvailable:" {printf "%.0f\n", $2 * 1024}' /proc/meminfo
"""


@dataclass(frozen=True)
class Memory:
    """Bytes, but for ``oom_kills``."""

    limit: int
    used: int
    oom_kills: int
    """Processes that the kernel has killed in this group for want of memory."""
    host_free: int
    """What the machine could still give."""


def memory_of(lab: Lab, node: str) -> Memory | None:
    """None where the node has no limit, or its control group cannot be read."""
    words = shell(lab, node, _READ).split()
    if len(words) != 4 or not all(word.isdigit() for word in words):
        return None
    found = Memory(*(int(word) for word in words))
    return found if found.limit < 1 << 50 else None


def too_little(lab: Lab, node: str) -> str:
    """Why the node's memory cannot be filled here, "" where it can."""
    found = memory_of(lab, node)
    if found is None:
        return f"{node} has no memory limit of its own: filling it would fill the machine"
    wanted = found.limit - found.used + HOST_RESERVE
    if found.host_free < wanted:
        return (
            f"filling the memory of {node} takes {wanted / GIB:.1f} GiB of the machine, "
            f"and it has {found.host_free / GIB:.1f} GiB left"
        )
    return ""
