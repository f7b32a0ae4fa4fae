"""The allocation: everything of a deployment that is chosen at ``lab up`` and not by the topology.

Made once, recorded, and passed to the pure ``render``. Holds no secret.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lab.topology.models import Model


class Endpoint(Model):
    """Where a client connects to.

    ``host`` is the node's name: resolvable (as its address on ``network``) on every node of the lab.
    """

    name: str
    """``pool-transaction.writer``, ``router.write``, ``pg1.direct``, ``redis1.redis``, …"""
    node: str
    host: str
    """Of ``multi-host``, as ``node`` and ``address``: several, separated by commas, tried in this order."""
    address: str
    port: int
    database: str | None = None
    target_session_attrs: Literal["any", "read-write"] | None = None
    """libpq's parameter of that name: which of several hosts will do. None: there is one only."""
    published_port: int | None = None
    """Port on 127.0.0.1 of the host, for people; None where it is not published."""


class Resources(Model):
    """Limits of one node after scaling."""

    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPU limit in cores, None for no limit."""
    memory_bytes: Annotated[int, Field(gt=0)] | None = None


class Allocation(Model):
    """Chosen once per lab, and frozen."""

    schema_version: Literal[1] = 1
    lab: str
    """Name of the lab; the Compose project is ``pglab-<lab>``."""
    networks: dict[str, str]
    """app, data, control → subnet in CIDR notation."""
    addresses: dict[str, dict[str, str]]
    """Node → network → address."""
    published: dict[str, int]
    """Endpoint name → port on 127.0.0.1."""
    scale: Annotated[float, Field(gt=0, le=1)]
    """The one factor that scales instance classes to this machine."""
    resources: dict[str, Resources]
    """Node → limits; absent: unlimited."""
    cores: dict[str, str] = Field(default_factory=dict)
    """Node → the processor cores that it may use, such as ``0-2``; empty: all may use all."""
    images: dict[str, str]
    """Image short name (postgres, pgbouncer, …) → reference with content hash."""
    postgres_version: str
    """What runs, e.g. ``15``."""
    toxiproxy: bool
    """Whether Toxiproxy can be had on this machine."""
    instance_id: str
    """Random, per ``lab up``; label of everything the lab owns."""
