"""What the rest of the lab may ask of a running lab: nodes and endpoints, never containers.

The Docker driver (``lab.deploy``) implements these protocols; a second driver (plain processes)
would implement the same ones. Faults, probes, scenarios and the runner import this module only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lab.deploy.allocation import Allocation
from lab.topology.models import Topology

Network = Literal["app", "data", "control"]


@dataclass(frozen=True)
class Completed:
    """The end of a command that ran on a node."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class NodeState:
    """What the driver knows of a node, whatever runs inside it."""

    running: bool
    paused: bool
    exit_code: int | None
    oom_killed: bool
    started_at: float | None
    """Wall clock of the engine's host, seconds since the epoch."""
    finished_at: float | None
    """Wall clock of the engine's host, seconds since the epoch."""


class Stream(Protocol):
    """A long-lived command on a node whose standard output is read as it comes."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """Stop reading, and end the command on the node. Idempotent."""


class Node(Protocol):
    """One machine of the topology (here a container)."""

    @property
    def name(self) -> str: ...

    def address(self, network: Network) -> str:
        """The node's fixed address on a network; KeyError where it is not attached."""

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        input: bytes | None = None,
        timeout_s: float = 30.0,
        check: bool = True,
    ) -> Completed:
        """Run a command to its end. LabError where it fails (with check) or takes too long."""

    def spawn(self, argv: Sequence[str], *, user: str = "root", env: Mapping[str, str] | None = None) -> None:
        """Start a command that outlives the caller; nothing of its output is kept."""

    def stream(
        self, argv: Sequence[str], *, user: str = "root", env: Mapping[str, str] | None = None
    ) -> Stream: ...

    def put(self, path: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Write one file; parent directories are made."""

    def put_tree(self, source: Path, target: str) -> None:
        """Copy a directory of the host into ``target`` on the node (``*.py`` and data, no caches)."""

    def get(self, path: str) -> bytes:
        """Read one file. LabError where there is none."""

    def kill(self) -> tuple[float, float]:
        """SIGKILL everything on the node at once.

        Returns the earliest and the latest moment at which it can have died: wall clock of the
        engine's host, seconds since the epoch.
        """

    def start(self) -> None:
        """Start a node that was killed or stopped; it keeps its disk and addresses."""

    def stop(self, grace_s: float = 10.0) -> None: ...

    def pause(self) -> tuple[float, float]:
        """Freeze every process; its connections stay open. The moment as ``kill`` tells it."""

    def unpause(self) -> None: ...

    def detach(self, network: Network) -> tuple[float, float]:
        """Pull the node's plug on a network; nothing happens where it is pulled already.

        Returns the earliest and the latest moment at which it can have happened: wall clock of the
        engine's host, seconds since the epoch. KeyError where the node was never on that network.
        """

    def attach(self, network: Network) -> None:
        """Put it back, with the same address. Idempotent."""

    def attached(self) -> tuple[Network, ...]:
        """Networks that it is plugged into now."""

    def limit_cpu(self, cpus: float | None) -> tuple[float, float]:
        """Limit the node to so many CPUs from now on; None: to what its allocation gives it.

        The moment as ``kill`` tells it.
        """

    def state(self) -> NodeState: ...

    def log(self, *, since: float | None = None, tail: int | None = None) -> str:
        """What the node printed, each line led by an RFC 3339 time stamp of the engine's host."""


class Lab(Protocol):
    """A running lab."""

    @property
    def name(self) -> str: ...

    @property
    def topology(self) -> Topology: ...

    @property
    def allocation(self) -> Allocation: ...

    @property
    def state_dir(self) -> Path:
        """The lab's own folder on the host (journal, lock, secrets), mode 0700."""

    @property
    def nodes(self) -> Mapping[str, Node]: ...

    def secret(self, name: str) -> str:
        """A generated secret in clear, for handing to a node; never to be written to a record."""

    def rendered(self) -> Mapping[str, str]:
        """Every rendered file by its relative path; secrets appear as references only."""
