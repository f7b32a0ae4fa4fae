"""Runs *inside* the observer: looks at the whole lab from where every node can be seen.

Self-contained (standard library, psycopg, redis), because it is copied there as one file. Reads its
configuration, which holds passwords, from the file named in argv[1], removes it and itself, and prints
one JSON document a line:

    ready   {"check", "node", "ok", "detail"} whenever a check changes, at last {"done": true}
    status  {"patroni": [...], "redis": {...}} once

``ready`` polls all checks in parallel, every 150 ms each, until all hold in one and the same pass.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PERIOD_S = 0.15
"""Pause between two polls of one check, in seconds."""
CALL_S = 2.0
"""Limit of one call, in seconds; libpq knows no shorter connect_timeout."""

bind = functools.partial
Result = tuple[bool, str]
_output = threading.Lock()


def emit(document: dict[str, Any]) -> None:
    """Print one JSON document, from whatever thread."""
    with _output:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()


def fetch(url: str) -> Any:
    """GET a JSON document of Patroni; it answers 503 with a body as well."""
    try:
        with urllib.request.urlopen(url, timeout=CALL_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def plain_member(config: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """A database without Patroni, in Patroni's words. OSError where it does not answer."""
    import psycopg

    try:
        with psycopg.connect(**login(config, node)) as connection:
            row = connection.execute(
                "SELECT pg_is_in_recovery(), timeline_id FROM pg_control_checkpoint()"
            ).fetchone()
    except psycopg.Error as error:
        raise OSError((str(error).strip().splitlines() or ["no answer"])[0]) from error
    assert row is not None
    role = "replica" if row[0] else "leader"
    return {"name": node["node"], "role": role, "state": "running", "timeline": row[1]}


def login(config: dict[str, Any], endpoint: dict[str, Any]) -> dict[str, Any]:
    """libpq's parameters for an endpoint."""
    return {
        "host": endpoint["host"], "port": endpoint["port"], "dbname": endpoint["database"],
        "user": config["user"], "password": config["password"],
        "sslmode": "verify-full" if config["tls"] else "disable", "sslrootcert": config["ca"],
        "connect_timeout": int(CALL_S), "application_name": "lab-ready",
        "autocommit": True, "prepare_threshold": None,
    }  # fmt: skip


def cluster(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Patroni's view of its members, from the first node that answers."""
    if config["plain"]:
        return [plain_member(config, node) for node in config["plain"]]
    problem = "no database node is configured"
    for node in config["patroni"]:
        try:
            members = fetch(node["url"] + "/cluster")["members"]
        except (OSError, ValueError, KeyError) as error:
            problem = f"Patroni does not answer yet ({getattr(error, 'reason', error)})"
            continue
        if members:
            return [dict(member) for member in members]
        problem = "no member has joined the cluster yet"
    raise OSError(problem)


def check_leader(config: dict[str, Any]) -> Result:
    """One member leads, and runs."""
    leaders = [m for m in cluster(config) if m["role"] in ("leader", "master", "primary")]
    if len(leaders) != 1:
        return False, "no leader is elected yet" if not leaders else f"{len(leaders)} leaders"
    name, state = leaders[0]["name"], leaders[0]["state"]
    return (
        state == "running",
        f"{name}, timeline {leaders[0].get('timeline')}" if state == "running" else f"{name} is {state}",
    )


def check_replica(config: dict[str, Any], name: str) -> Result:
    """The member streams from the leader, on the leader's timeline. A leader needs to stream from no one."""
    members = {m["name"]: m for m in cluster(config)}
    mine = members.get(name)
    if mine is None:
        return False, "has not joined the cluster yet"
    if mine["role"] in ("leader", "master", "primary"):
        return mine["state"] == "running", f"leads ({mine['state']})"
    leader = next((m for m in members.values() if m["role"] in ("leader", "master", "primary")), None)
    if leader is None:
        return False, "no leader"
    if mine["state"] != "streaming" or mine.get("timeline") != leader.get("timeline"):
        return False, f"{mine['state']}, timeline {mine.get('timeline', '?')}"
    lag = mine.get("lag", mine.get("replay_lag"))
    return isinstance(lag, int), f"streaming, {lag} bytes behind"


def check_synchronous(config: dict[str, Any]) -> Result:
    """Some standby is synchronous, by Patroni's own confirmed view."""
    names = [m["name"] for m in cluster(config) if m["role"] in ("sync_standby", "quorum_standby")]
    return bool(names), ", ".join(names) or "no synchronous standby yet"


class Sql:
    """One connection to one endpoint, made anew after every error."""

    def __init__(self, config: dict[str, Any], endpoint: dict[str, Any]) -> None:
        import psycopg

        self._errors = psycopg.Error
        self._connect: Callable[[], Any] = lambda: psycopg.connect(**login(config, endpoint))
        self._connection: Any = None
        self._run = f"ready-{os.getpid()}-{endpoint['name']}"

    def ask(self, question: Callable[[Any], Result]) -> Result:
        """Ask on the open connection; the answer to any error is a new one next time."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            return question(self._connection)
        except self._errors as error:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return False, lines[0]

    def write(self) -> Result:
        """A write is acknowledged; its row goes again, so that the ledger stays empty."""

        def question(connection: Any) -> Result:
            started = time.monotonic()
            connection.execute(
                "INSERT INTO lab.ledger (run, trial, n, session) VALUES (%s, 0, 0, 0)",
                (self._run,),
            )
            took = time.monotonic() - started
            connection.execute("DELETE FROM lab.ledger WHERE run = %s", (self._run,))
            return True, f"write acknowledged in {took * 1000:.1f} ms"

        return self.ask(question)

    def read(self, on_replica: bool) -> Result:
        """A read is answered, by a replica where there are any."""

        def question(connection: Any) -> Result:
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            if row[0]:
                return True, "answered by a replica"
            if on_replica:
                self._connection.close()  # the balancer may give another node next time
                self._connection = None
            return not on_replica, "answered by the primary"

        return self.ask(question)


def redis_client(config: dict[str, Any], node: dict[str, Any]) -> Any:
    """A connection to Redis or Sentinel."""
    import redis

    return redis.Redis(
        host=node["host"], port=node["port"], password=config["redis_password"], ssl=config["tls"],
        ssl_ca_certs=config["ca"] if config["tls"] else None, socket_timeout=CALL_S,
        socket_connect_timeout=CALL_S, decode_responses=True,
    )  # fmt: skip


def redis_info(config: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Redis' own account of its replication."""
    return dict(redis_client(config, node).info("replication"))


def check_redis(config: dict[str, Any], node: dict[str, Any]) -> Result:
    """The node is the master with all its replicas, or a replica whose link is up."""
    info = redis_info(config, node)
    if info["role"] == "master":
        online = sum(1 for key, value in info.items() if key.startswith("slave") and _online(value))
        wanted = len(config["redis"]) - 1
        return online >= wanted, f"primary, {online} of {wanted} replicas online"
    return info["master_link_status"] == "up", f"replica, link {info['master_link_status']}"


def _online(value: Any) -> bool:
    return isinstance(value, dict) and value.get("state") == "online"


def check_sentinel(config: dict[str, Any], node: dict[str, Any]) -> Result:
    """The Sentinel sees a quorum, and a majority that could fail over."""
    answer = str(
        redis_client(config, node).execute_command("SENTINEL", "CKQUORUM", config["sentinel_service"])
    )
    known = (
        len(redis_client(config, node).execute_command("SENTINEL", "SENTINELS", config["sentinel_service"]))
        + 1
    )
    wanted = len(config["sentinels"])
    ok = ("OK" in answer or answer == "True") and known >= wanted
    return ok, f"quorum, sees {known} of {wanted} Sentinels"


def check_proxy(config: dict[str, Any]) -> Result:
    """Toxiproxy's API answers."""
    with urllib.request.urlopen(config["proxy"]["url"] + "/version", timeout=CALL_S) as answer:
        return True, f"API answers, version {json.load(answer)['version']}"


def checks(config: dict[str, Any]) -> list[tuple[str, str, Callable[[], Result]]]:
    """(name, node, function) of every check that this topology calls for."""
    made: list[tuple[str, str, Callable[[], Result]]] = []
    if config["patroni"] or config["plain"]:
        made.append(("leader", "", bind(check_leader, config)))
        for node in config["patroni"]:
            made.append(
                (f"{node['name']} replication", node["name"], bind(check_replica, config, node["name"]))
            )
        if config["synchronous"]:
            made.append(("synchronous standby", "", bind(check_synchronous, config)))
    for endpoint in config["writers"]:
        sql = Sql(config, endpoint)
        made.append((endpoint["name"], endpoint["node"], sql.write))
    for endpoint in config["readers"]:
        sql = Sql(config, endpoint)
        made.append((endpoint["name"], endpoint["node"], bind(sql.read, config["read_on_replica"])))
    for node in config["redis"]:
        made.append((node["name"], node["node"], bind(check_redis, config, node)))
    for node in config["sentinels"]:
        made.append((node["name"], node["node"], bind(check_sentinel, config, node)))
    if config["proxy"]:
        made.append((config["proxy"]["name"], config["proxy"]["node"], bind(check_proxy, config)))
    return made


def guarded(check: Callable[[], Result]) -> Result:
    """A check that cannot be made does not hold."""
    try:
        return check()
    except Exception as error:  # a check must never end the program: the next poll may succeed
        lines = str(error).strip().splitlines() or [""]
        return False, lines[0] or type(error).__name__


def ready(config: dict[str, Any]) -> None:
    """Poll every check in a thread of its own; done when all hold, and hold once more together."""
    todo = checks(config)
    deadline = time.monotonic() + config["timeout_s"]
    last: dict[str, Result] = {}
    # A check may hang in a call: the limit holds nevertheless.
    limit = threading.Timer(config["timeout_s"] + PERIOD_S, os._exit, (3,))
    limit.daemon = True
    limit.start()

    def report(name: str, node: str, result: Result) -> None:
        if last.get(name) != result:
            last[name] = result
            emit({"check": name, "node": node, "ok": result[0], "detail": result[1]})

    def until_ok(item: tuple[str, str, Callable[[], Result]]) -> None:
        name, node, check = item
        while time.monotonic() < deadline:
            result = guarded(check)
            report(name, node, result)
            if result[0]:
                return
            time.sleep(PERIOD_S)

    with ThreadPoolExecutor(max_workers=max(1, len(todo))) as threads:
        while time.monotonic() < deadline:
            list(threads.map(until_ok, todo))
            together = list(threads.map(lambda item: guarded(item[2]), todo))
            for (name, node, _), result in zip(todo, together, strict=True):
                report(name, node, result)
            if all(ok for ok, _ in together):
                emit({"done": True})
                break
    sys.stdout.flush()


def status(config: dict[str, Any]) -> None:
    """One look at every node: its own account where it answers, Patroni's where it does not."""
    with ThreadPoolExecutor(max_workers=16) as threads:
        own = {
            n["name"]: threads.submit(_or_none, bind(fetch, n["url"] + "/patroni")) for n in config["patroni"]
        }
        members = threads.submit(_or_none, bind(cluster, config))
        caches = {n["node"]: threads.submit(_or_none, bind(redis_info, config, n)) for n in config["redis"]}
        emit(
            {
                "cluster": members.result() or [],
                "patroni": {name: future.result() for name, future in own.items()},
                "redis": {name: future.result() for name, future in caches.items()},
            }
        )


def _or_none(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception:  # a dead part is what status is there to show
        return None


def main(arguments: list[str]) -> None:
    """``inside.py CONFIG ready|status``"""
    path, mode = arguments
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - one file, no package around it
        config = json.load(file)
    for used in (path, __file__):
        os.unlink(used)  # noqa: PTH108
    {"ready": ready, "status": status}[mode](config)
    sys.stdout.flush()
    os._exit(0)  # threads that hang in a call must not keep the program


if __name__ == "__main__":
    main(sys.argv[1:])
