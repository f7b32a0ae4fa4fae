"""A node alone in the world: every packet to and from every other node is dropped, in silence.

The hard form of a lost machine or zone: nobody gets a reset, so sessions stay half-open until a timeout
says so.
"""

from __future__ import annotations

from lab.faults._packets import Partition, everyone

FAULT = Partition(
    name="isolate",
    summary="cut off from everybody on the application and data networks; packets are dropped both ways",
    colour="#7b1fa2",
    peers=everyone,
    moves_leader="yes",
    chain="lease",
)
