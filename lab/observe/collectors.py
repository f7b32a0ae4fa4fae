"""The collectors: figures of every component once a second, and the agents' datagrams, in one process.

Every source has a thread of its own, which sleeps most of the time: one that hangs or is dead delays no
other, and shows as a gap in its figures. Each sample is stamped in the middle of its round trip.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import redis
from psycopg import pq

from lab.observe import agents, figures
from lab.observe.config import Config, Endpoint, Http, Redis, node_of
from lab.observe.figures import Figure
from lab.observe.process import Context, now
from lab.observe.rows import Rows
from lab.observe.schedule import NS
from lab.observe.threads import stop_event
from lab.observe.wire import conninfo

TIMEOUT_S = 2.0
ETCD_EVERY_S = 5.0
"""etcd takes milliseconds of CPU to write out all its metrics: less often, so as not to disturb it."""

Sample = Callable[[], list[Figure]]
ERRORS = (OSError, ValueError, http.client.HTTPException, psycopg.Error, redis.RedisError)


class Console:
    """A lasting connection for a collector's statements, by the simple protocol; not shared by threads."""

    def __init__(self, endpoint: Endpoint, application: str) -> None:
        tail = f" connect_timeout=2 tcp_user_timeout={round(TIMEOUT_S * 1000)} keepalives_idle=2"
        tail += " keepalives_interval=1 keepalives_count=2"
        self._info = conninfo(endpoint, application) + tail.encode()
        self._connection: pq.abc.PGconn | None = None

    def ask(self, sql: str) -> tuple[list[str], list[list[str | None]]]:
        """Column names, and rows as text. ValueError or psycopg.Error where it fails; then it is closed."""
        if self._connection is None or self._connection.status != pq.ConnStatus.OK:
            self.close()
            self._connection = pq.PGconn.connect(self._info)
            if self._connection.status != pq.ConnStatus.OK:
                self.close()
                raise ValueError("no connection")
        result = self._connection.exec_(sql.encode())
        if result.status != pq.ExecStatus.TUPLES_OK:
            if self._connection.status != pq.ConnStatus.OK:
                self.close()
            raise ValueError("no answer")
        names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
        rows = []
        for row in range(result.ntuples):
            cells = (result.get_value(row, column) for column in range(result.nfields))
            rows.append([None if cell is None else cell.decode() for cell in cells])
        return names, rows

    def close(self) -> None:
        if self._connection is not None:
            self._connection.finish()
            self._connection = None


class Web:
    """GET over a connection that is kept open; not shared by threads."""

    def __init__(self, source: Http) -> None:
        self._url = urllib.parse.urlsplit(source.url)
        self._source = source
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str) -> str:
        if self._connection is None:
            self._connection = self._connect()
        try:
            self._connection.request("GET", path)
            response = self._connection.getresponse()
            return response.read().decode(errors="replace")
        except BaseException:
            self._connection.close()
            self._connection = None
            raise

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        context = ssl.create_default_context(cafile=self._source.sslrootcert)
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
        raw = socket.create_connection((host, port or 443), TIMEOUT_S)
        connection.sock = context.wrap_socket(raw, server_hostname=self._source.host or host)
        return connection


def _postgres(endpoint: Endpoint) -> Sample:
    console = Console(endpoint, "lab-collector")
    return lambda: figures.postgres(console.ask(figures.PG_SQL)[1])


def _pgbouncer(endpoint: Endpoint) -> Sample:
    console = Console(endpoint, "lab-collector")

    def table(sql: str) -> list[dict[str, str | None]]:
        names, rows = console.ask(sql)
        return [dict(zip(names, row, strict=True)) for row in rows]

    return lambda: [
        *figures.pgbouncer_stats(table("SHOW STATS")),
        *figures.pgbouncer_pools(table("SHOW POOLS")),
    ]


def _redis(source: Redis) -> Sample:
    password = Path(source.password_file).read_text().strip() if source.password_file else None
    tls: dict[str, Any] = {
        "ssl": True,
        "ssl_ca_certs": source.sslrootcert,
        # The certificate names the node and we go by its address: the chain is verified, the name is not.
        "ssl_check_hostname": False,
        "ssl_cert_reqs": "required",
    }
    client = redis.Redis(
        host=source.address,
        port=source.port,
        username=source.username or None,
        password=password,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        **(tls if source.tls else {}),
    )
    return lambda: figures.redis_info({**client.info("stats"), **client.info("replication")})


def _haproxy(source: Http) -> Sample:
    web, path = Web(source), urllib.parse.urlsplit(source.url).path or "/stats;csv"
    return lambda: figures.haproxy_stats(web.get(path))


def _patroni(source: Http) -> Sample:
    web = Web(source)
    return lambda: figures.patroni_state(json.loads(web.get("/patroni")))


def _etcd(source: Http) -> Sample:
    web = Web(source)
    before: figures.Buckets = {}

    def sample() -> list[Figure]:
        nonlocal before
        buckets = figures.fsync_buckets(web.get("/metrics"))
        slow = figures.quantile(buckets, before, 0.99) if before else None
        before = buckets
        return [("etcd_fsync_p99_seconds", None, slow)] if slow is not None else []

    return sample


def sources(config: Config) -> list[tuple[str, float, Sample]]:
    """(node, seconds between samples, how to take one) of everything that is configured."""
    every = config.probes.collector_interval_s
    found = [(node_of(endpoint), every, _postgres(endpoint)) for endpoint in config.nodes]
    found += [(node_of(endpoint), every, _pgbouncer(endpoint)) for endpoint in config.poolers]
    found += [(source.node, every, _redis(source)) for source in config.redis]
    found += [(source.node, every, _haproxy(source)) for source in config.haproxy]
    found += [(source.node, every, _patroni(source)) for source in config.patroni]
    found += [(source.node, max(every, ETCD_EVERY_S), _etcd(source)) for source in config.etcd]
    return found


class Writer:
    """Rows of ``metrics`` from all threads."""

    def __init__(self, rows: Rows) -> None:
        self._rows, self._lock = rows, threading.Lock()

    def write(self, moment: int, node: str, found: Sequence[Figure]) -> None:
        self.write_rows(
            [
                {"t": moment, "node": node, "metric": metric, "label": label, "value": value}
                for metric, label, value in found
            ]
        )

    def write_rows(self, rows: list[dict[str, object]]) -> None:
        with self._lock:
            self._rows.write_all(rows)


def _follow(
    writer: Writer, node: str, every_s: float, sample: Sample, start: int, stop: threading.Event
) -> None:
    """One thread: a sample at each multiple of its interval; missed ones are not made up for."""
    interval = round(every_s * NS)
    due = start
    while not stop.wait(max(0.0, (due - now()) / NS)):
        begun = now()
        with contextlib.suppress(*ERRORS):
            found = sample()
            writer.write((begun + now()) // 2, node, found)
        due += interval * max(1, -(-(now() - due) // interval))


def _receive(config: Config, writer: Writer, stop: threading.Event) -> None:
    """One thread: the agents' datagrams, and what the observer's own processes cost."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((config.agent_address, config.agent_port))
        sock.settimeout(0.5)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                datagram = sock.recv(2048)
                writer.write_rows(agents.parse(datagram, config.token, now()))


def collect(context: Context) -> None:
    """Process: the collectors."""
    config = context.config
    stop = stop_event()
    writer = Writer(Rows(config.out, "metrics", "collectors"))
    threads = [threading.Thread(target=_receive, args=(config, writer, stop), daemon=True)]
    found = sources(config)
    for index, (node, every, sample) in enumerate(found):
        # Spread over the interval, so that collectors do not beat in step.
        start = context.base + round(index / len(found) * every * NS)
        threads.append(
            threading.Thread(target=_follow, args=(writer, node, every, sample, start, stop), daemon=True)
        )
    for thread in threads:
        thread.start()
    while not stop.wait(max(0.0, min(1.0, (context.end - now()) / NS))):
        if context.end <= now():
            break
        with contextlib.suppress(*ERRORS):
            told = Path("/proc/stat").read_text(encoding="ascii")
            writer.write(now(), "observer", figures.machine_cpu(told, os.sysconf("SC_CLK_TCK")))
        spent = time.process_time()
        writer.write(now(), "observer", [("collector_cpu_seconds", "collectors", spent)])
    stop.set()
    for thread in threads:
        thread.join(0.3)
