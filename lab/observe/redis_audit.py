"""What every Redis node holds of the Redis writer's list, once each has what the primary has."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

ERRORS = (redis.RedisError, OSError)
POLL_S = 0.2


def audit(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Node → role, offset, caught_up, rows, primary, why; then the list is removed.

    Writes ``<out>/redis-<node>.csv`` (n,copies). ``settings``: redis (name, host, port of each node),
    redis_key, passwords, tls, out, wait_s.
    """
    password = Path(settings["passwords"]["redis"]).read_text(encoding="utf-8").strip()
    servers = {node["name"]: _server(node, password, tls=settings["tls"]) for node in settings["redis"]}
    ends = time.monotonic() + settings["wait_s"]
    while True:
        found = standings({name: _replication(server) for name, server in servers.items()})
        if all(one["caught_up"] for one in found.values()) or time.monotonic() > ends:
            break
        time.sleep(POLL_S)
    for name, result in found.items():
        try:
            copies = Counter(_text(n) for n in servers[name].lrange(settings["redis_key"], 0, -1))
        except ERRORS as error:
            result["caught_up"], result["why"] = False, result["why"] or f"its list cannot be read: {error}"
            continue
        lines = "".join(f"{number},{count}\n" for number, count in copies.items())
        Path(f"{settings['out']}/redis-{name}.csv").write_text(lines, encoding="ascii")
        result["rows"] = len(copies)
    for name in (name for name, result in found.items() if result["primary"]):
        with contextlib.suppress(*ERRORS):
            servers[name].delete(settings["redis_key"])
    return found


def _server(node: Mapping[str, Any], password: str, *, tls: bool) -> redis.Redis:
    where: dict[str, Any] = {"host": node["host"], "port": node["port"]}
    if tls:
        where |= {"ssl": True, "ssl_ca_certs": "/run/secrets/ca.crt"}
    return redis.Redis(**where, password=password, socket_timeout=5, socket_connect_timeout=3)


def _replication(server: redis.Redis) -> dict[str, Any]:
    """INFO replication, empty where it does not answer."""
    with contextlib.suppress(*ERRORS):
        return dict(server.info("replication"))
    return {}


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("ascii", "replace")


def standings(told: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Who has caught up with the only primary, by what each node's INFO replication says."""
    primaries = [name for name, one in told.items() if one.get("role") == "master"]
    found = {}
    for name, one in told.items():
        role, offset = one.get("role"), one.get("master_repl_offset")
        if not one:
            why = "no answer"
        elif len(primaries) != 1:
            why = f"nodes that call themselves primary: {', '.join(primaries) or 'none'}"
        else:
            why = "" if name == primaries[0] else _behind(one, told[primaries[0]])
        found[name] = {"role": role, "offset": offset, "caught_up": not why, "rows": None, "why": why}
        found[name]["primary"] = primaries == [name]
    return found


def _behind(replica: Mapping[str, Any], primary: Mapping[str, Any]) -> str:
    """Why a replica lacks something of the primary; offsets count the bytes of one history (its replid)."""
    if replica.get("master_link_status") != "up" or replica.get("master_replid") != primary.get(
        "master_replid"
    ):
        return "it does not replicate from the primary"
    if int(replica.get("master_repl_offset") or 0) < int(primary.get("master_repl_offset") or 0):
        return "it is behind the primary"
    return ""
