"""A primary that only its clients still reach: cut off from the other databases and from etcd.

The one that tells safe replication from unsafe: until Patroni gives up, an asynchronous primary acknowledges
writes that nobody else will ever have. With a synchronous standby it cannot. A Redis
primary is cut off from the other Redis nodes and from Sentinel; its replication is always asynchronous.
"""

from __future__ import annotations

from lab.faults._packets import Partition, cluster_peers

FAULT = Partition(
    name="isolate-from-peers",
    summary="cut off from whatever decides that it leads, while routers, poolers and clients still reach it",
    colour="#6a1b9a",
    peers=cluster_peers,
    moves_leader="yes",
    chain="lease",
    on=("database", "redis"),
)
