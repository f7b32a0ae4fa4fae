"""The Docker driver: a running lab and its nodes, as the protocols of ``lab.driver``.

The only thing that it knows of a lab beyond its state folder are labels: a node is the container
that carries ``pglab.lab=<lab>`` and Compose's own service label. Methods may be called from several
threads at once; each thread has its own connection to the engine.
"""

from __future__ import annotations

import contextlib
import io
import posixpath
import socket
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import docker.errors

from lab.deploy import state
from lab.deploy.allocation import Allocation
from lab.deploy.compose_file import CPU_PERIOD_US, MIN_QUOTA_US
from lab.deploy.engine import api, engine_errors, is_local, read_archive
from lab.deploy.exec_stream import Attached
from lab.driver import Completed, Network, NodeState
from lab.errors import EngineError, LabError
from lab.topology.models import Topology

LABEL_LAB = "pglab.lab"
LABEL_INSTANCE = "pglab.instance"
LABEL_SERVICE = "com.docker.compose.service"

KILL_GRACE_S = 2.0
"""Between SIGTERM and SIGKILL of a command that ran out of time or whose stream was closed."""

# Ends the command when standard input ends, which the engine closes as soon as the reader is gone,
# also when the reader was killed. The command is a session of its own so that its children end too.
_STREAM_SCRIPT = f"""
exec 3<&0
setsid "$@" </dev/null 3<&- & child=$!
{{ cat <&3 >/dev/null 2>&1
   kill -TERM -$child; sleep {KILL_GRACE_S:g}; kill -KILL -$child
}} >/dev/null 2>&1 & watch=$!
exec 3<&-
wait $child; code=$?
kill $watch 2>/dev/null
exit $code
"""


def parse_time(text: str) -> float | None:
    """The engine's RFC 3339 time stamp (nanoseconds, UTC) as seconds since the epoch; None for its zero."""
    if not text or text.startswith("0001-"):
        return None
    head, _, fraction = text.rstrip("Z").partition(".")
    offset = ""
    for sign in ("+", "-"):
        if sign in fraction:
            fraction, _, rest = fraction.partition(sign)
            offset = sign + rest
    seconds = datetime.fromisoformat(f"{head}{offset or '+00:00'}").timestamp()
    return seconds + (float(f"0.{fraction}") if fraction else 0.0)


class DockerStream:
    """Standard output of a running command, in chunks as they come."""

    def __init__(self, node: DockerNode, exec_id: str) -> None:
        self._node = node
        with engine_errors(f"start a command on {node.name}"):
            self._attached = Attached(api(), exec_id)

    def __iter__(self) -> Iterator[bytes]:
        try:
            with engine_errors(f"read from {self._node.name}"):
                for kind, payload in self._attached.send_and_read(None, None):
                    if kind == 1 and payload:
                        yield payload
        finally:
            self._attached.release()

    def close(self) -> None:
        """Stop reading, and end the command on the node. Idempotent."""
        self._attached.close()


class DockerNode:
    """One container of a lab."""

    def __init__(
        self, lab: str, name: str, container: str, addresses: Mapping[str, str], cpus: float | None = None
    ) -> None:
        """``cpus``: what the allocation limits it to, None where it has no limit."""
        self._cpus = cpus
        self._lab = lab
        self._name = name
        self._id = container
        self._addresses = dict(addresses)

    def __repr__(self) -> str:
        return f"DockerNode({self._lab}/{self._name})"

    @property
    def name(self) -> str:
        return self._name

    @property
    def container(self) -> str:
        """The container's id; for this package only."""
        return self._id

    def address(self, network: Network) -> str:
        """The node's fixed address on a network; KeyError where it is not attached."""
        return self._addresses[network]

    # --- commands

    def _exec(self, argv: Sequence[str], user: str, env: Mapping[str, str] | None, stdin: bool) -> str:
        if not argv:
            raise ValueError("a command needs at least one word")
        with self._errors(f"run `{argv[0]}`"):
            made = api().exec_create(
                self._id, list(argv), user=user, environment=dict(env or {}), stdin=stdin,
                stdout=True, stderr=True,
            )  # fmt: skip
        return str(made["Id"])

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        """Engine errors, with the commonest reason said plainly: the node does not run."""
        try:
            with engine_errors(f"{action} on {self._name}"):
                yield
        except EngineError as error:
            text = str(error)
            if "is not running" in text or "is paused" in text or "is restarting" in text:
                why = "is paused" if "is paused" in text else "is not running"
                raise EngineError(f"could not {action}: node {self._name} {why}") from error
            raise

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
        """Run a command to its end.

        The limit is enforced twice: on the node by ``timeout``, so that nothing stays behind, and
        here, in case the node itself hangs or is paused.

        Raises:
            LabError: it failed (with ``check``), or took longer than ``timeout_s``.
        """
        words = " ".join(argv[:3])
        guarded = ["timeout", f"--kill-after={KILL_GRACE_S:g}", f"{timeout_s:.3f}", *argv]
        started = time.monotonic()
        deadline = started + timeout_s + KILL_GRACE_S + 1.0
        exec_id = self._exec(guarded, user, env, input is not None)
        out, err = bytearray(), bytearray()
        with self._errors(f"run `{words}`"):
            attached = Attached(api(), exec_id)
        try:
            for kind, payload in attached.send_and_read(input, deadline):
                if kind == 2:
                    err += payload
                else:
                    out += payload
        except TimeoutError as error:
            raise LabError(f"`{words}` on {self._name} took longer than {timeout_s:g} s") from error
        finally:
            attached.release()
        code = self._exit_code(exec_id, words)
        if code in (124, 137) and time.monotonic() - started >= timeout_s:
            raise LabError(f"`{words}` on {self._name} took longer than {timeout_s:g} s")
        done = Completed(code, out.decode(errors="replace"), err.decode(errors="replace"))
        if check and code != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise LabError(
                f"`{words}` on {self._name} failed with exit code {code}"
                + (f": {said[-1][:500]}" if said else "")
            )
        return done

    def _exit_code(self, exec_id: str, words: str) -> int:
        """The stream may end a moment before the engine has noted the exit code."""
        deadline = time.monotonic() + 5.0
        while True:
            with self._errors(f"run `{words}`"):
                seen = api().exec_inspect(exec_id)
            if seen.get("ExitCode") is not None and not seen.get("Running"):
                return int(seen["ExitCode"])
            if time.monotonic() > deadline:
                raise LabError(f"`{words}` on {self._name} was cut off: the node died or hangs")
            time.sleep(0.01)

    def spawn(self, argv: Sequence[str], *, user: str = "root", env: Mapping[str, str] | None = None) -> None:
        """Start a command that outlives the caller; nothing of its output is kept."""
        exec_id = self._exec(argv, user, env, False)
        with self._errors(f"start `{argv[0]}`"):
            api().exec_start(exec_id, detach=True)

    def stream(
        self, argv: Sequence[str], *, user: str = "root", env: Mapping[str, str] | None = None
    ) -> DockerStream:
        """Start a command and read its standard output as it comes; it ends when the reader goes."""
        guarded = ["sh", "-c", _STREAM_SCRIPT, "sh", *argv]
        return DockerStream(self, self._exec(guarded, user, env, True))

    # --- files

    def put(self, path: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Write one file; parent directories are made."""
        folder, name = posixpath.split(path)
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.uid, info.gid, info.mtime = len(data), mode, uid, gid, int(time.time())
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(info, io.BytesIO(data))
        self._extract(folder or "/", buffer.getvalue())

    def put_tree(self, source: Path, target: str) -> None:
        """Copy a directory of the host into ``target`` on the node (``*.py`` and data, no caches)."""
        if not source.is_dir():
            raise LabError(f"no such directory: {source}")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(source, arcname=".", filter=_plain)
        self._extract(target, buffer.getvalue())

    def _extract(self, folder: str, archive: bytes) -> None:
        if self._on_tmpfs(folder):
            # The engine's archive calls see the disk below a tmpfs, not the tmpfs.
            self.run(["mkdir", "-p", folder])
            self.run(["tar", "-x", "-C", folder, "-f", "-"], input=archive)
            return
        with self._errors(f"write to {folder}"):
            try:
                api().put_archive(self._id, folder, archive)
                return
            except docker.errors.NotFound:
                pass
        self.run(["mkdir", "-p", folder])
        with self._errors(f"write to {folder}"):
            api().put_archive(self._id, folder, archive)

    def get(self, path: str) -> bytes:
        """Read one file. LabError where there is none."""
        if self._on_tmpfs(path):
            return self._get_by_tar(path)
        try:
            with engine_errors(f"read {path} on {self._name}"):
                packed = read_archive(self._id, path)
        except EngineError as error:
            if isinstance(error.__cause__, docker.errors.NotFound):
                raise LabError(f"no file {path} on {self._name}") from error
            raise
        return _only_file(packed, path, self._name)

    def _get_by_tar(self, path: str) -> bytes:
        exec_id = self._exec(["cat", "--", path], "root", None, False)
        out = bytearray()
        with self._errors(f"read {path}"):
            attached = Attached(api(), exec_id)
        try:
            for kind, payload in attached.send_and_read(None, time.monotonic() + 60):
                if kind == 1:
                    out += payload
        finally:
            attached.release()
        if self._exit_code(exec_id, "cat") != 0:
            raise LabError(f"no file {path} on {self._name}")
        return bytes(out)

    @cached_property
    def _tmpfs(self) -> tuple[str, ...]:
        inspected = self._inspect()
        mounts = [m["Destination"] for m in inspected.get("Mounts", ()) if m.get("Type") == "tmpfs"]
        return (*(inspected["HostConfig"].get("Tmpfs") or {}), *mounts, "/dev/shm")

    def _on_tmpfs(self, path: str) -> bool:
        return any(path == t or path.startswith(t.rstrip("/") + "/") for t in self._tmpfs)

    # --- life and death

    def kill(self) -> tuple[float, float]:
        """SIGKILL everything on the node at once.

        Returns:
            The earliest and the latest moment at which it can have died, in seconds since the
            epoch by the clock of the engine's host: the call's start, and the moment at which the
            engine had reaped it.

        Raises:
            EngineError: it does not run, or did not die.
        """
        offset, uncertainty = clock_offset()
        with self._errors("kill everything"):
            start = time.time()
            api().kill(self._id, "SIGKILL")
        deadline = time.monotonic() + 10
        while True:
            now = self.state()
            if not now.running and now.finished_at is not None:
                break
            if time.monotonic() > deadline:
                raise EngineError(f"node {self._name} did not die of SIGKILL within 10 s")
            time.sleep(0.005)
        earliest = start + offset - uncertainty
        return earliest, max(now.finished_at, earliest)

    def start(self) -> None:
        """Start a node that was killed or stopped; it keeps its disk and addresses."""
        with self._errors("start the node"):
            api().start(self._id)

    def stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after ``grace_s`` seconds."""
        with self._errors("stop the node"):
            api().stop(self._id, timeout=round(grace_s))

    def pause(self) -> tuple[float, float]:
        """Freeze every process of the node; its connections stay open. The moment as ``kill`` tells it."""
        with self._timed("pause the node") as moment:
            api().pause(self._id)
        return moment[0], moment[1]

    def unpause(self) -> None:
        """Undo pause. Does nothing on a node that is not paused."""
        try:
            with engine_errors(f"resume {self._name}"):
                api().unpause(self._id)
        except EngineError as error:
            if "is not paused" not in str(error) and "is not running" not in str(error):
                raise
            return
        self._name_others()

    def _network(self, network: Network) -> str:
        """Name of the lab's network, as the engine knows it."""
        self._addresses[network]  # KeyError where the node was never on it
        return f"pglab-{self._lab}_{network}"

    def detach(self, network: Network) -> tuple[float, float]:
        """Pull the node's plug on a network; nothing happens where it is pulled already.

        Returns:
            The earliest and the latest moment at which it can have happened, in seconds since the epoch
            by the clock of the engine's host: the call's start and its end.

        Raises:
            KeyError: the node was never on that network.
        """
        name = self._network(network)
        offset, uncertainty = clock_offset()
        start = time.time()
        if network in self.attached():
            with self._errors(f"unplug network {network}"):
                api().disconnect_container_from_network(self._id, name)
            self._name_others()
        return start + offset - uncertainty, time.time() + offset + uncertainty

    def attach(self, network: Network) -> None:
        """Put it back, with the same address. Idempotent."""
        name = self._network(network)
        if network not in self.attached():
            with self._errors(f"plug into network {network}"):
                api().connect_container_to_network(self._id, name, ipv4_address=self._addresses[network])
        self._name_others()

    def _name_others(self) -> None:
        """Put names that the lab gave back into /etc/hosts: with a network the engine takes away those on it.

        Without them the node would ask the engine, which knows others on any network, also on control: what
        is cut off from the data network would replicate past the cut.
        """
        seen = self._inspect()
        if not seen["State"]["Running"] or seen["State"]["Paused"]:
            return  # a start makes the file anew, and `unpause` calls this again
        given = (entry.partition(":") for entry in seen["HostConfig"]["ExtraHosts"] or ())
        lines = "".join(f"{address}\t{name}\n" for name, _, address in given)
        script = 'while read -r line; do grep -qxF -- "$line" /etc/hosts || echo "$line" >>/etc/hosts; done'
        self.run(["sh", "-c", script], input=lines.encode())

    def attached(self) -> tuple[Network, ...]:
        """Networks that it is plugged into now."""
        found = self._inspect()["NetworkSettings"]["Networks"]
        known: tuple[Network, ...] = ("app", "data", "control")
        mine = [network for network in known if network in self._addresses]
        return tuple(network for network in mine if self._network(network) in found)

    def limit_cpu(self, cpus: float | None) -> tuple[float, float]:
        """Limit the node to so many CPUs from now on; None: to what its allocation gives it.

        The moment as ``kill`` tells it.
        """
        wanted = self._cpus if cpus is None else cpus
        # 0 would leave the limit as it is: no limit is a quota of -1.
        quota = max(round(wanted * CPU_PERIOD_US), MIN_QUOTA_US) if wanted else -1
        with self._timed("limit the processor") as moment:
            api().update_container(self._id, cpu_period=CPU_PERIOD_US, cpu_quota=quota)
        return moment[0], moment[1]

    @contextlib.contextmanager
    def _timed(self, action: str) -> Iterator[list[float]]:
        """A call of the engine; afterwards the list holds its beginning and end by the engine's clock."""
        offset, uncertainty = clock_offset()
        moment: list[float] = []
        with self._errors(action):
            start = time.time()
            yield moment
            end = time.time()
        moment += [start + offset - uncertainty, end + offset + uncertainty]

    def _inspect(self) -> dict[str, Any]:
        with engine_errors(f"look at node {self._name}"):
            seen: dict[str, Any] = api().inspect_container(self._id)
        return seen

    def state(self) -> NodeState:
        """What the engine says of the node."""
        seen = self._inspect()["State"]
        running = bool(seen["Running"])
        return NodeState(
            running=running,
            paused=bool(seen["Paused"]),
            exit_code=None if running else int(seen["ExitCode"]),
            oom_killed=bool(seen["OOMKilled"]),
            started_at=parse_time(seen["StartedAt"]),
            finished_at=None if running else parse_time(seen["FinishedAt"]),
        )

    def log(self, *, since: float | None = None, tail: int | None = None) -> str:
        """What the node printed, each line led by an RFC 3339 time stamp of the engine's host.

        Args:
            since: seconds since the epoch, by the engine's clock.
            tail: so many lines from the end.
        """
        with engine_errors(f"read the log of {self._name}"):
            text: bytes = api().logs(
                self._id, timestamps=True, stdout=True, stderr=True, since=since,
                tail="all" if tail is None else tail,
            )  # fmt: skip
        return text.decode(errors="replace")


class DockerLab:
    """A running lab on a Docker engine."""

    def __init__(
        self, name: str, topology: Topology, allocation: Allocation, nodes: Mapping[str, DockerNode]
    ) -> None:
        self._name = name
        self._topology = topology
        self._allocation = allocation
        self._nodes = MappingProxyType(dict(nodes))

    @classmethod
    def open(cls, name: str) -> DockerLab:
        """Find a running lab by its name.

        Raises:
            UsageError: there is no such lab.
            LabError: it is there but not whole (``lab up`` was killed, or files were removed).
        """
        allocation = state.load_allocation(name)
        lab = cls(name, state.load_topology(name), allocation, find_nodes(allocation))
        missing = [m.name for m in lab.expected() if m.name not in lab.nodes]
        if missing:
            raise LabError(
                f"lab {name} is incomplete: no {', '.join(missing[:5])}"
                + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
                hint=f"`lab down --name {name}` removes what is left of it, then bring it up anew.",
            )
        return lab

    def expected(self) -> tuple[Any, ...]:
        """The members of the topology that run on this machine."""
        return tuple(
            member
            for member in self._topology.members()
            if self._allocation.toxiproxy or member != self._topology.proxy
        )

    @property
    def name(self) -> str:
        return self._name

    @property
    def topology(self) -> Topology:
        return self._topology

    @property
    def allocation(self) -> Allocation:
        return self._allocation

    @property
    def state_dir(self) -> Path:
        return state.lab_dir(self._name)

    @property
    def nodes(self) -> Mapping[str, DockerNode]:
        return self._nodes

    def secret(self, name: str) -> str:
        """A generated secret in clear, for handing to a node; never to be written to a record."""
        return self._secrets[name]

    @cached_property
    def _secrets(self) -> Mapping[str, str]:
        from lab.deploy.secrets import load_secrets

        return load_secrets(self.state_dir)

    def rendered(self) -> Mapping[str, str]:
        """Every rendered file by its relative path; secrets appear as references only."""
        from lab.deploy.render import render

        return render(self._topology, self._allocation)


def find_nodes(allocation: Allocation) -> dict[str, DockerNode]:
    """The containers of a lab, running or not, by node name."""
    with engine_errors("list the nodes of the lab"):
        found = api().containers(all=True, filters={"label": [f"{LABEL_LAB}={allocation.lab}"]})
    nodes: dict[str, DockerNode] = {}
    for container in found:
        labels = container.get("Labels") or {}
        name = labels.get(LABEL_SERVICE)
        if name is None or labels.get(LABEL_INSTANCE) != allocation.instance_id:
            continue
        limits = allocation.resources.get(name)
        nodes[name] = DockerNode(
            allocation.lab,
            name,
            container["Id"],
            allocation.addresses.get(name, {}),
            limits.cpus if limits else None,
        )
    return nodes


def clock_offset() -> tuple[float, float]:
    """Clock of the engine's host minus this machine's, and its uncertainty, in seconds.

    Both are 0 where the engine runs on this very machine (one clock). Elsewhere the offset is that
    of the quickest of five calls, uncertain by half its round trip.
    """
    best: tuple[float, float] | None = None
    for _ in range(5):
        before = time.time()
        with engine_errors("read the engine's clock"):
            info = api().info()
        after = time.time()
        theirs = parse_time(str(info["SystemTime"]))
        half = (after - before) / 2
        if theirs is None:
            raise EngineError("the engine does not tell its time")
        offset = theirs - (before + half)
        if is_local() and info.get("Name") == socket.gethostname() and abs(offset) <= half:
            return 0.0, 0.0
        if best is None or half < best[1]:
            best = (offset, half)
    assert best is not None
    return best


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out caches; files belong to root and are readable by all."""
    name = posixpath.basename(info.name)
    if name == "__pycache__" or name.endswith(".pyc") or (name.startswith(".") and info.name != "."):
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = 0o755 if info.isdir() else 0o644
    return info


def _only_file(packed: bytes, path: str, node: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        member = archive.next()
        file = archive.extractfile(member) if member is not None and member.isfile() else None
        if file is not None:
            return file.read()
        if member is not None and member.issym():
            raise LabError(f"{path} on {node} is a link to {member.linkname}")
    raise LabError(f"{path} on {node} is not a file")
