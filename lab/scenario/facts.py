"""What the record says about the machine, the versions and the services, asked of the lab itself."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lab.driver import Lab, Node
from lab.errors import LabError

PYTHON = "/opt/venv/bin/python"
ASK_S = (15.0, 30.0)

_MACHINE = r"""
echo "cores=$(nproc --all)"
echo "memory_kib=$(awk '/^MemTotal/ {print $2}' /proc/meminfo)"
echo "kernel=$(uname -r)"
echo "cpu_model=$(awk -F': ' '/^model name/ {print $2; exit}' /proc/cpuinfo)"
echo "architecture=$(uname -m)"
"""


def machine(lab: Lab) -> dict[str, Any]:
    """The engine's host, as its kernel tells every node; and the engine, where it says so."""
    facts = dict(
        line.partition("=")[::2]
        for line in _say(lab.nodes[lab.topology.observer.name], ["sh", "-c", _MACHINE]).splitlines()
    )
    found: dict[str, Any] = {
        "cores": int(facts.get("cores") or 0) or None,
        "memory_bytes": int(facts.get("memory_kib") or 0) * 1024 or None,
        "kernel": facts.get("kernel"),
        "cpu_model": facts.get("cpu_model") or None,
        "architecture": facts.get("architecture"),
    }
    if lab.allocation.cores:
        ours, theirs = lab.topology.observer.name, lab.topology.postgres.primary.name
        cores = lab.allocation.cores
        found["pinned"] = f"clients and observer to {cores[ours]}, all else to {cores[theirs]}"
    return {**found, **_engine()}


def _engine() -> dict[str, Any]:
    try:
        from lab.deploy.engine import api, engine_errors

        with engine_errors("ask the engine what it is"):
            info, version = api().info(), api().version()
    except (LabError, ImportError):
        return {}
    return {
        "engine": f"{info.get('ServerVersion')}",
        "api": version.get("ApiVersion"),
        "os": info.get("OperatingSystem"),
        "cgroup": info.get("CgroupVersion"),
        "storage": info.get("Driver"),
    }


def versions(lab: Lab) -> dict[str, str]:
    """What really runs, by each program's own word; what does not answer is left out."""
    topology = lab.topology
    asks: dict[str, tuple[str, list[str]]] = {
        "postgresql": (topology.postgres.nodes[0].name, ["postgres", "--version"]),
    }
    if topology.postgres.high_availability == "patroni":
        asks["patroni"] = (topology.postgres.nodes[0].name, ["patroni", "--version"])
    if topology.poolers:
        asks["pgbouncer"] = (topology.poolers[0].name, ["pgbouncer", "--version"])
    if topology.routers:
        asks["haproxy"] = (topology.routers[0].name, ["haproxy", "-v"])
    if topology.etcd:
        asks["etcd"] = (topology.etcd[0].name, ["etcd", "--version"])
    if topology.cache:
        asks["redis"] = (topology.cache.nodes[0].name, ["redis-server", "--version"])
    if topology.proxy and lab.allocation.toxiproxy:
        asks["toxiproxy"] = (topology.proxy.name, ["toxiproxy-server", "--version"])
    script = (
        "import sys;from importlib.metadata import version as v;"
        "print('python',sys.version.split()[0]);print('locust',v('locust'));print('psycopg',v('psycopg'))"
    )
    asks["client"] = (topology.clients[0].name, [PYTHON, "-c", script])
    with ThreadPoolExecutor(4) as pool:
        said = dict(
            zip(asks, pool.map(lambda ask: _say(lab.nodes[ask[0]], ask[1]), asks.values()), strict=True)
        )
    found: dict[str, str] = {}
    for line in said.pop("client").splitlines():
        name, _, value = line.partition(" ")
        found[name] = value
    for name, text in said.items():
        number = first_version(text)
        if number:
            found[name] = number
    return dict(sorted(found.items()))


def first_version(text: str) -> str | None:
    """The first thing in a text that looks like a version."""
    match = re.search(r"\d+\.\d+(\.\d+)*", text)
    return match[0] if match else None


def _say(node: Node, words: list[str]) -> str:
    """What a program prints; "" where it does not answer, on a busy machine not even the second time."""
    for timeout_s in ASK_S:
        with contextlib.suppress(LabError):
            done = node.run(words, check=False, timeout_s=timeout_s)
            if done.stdout or done.stderr:
                return done.stdout or done.stderr
    return ""


def logs(lab: Lab, since_wall: float, put: Callable[[str, str], None]) -> list[str]:
    """Hand every node's log since a moment to ``put(node, text)``; names of nodes whose log was not had."""

    def one(name: str) -> str | None:
        try:
            put(name, lab.nodes[name].log(since=since_wall))
        except LabError:
            return name
        return None

    with ThreadPoolExecutor(4) as pool:
        return [name for name in pool.map(one, lab.nodes) if name]


def scope_of(rendered: Mapping[str, str]) -> tuple[str, str]:
    """Scope and namespace of Patroni in the rendered files, so that the observer finds its leader key."""
    for path, text in rendered.items():
        if "patroni" in path and path.endswith((".yml", ".yaml")):
            scope = re.search(r"^scope:\s*(\S+)", text, re.MULTILINE)
            namespace = re.search(r"^namespace:\s*(\S+)", text, re.MULTILINE)
            if scope:
                return scope[1], (namespace[1] if namespace else "/service").rstrip("/")
    return "", "/service"


def statements(text: str) -> dict[str, Any]:
    """What ``inside.py statements`` printed."""
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        return {}
    return found
