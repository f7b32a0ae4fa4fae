"""A node that nobody hears, while it still hears everybody."""

from __future__ import annotations

from lab.faults._packets import Partition, everyone

FAULT = Partition(
    name="isolate-outbound",
    summary="nobody hears it: packets that it sends are dropped, those to it arrive",
    colour="#5e35b1",
    peers=everyone,
    way="outbound",
    moves_leader="yes",
    chain="lease",
)
