"""Runs *inside* the observer, as one file: looks at the database nodes directly, over the control network.

Standard library and psycopg only. ``python inside.py <settings.json> <mode>``:

    watch       one JSON object a line, every ``period_s``: {"t0", "t1", "members"}; t0 and t1 (ns of the
                observer's monotonic clock) enclose the look; member → null where Patroni is silent, else
                {"role", "state", "timeline", "replication": [[standby, state, sync_state], …]};
                "synchronous": standbys that Patroni's own record in etcd confirms, asked of a leader
    audit       reads the ledger of ``run`` on every node once its replay has caught up with the primary;
                writes ``<out>/audit-<node>.csv`` (trial,n,copies) and prints one JSON object: node →
                {"lsn", "caught_up", "rows", "primary", "why"}
    redis       the same of the Redis writer's list (``lab.observe.redis_audit``)
    baseline    keeps the counters of every node's statements in ``<out>/statements.json``, for ``statements``
    statements  prints node → top statements by total time since the baseline, and all that a load tagged
    clock       prints monotonic and wall clock, ns
    trial       tells the observer's programs the number of the trial: ``trial <n> <token>`` to its clock port
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CALL_S = 1.0


def ask(settings: dict[str, Any], node: dict[str, Any]) -> dict[str, Any] | None:
    """Patroni's word on one member, or its own where there is no Patroni; None where it is silent."""
    url = node["patroni"]
    if not url:
        return ask_itself(settings, node)
    try:
        with urllib.request.urlopen(url + "/patroni", timeout=CALL_S) as answer:
            said = json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            said = json.load(error)
        except (OSError, ValueError):
            return None
    except (OSError, ValueError):
        return None
    return {
        "role": "primary" if said.get("role") in ("primary", "master") else str(said.get("role")),
        "state": str(said.get("state")),
        "timeline": said.get("timeline"),
        "replication": [
            [str(r.get("application_name")), str(r.get("state")), str(r.get("sync_state"))]
            for r in said.get("replication") or []
        ],
    }


def ask_itself(settings: dict[str, Any], node: dict[str, Any]) -> dict[str, Any] | None:
    """What a database that nobody manages says of itself; None where it is silent."""
    import psycopg

    try:
        with connect(settings, node, "lab_monitor", timeout_s=2) as connection:
            stands_by = one(connection, "SELECT pg_is_in_recovery()")
            return {
                "role": "replica" if stands_by else "primary",
                "state": "running",
                "timeline": _timeline(connection),
                "replication": [],
            }
    except (psycopg.Error, OSError):
        return None


def synchronous(settings: dict[str, Any], members: dict[str, dict[str, Any] | None]) -> list[str]:
    """Standbys that may be promoted without loss: PostgreSQL waits for them, and etcd knows it."""
    for node in settings["nodes"]:
        said = members[node["name"]]
        if said is None or said["role"] != "primary" or not node["patroni"]:
            continue
        try:
            with urllib.request.urlopen(node["patroni"] + "/cluster", timeout=CALL_S) as answer:
                found = json.load(answer)["members"]
            return [m["name"] for m in found if m["role"] in ("sync_standby", "quorum_standby")]
        except (OSError, ValueError, KeyError):
            continue
    return []


def watch(settings: dict[str, Any]) -> None:
    ends = time.monotonic() + settings["deadline_s"]
    names = [node["name"] for node in settings["nodes"]]
    with ThreadPoolExecutor(len(names)) as pool:
        while time.monotonic() < ends:
            before = time.monotonic_ns()
            said = pool.map(lambda node: ask(settings, node), settings["nodes"])
            members = dict(zip(names, said, strict=True))
            sync = synchronous(settings, members)
            line = {"t0": before, "t1": time.monotonic_ns(), "members": members, "synchronous": sync}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
            took = (time.monotonic_ns() - before) / 1e9
            time.sleep(max(0.05, settings["period_s"] - took))


def connect(settings: dict[str, Any], node: dict[str, Any], role: str, timeout_s: int = 3) -> Any:
    import psycopg

    with open(settings["passwords"][role], encoding="utf-8") as file:  # noqa: PTH123
        password = file.read().strip()
    return psycopg.connect(
        host=node["host"], port=node["port"], dbname=settings["database"], user=role, password=password,
        sslmode="verify-full" if settings["tls"] else "disable", sslrootcert="/run/secrets/ca.crt",
        connect_timeout=timeout_s, application_name="lab-audit", autocommit=True,
    )  # fmt: skip


def one(connection: Any, sql: str) -> Any:
    return connection.execute(sql).fetchone()[0]


def audit(settings: dict[str, Any]) -> None:
    import psycopg
    from psycopg import sql

    ends = time.monotonic() + settings["wait_s"]
    found: dict[str, dict[str, Any]] = {}
    connections: dict[str, Any] = {}
    target: int | None = None
    for node in settings["nodes"]:
        name = node["name"]
        found[name] = {"lsn": None, "caught_up": False, "rows": None, "primary": False, "why": ""}
        try:
            connections[name] = connect(settings, node, "lab_monitor")
            if not one(connections[name], "SELECT pg_is_in_recovery()"):
                found[name]["primary"] = True
        except psycopg.Error as error:
            found[name]["why"] = (str(error).strip().splitlines() or ["no connection"])[0]
    primaries = [name for name in found if found[name]["primary"]]
    if len(primaries) == 1:
        target = int(one(connections[primaries[0]], "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))
        timeline = _timeline(connections[primaries[0]])

    def read(name: str) -> None:
        result, connection = found[name], connections[name]
        try:
            if result["primary"]:
                result["lsn"], result["caught_up"] = target, target is not None
            while not result["primary"]:
                lsn = one(connection, "SELECT coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0)")
                result["lsn"] = int(lsn)
                if target is not None and result["lsn"] >= target:
                    if _timeline(connection) == timeline:
                        result["caught_up"] = True
                        break
                    result["why"] = "it is on another timeline than the primary"
                if time.monotonic() > ends:
                    result["why"] = result["why"] or "replay had not caught up in time"
                    break
                time.sleep(0.1)
            path = f"{settings['out']}/audit-{name}.csv"
            rows = 0
            query = sql.SQL(
                "COPY (SELECT trial, n, count(*) FROM lab.ledger WHERE run = {}"
                " GROUP BY trial, n ORDER BY n) TO STDOUT (FORMAT csv)"
            ).format(sql.Literal(settings["run"]))
            with open(path, "wb") as file, connection.cursor().copy(query) as copy:  # noqa: PTH123
                for data in copy:
                    file.write(data)
                    rows += bytes(data).count(b"\n")
            result["rows"] = rows
        except (psycopg.Error, OSError) as error:
            result["caught_up"] = False
            result["why"] = (str(error).strip().splitlines() or [type(error).__name__])[0]

    if len(primaries) != 1:
        for result in found.values():
            result["why"] = (
                result["why"] or f"nodes that are not in recovery: {', '.join(primaries) or 'none'}"
            )
    with ThreadPoolExecutor(max(1, len(connections))) as pool:
        list(pool.map(read, connections))
    for connection in connections.values():
        connection.close()
    sys.stdout.write(json.dumps(found) + "\n")


def _timeline(connection: Any) -> int | None:
    """The timeline of the WAL that the node writes or receives.

    The name of a WAL segment begins with it; on a standby the receiver knows.
    """
    if one(connection, "SELECT pg_is_in_recovery()"):
        row = connection.execute("SELECT received_tli FROM pg_stat_wal_receiver").fetchone()
        return int(row[0]) if row and row[0] is not None else None
    return int(str(one(connection, "SELECT pg_walfile_name(pg_current_wal_lsn())"))[:8], 16)


def redis(settings: dict[str, Any]) -> None:
    from lab.observe.redis_audit import audit as audit_redis

    sys.stdout.write(json.dumps(audit_redis(settings)) + "\n")


TOP = 25


def counters(settings: dict[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """Node → role and id of a statement → [text, calls, total ms, rows]."""
    import psycopg

    found: dict[str, dict[str, list[Any]]] = {}
    for node in settings["nodes"]:
        with contextlib.suppress(psycopg.Error, OSError):
            with connect(settings, node, "lab_monitor") as connection:
                rows = connection.execute(
                    "SELECT concat_ws('/', userid, queryid, toplevel), query, calls, total_exec_time, rows"
                    " FROM pg_stat_statements"
                    " WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
                ).fetchall()
            found[node["name"]] = {key: list(rest) for key, *rest in rows}
    return found


def baseline(settings: dict[str, Any]) -> None:
    with open(f"{settings['out']}/statements.json", "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(counters(settings), file)
    sys.stdout.write("{}\n")


def statements(settings: dict[str, Any]) -> None:
    before: dict[str, dict[str, list[Any]]] = {}
    path = f"{settings['out']}/statements.json"
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:  # noqa: PTH123
        before = json.load(file)
    found = {node: since(before.get(node, {}), statements) for node, statements in counters(settings).items()}
    sys.stdout.write(json.dumps(found) + "\n")


def since(before: dict[str, list[Any]], now: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """What ran between two readings of one node's counters: the top by time, and all that was tagged."""
    rows = []
    for key, (query, calls, total, returned) in now.items():
        _, *old = before.get(key, ("", 0, 0.0, 0))
        # Counters that fell began again at 0 (a crash loses them).
        past = old if old[0] <= calls else (0, 0.0, 0)
        calls, total, returned = calls - past[0], total - past[1], returned - past[2]
        if calls > 0:
            rows.append(
                {
                    "query": query,
                    "calls": calls,
                    "total_ms": total,
                    "mean_ms": total / calls,
                    "rows": returned,
                }
            )
    rows.sort(key=lambda row: -row["total_ms"])
    return rows[:TOP] + [row for row in rows[TOP:] if row["query"].startswith("/* ")]


def clock(_: dict[str, Any]) -> None:
    sys.stdout.write(f"{time.monotonic_ns()} {time.time_ns()}\n")


def trial(settings: dict[str, Any]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1.0)
        sock.sendto(settings["datagram"].encode(), ("127.0.0.1", settings["clock_port"]))
        with contextlib.suppress(OSError):
            sys.stdout.write(sock.recv(256).decode(errors="replace") + "\n")


MODES = {
    "watch": watch,
    "audit": audit,
    "redis": redis,
    "baseline": baseline,
    "statements": statements,
    "clock": clock,
    "trial": trial,
}


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as given:  # noqa: PTH123
        MODES[sys.argv[2]](json.load(given))
