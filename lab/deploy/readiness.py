"""Waiting for the truth: a lab is ready when it does what it is for, not when its containers run.

Ready means: a leader runs; every other database node streams from it on its timeline; a standby is
synchronous where the topology says so; a write is acknowledged through every pool (and a read answered by a
replica); Redis replicates; every Sentinel sees the quorum; Toxiproxy's API answers.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.deploy.allocation import Endpoint
from lab.deploy.diagnose import explain_dead, explain_waiting
from lab.deploy.endpoints import SENTINEL_SERVICE, application_endpoints, endpoints
from lab.deploy.secret_names import PROBE
from lab.driver import Lab, Node
from lab.errors import LabError, NotReady

PYTHON = "/opt/venv/bin/python"
_SCRIPT = Path(__file__).with_name("inside.py")
_WATCH_PERIOD_S = 1.0
"""How often the engine is asked whether every node still runs."""


@dataclass(frozen=True)
class Check:
    """What one readiness check saw last."""

    name: str
    """``leader``, ``pg2 replication``, ``pool-transaction.writer``, …"""
    node: str
    """The node that it is about; empty for the cluster as a whole."""
    ok: bool
    detail: str
    elapsed_s: float
    """Since the waiting began, seconds."""


Progress = Callable[[Check], None]


def ignore(_: Check) -> None:
    """Progress that nobody watches."""


def inside_config(lab: Lab, timeout_s: float) -> dict[str, Any]:
    """What ``inside.py`` needs to know. Holds passwords: never to be logged or kept."""
    topology = lab.topology
    points = endpoints(topology, lab.allocation)

    def point(name: str) -> dict[str, Any]:
        return _point(points[name])

    patroni = topology.postgres.high_availability == "patroni"
    fronts = application_endpoints(topology)
    plain = [] if patroni else [point(f"{node.name}.direct") for node in topology.postgres.nodes]
    cache = topology.cache
    proxy = topology.proxy if lab.allocation.toxiproxy else None
    return {
        "timeout_s": timeout_s,
        "tls": topology.tls.enabled,
        "ca": "/run/secrets/ca.crt",
        "user": PROBE,
        "password": lab.secret(f"password_{PROBE}"),
        "redis_password": lab.secret("password_redis") if cache else None,
        "patroni": [
            {"name": node.name, "url": _url(points[f"{node.name}.patroni"])}
            for node in topology.postgres.nodes
        ]
        if patroni
        else [],
        "plain": plain,
        "synchronous": topology.postgres.synchronous != "off"
        and any(node.role in ("standby", "reader") for node in topology.postgres.nodes),
        "writers": [point(writer) for writer, _ in fronts],
        "readers": [point(reader) for _, reader in fronts],
        "read_on_replica": bool(topology.postgres.readable),
        "redis": [point(f"{node.name}.redis") for node in cache.nodes] if cache else [],
        "sentinels": [point(f"{node.name}.sentinel") for node in cache.sentinels] if cache else [],
        "sentinel_service": SENTINEL_SERVICE,
        "proxy": {"name": proxy.name, "node": proxy.name, "url": _url(points[f"{proxy.name}.api"])}
        if proxy
        else None,
    }


def _point(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "node": endpoint.node,
        "host": endpoint.host,
        "port": endpoint.port,
        "database": endpoint.database,
    }


def _url(endpoint: Endpoint) -> str:
    return f"http://{endpoint.host}:{endpoint.port}"


def put_inside(node: Node, config: dict[str, Any], mode: str) -> list[str]:
    """Copy the program and its configuration to the observer (it removes both); the command that runs it."""
    tag = secrets.token_hex(4)
    script, settings = f"/run/lab/inside-{tag}.py", f"/run/lab/inside-{tag}.json"
    node.put(script, _SCRIPT.read_bytes())
    node.put(settings, json.dumps(config).encode(), mode=0o600)
    return [PYTHON, script, settings, mode]


def lines_of(chunks: Iterator[bytes]) -> Iterator[str]:
    """Whole lines of a stream of chunks."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")


def wait_ready(lab: Lab, progress: Progress = ignore, timeout_s: float = 120.0) -> float:
    """Wait until the lab is ready, as the module says.

    Args:
        lab: every node of it should run; one that has ended makes the waiting end at once.
        progress: told whenever a check changes, from this thread.
        timeout_s: limit in seconds.

    Returns:
        Seconds that it took.

    Raises:
        NotReady: names the node or check that is not ready, with its last log lines and the likely cause.
        EngineError: the engine stopped answering.
    """
    started = time.monotonic()
    observer = lab.nodes[lab.topology.observer.name]
    dead = find_dead(lab)
    if dead is not None:
        raise explain_dead(dead)
    command = put_inside(observer, inside_config(lab, timeout_s), "ready")
    stream = observer.stream(command)
    ended: list[Node] = []
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(_WATCH_PERIOD_S):
            with suppress(LabError):
                found = find_dead(lab)
                if found is not None:
                    ended.append(found)
                    stream.close()
                    return
            if time.monotonic() > started + timeout_s + 5:
                stream.close()
                return

    watcher = threading.Thread(target=watch, name="watch-nodes", daemon=True)
    watcher.start()
    seen: dict[str, Check] = {}
    done = False
    try:
        for line in lines_of(iter(stream)):
            document = json.loads(line)
            if document.get("done"):
                done = True
                break
            check = Check(
                document["check"], document["node"], document["ok"], document["detail"],
                time.monotonic() - started,
            )  # fmt: skip
            seen[check.name] = check
            progress(check)
    finally:
        finished.set()
        stream.close()
        watcher.join(timeout=5)
    if ended:
        raise explain_dead(ended[0])
    if not done:
        waiting = [check for check in seen.values() if not check.ok]
        if not seen:
            raise NotReady("the observer could not look at the lab: its program ended without a word")
        raise explain_waiting(lab, [(c.name, c.node, c.detail) for c in waiting], time.monotonic() - started)
    return time.monotonic() - started


def find_dead(lab: Lab) -> Node | None:
    """A node that does not run, if there is one."""
    for node in lab.nodes.values():
        if not node.state().running:
            return node
    return None
