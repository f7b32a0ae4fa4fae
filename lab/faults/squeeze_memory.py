"""Memory becomes scarce: something else on the node takes what PostgreSQL does not hold, page cache first.

It offers itself to the kernel as the first to be killed, so that PostgreSQL is squeezed and not hit. It ends
by itself at the deadline.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions, first_true
from lab.faults._memory import memory_of, too_little
from lab.faults._shell import NodeFault, shell, timed

LEAVE = 64 * 1024**2
"""Bytes below the limit at which it stops growing."""
LONGEST_S = 600.0

# Its name is how it is found again. $1: limit, $2: bytes to leave, $3: seconds.
_HOG = r"""
import sys, time
limit, leave, seconds = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
open("/proc/self/oom_score_adj", "w").write("1000")
def used():
    for name in ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes"):
        try:
            return int(open(name).read())
        except OSError:
            pass
    raise SystemExit(1)
held, end = [], time.monotonic() + seconds
while time.monotonic() < end:
    if used() < limit - leave:
        held.append(b"x" * (16 << 20))
    else:
        time.sleep(0.2)
"""
_FIND = r"""
for d in /proc/[0-9]*; do
  [ "$(cat "$d/comm")" = python3 ] || continue
  case $(tr '\0' ' ' < "$d/cmdline") in *" lab-squeeze "*) echo "${d#/proc/}";; esac
done 2>/dev/null; true
"""


@dataclass(frozen=True)
class SqueezeMemory(NodeFault):
    def lacks(self, lab: Lab, node: str) -> str:
        """Why this machine cannot perform it, "" where it can."""
        return too_little(lab, node)

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        memory = memory_of(lab, node)
        limit = memory.limit if memory else 0
        act = 'setsid python3 -c "$1" lab-squeeze "$2" "$3" "$4" >/dev/null 2>&1 </dev/null &'
        longest = plan.get("deadline_s") or LONGEST_S
        return timed(lab, node, act, _HOG, str(limit), str(LEAVE), f"{longest:g}")

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The control group is nearly full, and the one that fills it runs."""
        node = str(effect.node)

        def look() -> Evidence:
            memory, hogs = memory_of(lab, node), shell(lab, node, _FIND).split()
            if memory is None:
                return Evidence(False, f"{node} has no memory limit")
            left = (memory.limit - memory.used) / 1024**2
            how = f"{node}: {left:.0f} MiB left of {memory.limit / 1024**2:.0f}, {len(hogs)} process fills it"
            return Evidence(bool(hogs) and memory.limit - memory.used < 3 * LEAVE, how)

        return first_true(look, 60, lambda: time.sleep(0.5))

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        node = str(instructions["node"])

        def look() -> Evidence:
            hogs = shell(lab, node, _FIND).split()
            return Evidence(not hogs, f"{node}: {len(hogs)} process(es) fill its memory")

        return first_true(look, 10, lambda: time.sleep(0.3))


FAULT = SqueezeMemory(
    name="squeeze-memory",
    summary="something else on the node takes nearly all of its memory",
    colour="#f6aea9",
    kind="resource",
    lasts_s=40,
    undo=f"kill -9 $({_FIND}) 2>/dev/null; true",
)
