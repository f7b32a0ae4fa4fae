"""A node that hears nobody, while what it says still arrives: the one-way failure of a cable or a rule."""

from __future__ import annotations

from lab.faults._packets import Partition, everyone

FAULT = Partition(
    name="isolate-inbound",
    summary="hears nobody: packets to it are dropped, its own arrive",
    colour="#4527a0",
    peers=everyone,
    way="inbound",
    moves_leader="yes",
    chain="lease",
    renews=True,
)
