"""The database cluster as Patroni's members tell it: who leads, who streams, who is synchronous."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.driver import Stream
from lab.errors import LabError, UsageError
from lab.topology.models import Topology

SYNCHRONOUS = ("sync", "quorum")


@dataclass(frozen=True)
class Member:
    """One database node, as its Patroni sees it."""

    role: str
    """``primary``, ``replica``, …"""
    state: str
    """``running``, ``streaming``, ``starting``, …"""
    timeline: int | None
    replication: tuple[tuple[str, str, str], ...] = ()
    """(standby, state, sync_state) of each stream that it feeds."""


@dataclass(frozen=True)
class Cluster:
    """One look at every member."""

    t: int
    """Middle of the look: ns of the observer's monotonic clock."""
    uncertainty: int
    """± ns."""
    members: Mapping[str, Member | None] = field(default_factory=dict)
    """None: its Patroni did not answer."""
    confirmed: tuple[str, ...] = ()
    """Standbys that Patroni has on record in etcd as synchronous."""

    @property
    def leader(self) -> str | None:
        """The one running primary, None where there is none or more than one."""
        names = [n for n, m in self.members.items() if m and m.role == "primary" and m.state == "running"]
        return names[0] if len(names) == 1 else None

    def missing(self) -> str:
        """Why it is not fully redundant, "" where it is: every other node streams from the one leader."""
        silent = [name for name, member in self.members.items() if member is None]
        if silent:
            return f"{', '.join(silent)} does not answer"
        if self.leader is None:
            return "no leader, or more than one"
        leader = self.members[self.leader]
        assert leader is not None
        streaming = {name for name, state, _ in leader.replication if state == "streaming"}
        absent = [n for n in self.members if n != self.leader and n not in streaming]
        if absent:
            return f"{', '.join(absent)} does not stream"
        behind = [n for n, m in self.members.items() if m and m.timeline != leader.timeline]
        return f"{', '.join(behind)} is on another timeline" if behind else ""

    @property
    def synchronous(self) -> str | None:
        """A standby that the leader waits for and that Patroni would promote, None where there is none.

        Both are asked: until etcd has it on record, a leader that dies now is followed by nobody.
        """
        leader = self.members.get(self.leader) if self.leader else None
        feeds = leader.replication if leader else ()
        waited = {n for n, state, sync in feeds if state == "streaming" and sync in SYNCHRONOUS}
        return next((name for name in self.confirmed if name in waited), None)


def parse(line: bytes | str) -> Cluster:
    """A line of ``inside.py watch``. ValueError where it is none."""
    data: dict[str, Any] = json.loads(line)
    members: dict[str, Member | None] = {}
    for name, said in data["members"].items():
        members[name] = said and Member(
            said["role"],
            said["state"],
            said["timeline"],
            tuple((str(a), str(b), str(c)) for a, b, c in said["replication"]),
        )
    confirmed = tuple(str(name) for name in data.get("synchronous", ()))
    return Cluster((data["t0"] + data["t1"]) // 2, (data["t1"] - data["t0"] + 1) // 2, members, confirmed)


def resolve(target: str, cluster: Cluster, topology: Topology) -> str:
    """The node that a role means at this moment. LabError where there is none.

    ``standby`` is the node that is synchronous now, else one that may be promoted; ``any-replica`` a
    node that serves reads and is not the leader.
    """
    promotable = {node.name for node in topology.postgres.promotable}
    readable = {node.name for node in topology.postgres.readable}
    leader = cluster.leader
    if leader is None:
        raise LabError("there is no leader, so the target cannot be resolved")
    if target == "primary":
        return leader
    others = [name for name, member in cluster.members.items() if name != leader and member is not None]
    if target == "standby":
        candidates = [name for name in others if name in promotable]
        candidates.sort(key=lambda name: name != cluster.synchronous)
    elif target == "any-replica":
        candidates = [name for name in others if name in readable]
    else:
        raise UsageError(f"unknown target {target!r}: expected primary, standby or any-replica")
    if not candidates:
        raise LabError(f"no node is {target} now")
    return candidates[0]


class Watch:
    """Follows the cluster in a thread of its own."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self._latest: Cluster | None = None
        self._ended = False
        self.changes: list[tuple[int, str, str]] = []
        """(t, old leader, new leader) of every change of leader seen."""
        self._last_leader: str | None = None
        self._looks: list[Cluster] = []
        self._thread = threading.Thread(target=self._read, name="watch-cluster", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        try:
            for chunk in self._stream:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    try:
                        self._take(parse(line))
                    except (ValueError, KeyError, TypeError, AttributeError):
                        continue
        except (LabError, OSError):
            pass
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, cluster: Cluster) -> None:
        with self._changed:
            leader = cluster.leader
            if leader and self._last_leader and leader != self._last_leader:
                self.changes.append((cluster.t, self._last_leader, leader))
            self._last_leader = leader or self._last_leader
            self._latest = cluster
            self._looks.append(cluster)
            self._changed.notify_all()

    def latest(self, fresher_than: int = 0, timeout_s: float = 10.0) -> Cluster:
        """The newest look that is later than a moment of the observer's clock.

        LabError where none comes: the observer died, or answers no more.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._latest is None or self._latest.t <= fresher_than:
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise LabError("the observer's look at the cluster ended or came no more")
                self._changed.wait(left)
            return self._latest

    def newest(self) -> Cluster | None:
        """The newest look, however old; None before the first."""
        with self._changed:
            return self._latest

    def history(self) -> list[Cluster]:
        """Every look so far."""
        with self._changed:
            return list(self._looks)

    def close(self) -> None:
        self._stream.close()
        self._thread.join(5)
