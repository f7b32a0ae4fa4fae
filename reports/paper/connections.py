"""Pool limits against what the databases accept.

A class's default ``max_connections`` is that of ``lab/topology/instances.py``: LEAST(DBInstanceClassMemory /
9531392, 5000) (Amazon RDS user guide, "Maximum number of database connections"), of which PostgreSQL keeps
``superuser_reserved_connections`` = 3 to itself. Every pooler may hold its whole limit at once: its writer's
part on the node that leads, its reader's part on any one node that serves reads, and on the one that leads
where no other serves them.
"""

from __future__ import annotations

from lab.deploy.parameters import split_limit
from lab.topology.models import DatabaseNode, Topology
from lab.topology.sizing import size_of
from reports.findings import Finding, Verdict
from reports.paper import Paper, Rule, figure, holds, required

RESERVED = 3
HELD = "paper.pool_connections"
NEEDED = "paper.connections_of_node"


def run(paper: Paper) -> list[Verdict]:
    topology = paper.topology
    if not topology.poolers:
        return []
    limits = [pooler.max_server_connections for pooler in topology.poolers]
    said = " + ".join(str(limit) for limit in limits)
    total = figure(HELD, "1", sum(limits), f"{said} = {sum(limits)}" if len(limits) > 1 else said)
    return [*holds(paper, total), _tightest(paper)]


def _tightest(paper: Paper) -> Verdict:
    """The database node with the least room."""
    options = []
    for node in paper.topology.postgres.nodes:
        finding = _needs(paper.topology, node)
        options.append((accepted(paper.topology, node) - RESERVED - (finding.value or 0), node, finding))
    _, node, finding = min(options, key=lambda option: option[0])
    most = accepted(paper.topology, node)
    said = f"{finding.why}; {node.name} ({node.instance_class}) accepts {most} less {RESERVED} reserved"
    return required(
        paper, finding.model_copy(update={"why": said}), "<=", most - RESERVED,
        "the pools fit into the connections of every database", "poolers, max_server_connections",
    )  # fmt: skip


def _needs(topology: Topology, node: DatabaseNode) -> Finding:
    parts = [split_limit(pooler.max_server_connections, pooler.writer_share) for pooler in topology.poolers]
    writer, reader = sum(part[0] for part in parts), sum(part[1] for part in parts)
    served = [one for one in topology.postgres.readable if one.role != "primary"]
    if node.role == "replica":
        return figure(NEEDED, "1", reader, f"readers' parts of the pools {reader}")
    if served and node not in served:
        return figure(NEEDED, "1", writer, f"writers' parts of the pools {writer}")
    said = f"writers' parts {writer} + readers' parts {reader} = {writer + reader}"
    return figure(NEEDED, "1", writer + reader, said)


def accepted(topology: Topology, node: DatabaseNode) -> int:
    """``max_connections`` of a node: as the topology sets it, else its class's default."""
    own = topology.postgres.parameters.get("max_connections")
    if own is not None and own.isdecimal():
        return int(own)
    return size_of(node).max_connections


RULE = Rule("connections", "pool limits against max_connections", {HELD: "1", NEEDED: "1"}, run)
