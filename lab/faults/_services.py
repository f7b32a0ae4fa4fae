"""How to see that a node's main service answers."""

from __future__ import annotations

from lab.deploy import endpoints
from lab.driver import Lab
from lab.faults._base import On, sort_of

SERVICES: dict[On, tuple[int, str]] = {
    "database": (endpoints.PATRONI_PORT, "http"),
    "etcd": (endpoints.ETCD_CLIENT_PORT, "http"),
    "router": (endpoints.STATS_PORT, "http"),
    "pooler": (endpoints.POOLER_PORT, "postgres"),
    # Over TLS a plain request is refused: that is an answer too.
    "redis": (endpoints.REDIS_PORT, "http"),
    "sentinel": (endpoints.SENTINEL_PORT, "http"),
    "proxy": (endpoints.PROXY_API_PORT, "http"),
}


def service_of(lab: Lab, node: str) -> tuple[int, str] | None:
    """(port, protocol as ``greets`` knows it) of a node's main service; None for a client."""
    sort = sort_of(lab.topology, node)
    return SERVICES.get(sort) if sort else None
