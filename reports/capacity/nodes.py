"""The database nodes of a record's topology: who writes, who serves reads, how large they are on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from lab.errors import RecordError
from lab.topology.models import DatabaseNode


def database_nodes(topology: Mapping[str, Any]) -> tuple[DatabaseNode, ...]:
    """Every node. RecordError where the topology's description is damaged, or names no primary."""
    try:
        found = tuple(
            DatabaseNode.model_validate(one) for one in (topology.get("postgres") or {}).get("nodes") or []
        )
    except ValidationError as error:
        raise RecordError(f"the record's topology.yaml: {error.errors()[0]['msg']}") from error
    if not any(node.role == "primary" for node in found):
        raise RecordError("the record's topology.yaml names no primary")
    return found


def primary_of(nodes: Sequence[DatabaseNode]) -> DatabaseNode:
    """The node that writes in the beginning."""
    return next(node for node in nodes if node.role == "primary")


def readers_of(nodes: Sequence[DatabaseNode]) -> tuple[DatabaseNode, ...]:
    """The nodes that the reader endpoint leads to; none: the primary serves reads."""
    return tuple(node for node in nodes if node.role in ("replica", "reader"))
