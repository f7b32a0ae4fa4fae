"""A database that its clients alone cannot reach: inside the cluster all is well, and nothing fails over."""

from __future__ import annotations

from lab.faults._packets import Partition, clients

FAULT = Partition(
    name="cut-from-clients",
    summary="cut off from routers, poolers and clients; databases and etcd still reach it",
    colour="#ba68c8",
    peers=clients,
    moves_leader="no",
    on=("database",),
)
