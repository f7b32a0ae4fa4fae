"""A database that cannot reach etcd, while replication and clients go on.

A leader that cannot renew its key must give up, though PostgreSQL is well; with Patroni's failsafe mode it
asks the other members first, and stays.
"""

from __future__ import annotations

from lab.faults._packets import Partition, etcd_members

FAULT = Partition(
    name="cut-from-etcd",
    summary="cut off from every etcd member; databases and clients still reach it",
    colour="#8e24aa",
    peers=etcd_members,
    moves_leader="yes",
    chain="lease",
    mute=False,
    on=("database",),
)
