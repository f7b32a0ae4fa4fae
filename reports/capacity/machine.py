"""The cores that a lab's nodes share: all of the machine's, or, on a pinned lab, all but the clients'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lab.topology.sizing import outside_cores


def apart(topology: Mapping[str, Any]) -> set[str]:
    """Clients and observer of a pinned lab, which have cores of their own; none otherwise."""
    if not topology.get("pinned"):
        return set()
    observer = topology.get("observer") or {"name": "observer"}
    return {str(one["name"]) for one in (*(topology.get("clients") or [{"name": "client"}]), observer)}


def sharing(topology: Mapping[str, Any], nodes: Iterable[str]) -> list[str]:
    """Those of the nodes that share the cores with the databases."""
    alone = apart(topology)
    return [node for node in nodes if node not in alone]


def shared_cores(topology: Mapping[str, Any], cores: float) -> float:
    """How many cores they share, of the machine's."""
    return cores - outside_cores(int(cores)) if topology.get("pinned") else cores
