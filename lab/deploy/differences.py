"""How a lab differs from the paper, in words: substituted versions, stand-ins, and what is not built.

Every report repeats them, so that nobody takes a figure of the lab for one of the service.
"""

from __future__ import annotations

from lab.deploy.allocation import Allocation
from lab.topology.models import Topology
from lab.topology.sizing import resources_for

ANY_VERSION = "any"
"""``postgres.version`` where the document names none."""


def substitutions(topology: Topology, allocation: Allocation) -> list[str]:
    """Versions that run in place of the document's: ``PostgreSQL 15.4 → 15.20``."""
    asked, runs = topology.postgres.version, allocation.postgres_version
    wanted = asked.split(".")
    if asked == ANY_VERSION or runs.split(".")[: len(wanted)] == wanted:
        return []
    return [f"PostgreSQL {asked} → {runs}"]


def stand_ins(topology: Topology) -> dict[str, str]:
    """What stands for a managed service of the document: property → sentence."""
    postgres, found = topology.postgres, {}
    patroni = postgres.high_availability == "patroni"
    if postgres.service == "rds":
        if any(node.role == "standby" for node in postgres.nodes):
            found["failover"] = "Patroni for RDS Multi-AZ"
        elif patroni:
            found["replication"] = "Patroni for RDS read replicas"
    if postgres.service == "aurora":
        if patroni:
            found["failover"] = "Patroni for Aurora failover"
        found["storage"] = (
            "streaming replication and local disks for Aurora's shared storage"
            if len(postgres.nodes) > 1
            else "a local disk for Aurora's shared storage"
        )
    if postgres.service != "self-managed" and topology.routers:
        found["endpoints"] = f"HAProxy for the endpoints of {postgres.service.upper()}"
        if postgres.service == "aurora":
            found["endpoints"] = "HAProxy for Aurora's writer and reader endpoints"
    if any(node.acu for node in postgres.nodes):
        found["capacity"] = "a fixed size, the largest, for Aurora Serverless v2"
    if any(pooler.role == "proxy" for pooler in topology.poolers):
        found["proxy"] = (
            "PgBouncer for RDS Proxy (which pins a session to its connection where PgBouncer does not: SET, "
            "temporary tables, prepared statements, …)"
        )
    return found


def notes(topology: Topology, allocation: Allocation) -> list[str]:
    """What a user should know about how this lab differs from the paper; sentences for ``lab up``."""
    found = [
        f"{text.partition(' ')[0]} substituted: {text.partition(' ')[2]}"
        for text in substitutions(topology, allocation)
    ]
    if found:
        found[-1] += " (the nearest that this machine can get)"
    found += [f"stand-in for {what}: {text}" for what, text in stand_ins(topology).items()]
    found += [f"not built: {text}" for text in topology.not_built]
    if topology.proxy is not None and not allocation.toxiproxy:
        found.append(
            "Toxiproxy could not be had here: faults on links (latency, bandwidth, resets) will not run"
        )
    found += resources_for(topology, allocation.scale)[1]
    return found
