"""A database that the other databases cannot reach: replication stops, the leader stays.

Asynchronous: clients notice nothing, the replicas fall behind. Synchronous: every commit waits until
Patroni has taken the standby off the list.
"""

from __future__ import annotations

from lab.faults._packets import Partition, databases

FAULT = Partition(
    name="cut-from-replicas",
    summary="cut off from the other databases; etcd and clients still reach it",
    colour="#ab47bc",
    peers=databases,
    moves_leader="no",
    on=("database",),
    lasts_s=25.0,
)
