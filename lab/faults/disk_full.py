"""The disk of the database is full: a file takes all that is left of PGDATA's file system.

Only on a file system of the node's own (``postgres.disk_gib``). Where PGDATA lies on the engine's disk, as in
a container without a volume, filling it would fill the machine: then it cannot be performed.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.driver import Lab
from lab.faults._base import Effect, Evidence, Instructions
from lab.faults._shell import DATA, NodeFault, shell, timed

FILE = f"{DATA}/lab-filler"
LITTLE = 16 * 1024**2
"""Bytes that are left until the moment of the fault."""
LARGEST = 20 * 1024**3
"""A file system above this size (bytes) is taken for the machine's."""

# The engine keeps /etc/hosts on its own disk: what has the same device is that disk.
_LOOK = f"""
echo "$(stat -f -c %T {DATA}) $(stat -c %d {DATA}) $(stat -c %d /etc/hosts) $(stat -f -c '%S %b %a' {DATA})"
"""


@dataclass(frozen=True)
class DiskFull(NodeFault):
    def lacks(self, lab: Lab, node: str) -> str:
        """Why this lab cannot perform it, "" where it can."""
        words = shell(lab, node, _LOOK).split()
        if len(words) != 6:
            return f"the file system of PGDATA on {node} cannot be read"
        kind, mine, engines, size, blocks, _ = words
        if kind == "overlayfs" or mine == engines or int(size) * int(blocks) > LARGEST:
            why = f"PGDATA of {node} lies on the machine's own disk ({kind}), which is never filled"
            return f"{why}; `lab up … --set postgres.disk_gib=2` gives it one of its own"
        return ""

    def strike(self, lab: Lab, node: str, plan: Instructions, seen: dict[str, int]) -> tuple[float, float]:  # noqa: ARG002
        # All but a little is taken before the clock is read: it takes a second, and changes nothing yet. The
        # last blocks come from dd, which ends with an error when nothing is left.
        more = f"dd if=/dev/zero of={FILE} oflag=append conv=notrunc 2>/dev/null"
        act = (
            f"n=$(( $(stat -f -c '%a * %S' {DATA}) - {LITTLE} )); [ $n -le 0 ] || fallocate -l $n {FILE}; "
            f"a=$EPOCHREALTIME; {more} bs=1M; {more} bs=4k; [ -s {FILE} ]"
        )
        return timed(lab, node, act, timeout_s=120)

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The file system says that nothing is left."""
        left = int(shell(lab, str(effect.node), _LOOK).split()[5])
        return Evidence(left == 0, f"{effect.node}: {left} blocks are left for PGDATA")

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        node = str(instructions["node"])
        left = int(shell(lab, node, _LOOK).split()[5])
        return Evidence(left > 0, f"{node}: {left} blocks are left for PGDATA")


FAULT = DiskFull(
    name="disk-full",
    summary="the file system of PGDATA is full",
    colour="#5f6368",
    kind="resource",
    lasts_s=40,
    undo=f"rm -f {FILE}",
)
