"""A node behind a firewall that refuses: as ``isolate``, but everybody is told at once by a TCP reset.

The friendly form of a cut. What it adds over silence is the time that timeouts cost: compare the two.
"""

from __future__ import annotations

from lab.faults._packets import Partition, everyone

FAULT = Partition(
    name="reject",
    summary="cut off from everybody; every packet is answered by a TCP reset at once",
    colour="#c2185b",
    peers=everyone,
    reject=True,
    moves_leader="yes",
    chain="lease",
    mute=False,
)
