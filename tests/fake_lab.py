"""A lab without machines: nodes that answer from tables, for tests of what works on a lab."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.deploy.allocate import sample_allocation
from lab.deploy.allocation import Allocation
from lab.driver import Completed, Network, NodeState
from lab.errors import EngineError, LabError
from lab.topology.loader import load_topology
from lab.topology.models import Topology

Answer = Callable[[Sequence[str]], Completed]


class FakeStream:
    """A stream of given chunks; a callable is asked for more until it gives None."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if self.closed:
                return
            yield chunk

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeNode:
    """Commands run on this very machine, below ``root``, unless ``answers`` has the first word."""

    name: str
    addresses: Mapping[str, str]
    root: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    running: bool = True
    killed: int = 0
    started: int = 0
    calls: list[list[str]] = field(default_factory=list)
    broken: bool = False
    paused: bool = False
    cpus: float | None = None
    unplugged: set[str] = field(default_factory=set)

    def address(self, network: Network) -> str:
        return self.addresses[network]

    def _path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",  # noqa: ARG002
        env: Mapping[str, str] | None = None,  # noqa: ARG002
        input: bytes | None = None,
        timeout_s: float = 30.0,
        check: bool = True,
    ) -> Completed:
        self.calls.append(list(argv))
        if self.broken or not self.running:
            raise EngineError(f"could not run: node {self.name} is not running")
        answer = self.answers.get(argv[0])
        if answer is not None:
            done = answer(argv)
        else:
            words = [self._path(w).as_posix() if w.startswith("/run/lab") else w for w in argv]
            seen = subprocess.run(words, input=input, capture_output=True, timeout=timeout_s, check=False)
            done = Completed(seen.returncode, seen.stdout.decode(), seen.stderr.decode())
        if check and done.exit_code:
            raise LabError(f"`{argv[0]}` on {self.name} failed")
        return done

    def spawn(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",  # noqa: ARG002
        env: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> None:
        self.calls.append(list(argv))

    def stream(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",  # noqa: ARG002
        env: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> FakeStream:
        """``tail -c +N [-f] <file>`` only."""
        start, path = int(argv[2].lstrip("+")) - 1, self._path(argv[-1])
        follow = "-f" in argv

        def chunks() -> Iterator[bytes]:
            position = start
            while True:
                data = path.read_bytes()[position : position + 7]
                position += len(data)
                if data:
                    yield data
                elif not follow or stream.closed:
                    return
                else:
                    time.sleep(0.01)

        stream = FakeStream(chunks())
        return stream

    def put(self, path: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:  # noqa: ARG002
        target = self._path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def put_tree(self, source: Path, target: str) -> None:
        shutil.copytree(source, self._path(target), dirs_exist_ok=True)

    def get(self, path: str) -> bytes:
        try:
            return self._path(path).read_bytes()
        except OSError as error:
            raise LabError(f"no file {path} on {self.name}") from error

    def kill(self) -> tuple[float, float]:
        self.killed += 1
        self.running = False
        return 1000.0, 1000.02

    def start(self) -> None:
        if self.broken:
            raise EngineError(f"could not start {self.name}")
        self.started += 1
        self.running = True

    def stop(self, grace_s: float = 10.0) -> None:  # noqa: ARG002
        self.running = False

    def pause(self) -> tuple[float, float]:
        self.paused = True
        return 1000.0, 1000.02

    def unpause(self) -> None:
        self.paused = False

    def detach(self, network: Network) -> tuple[float, float]:
        assert network in self.addresses
        self.unplugged.add(network)
        return 2000.0, 2000.05

    def attach(self, network: Network) -> None:
        self.unplugged.discard(network)

    def attached(self) -> tuple[Network, ...]:
        known: tuple[Network, ...] = ("app", "data", "control")
        return tuple(n for n in known if n in self.addresses and n not in self.unplugged)

    def limit_cpu(self, cpus: float | None) -> tuple[float, float]:
        self.cpus = cpus
        return 1000.0, 1000.02

    def state(self) -> NodeState:
        return NodeState(self.running, self.paused, None if self.running else 137, False, 1.0, None)

    def log(self, *, since: float | None = None, tail: int | None = None) -> str:  # noqa: ARG002
        return f"2026-01-01T00:00:00Z {self.name}\n"


class FakeLab:
    """A topology's lab, with fake nodes."""

    def __init__(self, folder: Path, name: str = "fake", *, topology: str = "risk-prod") -> None:
        self._topology = load_topology(topology)
        self._allocation = sample_allocation(name, self._topology)
        self.state_dir_ = folder / "state"
        self.state_dir_.mkdir(parents=True)
        self._nodes = {
            member.name: FakeNode(
                member.name, self._allocation.addresses[member.name], folder / "nodes" / member.name
            )
            for member in self._topology.members()
        }

    @property
    def name(self) -> str:
        return self._allocation.lab

    @property
    def topology(self) -> Topology:
        return self._topology

    @property
    def allocation(self) -> Allocation:
        return self._allocation

    @property
    def state_dir(self) -> Path:
        return self.state_dir_

    @property
    def nodes(self) -> dict[str, FakeNode]:
        return self._nodes

    def secret(self, name: str) -> str:
        return f"secret of {name}"

    def rendered(self) -> Mapping[str, str]:
        return {"patroni/pg1.yml": "# x\nscope: risk-prod\nnamespace: /service/\n"}
