"""Bench (b): the Locust user class against pgbench, side by side.

One PostgreSQL and one client, two containers on a network of their own, no limits, TLS as everywhere in
a lab. The client runs, in turn, ``pgbench`` (prepared, 20 clients, one thread) and one Locust process (20
users, closed loop, every request recorded to disk), both a point SELECT by primary key on one table.
"""

from __future__ import annotations

import json
import re
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker.errors

import loadtests
from lab.bench.figure import Figure
from lab.deploy.docker_driver import DockerNode
from lab.deploy.engine import api, engine_errors
from lab.deploy.images import ensure_images
from lab.errors import LabError
from lab.load import CODE, PYTHON
from loadtests.config import LoadConfig, LoadTarget
from loadtests.format import ROW

CLIENTS = 20
ROWS = 100_000
SCRIPT = f"\\set id random(1, {ROWS})\nSELECT v FROM lab.point WHERE id = :id;\n"
LAG_RATE = 1000.0
RATIO_AIM = 0.60
LAG_AIM_MS = 2.0

_SERVER = """
set -e
data=/var/lib/postgresql/bench; mkdir -p "$data"; chown postgres "$data"; cd /
run() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
printf %s "$BENCH_PASSWORD" > /tmp/password; chown postgres /tmp/password
run initdb -D "$data" -A scram-sha-256 --pwfile=/tmp/password > /dev/null; rm /tmp/password
run openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bench-pg \\
    -keyout "$data/server.key" -out "$data/server.crt" 2> /dev/null
chmod 600 "$data/server.key"
printf 'local all all trust\\nhostssl all all all scram-sha-256\\n' > "$data/pg_hba.conf"
exec setpriv --reuid=postgres --regid=postgres --init-groups postgres -D "$data" \\
    -c listen_addresses='*' -c ssl=on -c shared_buffers=128MB -c max_connections=100
"""


@dataclass(frozen=True)
class Pair:
    """The two containers, and how the client reaches the server."""

    client: DockerNode
    address: str
    password: str


@contextmanager
def pair() -> Iterator[Pair]:
    """A server and a client; removed with their network whatever happens.

    Raises:
        LabError: the server does not come up.
    """
    images = ensure_images({"postgres", "client"}, progress=lambda _name, _doing: None)
    label = f"bench-load-{secrets.token_hex(4)}"
    labels = {"pglab.lab": label, "pglab.instance": label}
    password = secrets.token_urlsafe(18)
    made: list[str] = []
    network = None
    engine: Any = api()
    try:
        with engine_errors("make the bench's containers"):
            network = engine.create_network(f"pglab-{label}", labels=labels)["Id"]

            def container(name: str, image: str, command: list[str], env: dict[str, str]) -> str:
                created = engine.create_container(
                    image, command, name=f"pglab-{label}-{name}", hostname=name, entrypoint=[],
                    environment=env, labels=labels,
                    host_config=engine.create_host_config(init=True, shm_size="256m"),
                    networking_config=engine.create_networking_config(
                        {f"pglab-{label}": engine.create_endpoint_config()}
                    ),
                )  # fmt: skip
                made.append(created["Id"])
                engine.start(created["Id"])
                return str(created["Id"])

            server = container(
                "pg", images["postgres"], ["bash", "-c", _SERVER], {"BENCH_PASSWORD": password}
            )
            client = container("client", images["client"], ["sleep", "infinity"], {})
            networks = engine.inspect_container(server)["NetworkSettings"]["Networks"]
        address = networks[f"pglab-{label}"]["IPAddress"]
        _fill(DockerNode(label, "pg", server, {"app": address}))
        yield Pair(DockerNode(label, "client", client, {}), address, password)
    finally:
        for one in made:
            with suppress(docker.errors.APIError):
                engine.remove_container(one, force=True, v=True)
        if network is not None:
            with suppress(docker.errors.APIError):
                engine.remove_network(network)


def _fill(server: DockerNode) -> None:
    deadline = time.monotonic() + 60
    # By address: the server that initdb runs for itself does not listen there.
    while server.run(["pg_isready", "-q", "-h", "127.0.0.1"], check=False).exit_code:
        if time.monotonic() > deadline or not server.state().running:
            raise LabError(f"the bench's PostgreSQL did not come up; it said: {server.log(tail=5)}")
        time.sleep(0.2)
    sql = (
        "CREATE SCHEMA lab; CREATE TABLE lab.point (id int PRIMARY KEY, v int); "
        f"INSERT INTO lab.point SELECT i, i FROM generate_series(1, {ROWS}) AS i"
    )
    for words in (sql, "VACUUM ANALYZE lab.point"):
        server.run(["psql", "-q", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", words], timeout_s=60)


def run_pgbench(lab: Pair, seconds: int) -> float:
    """Transactions per second of a prepared point SELECT by 20 clients."""
    lab.client.put("/run/bench/point.sql", SCRIPT.encode())
    env = {"PGPASSWORD": lab.password, "PGSSLMODE": "require"}
    words = ["pgbench", "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-T", str(seconds), "-f"]
    words += ["/run/bench/point.sql", "-h", lab.address, "-U", "postgres", "postgres"]
    said = lab.client.run(words, env=env, timeout_s=seconds + 30).stdout
    found = re.search(r"tps = ([0-9.]+) \(without initial", said)
    if found is None:
        raise LabError(f"pgbench gave no figure: {said[-300:]}")
    return float(found[1])


_TIMER = """
import sys, time
rate, late, at = float(sys.argv[1]), [], time.monotonic_ns()
for _ in range(3000):
    at += int(1e9 / rate)
    left = at - time.monotonic_ns()
    if left > 0: time.sleep(left / 1e9)
    late.append(time.monotonic_ns() - at)
print(sorted(late)[int(len(late) * 0.99)] / 1e6)
"""


def bare_timer(lab: Pair) -> float:
    """p99, in ms, of how late a process that only sleeps is on this machine: the floor of any generator."""
    words = [PYTHON, "-c", _TIMER, str(LAG_RATE)]
    return float(lab.client.run(words, timeout_s=60).stdout)


def run_locust(lab: Pair, config: LoadConfig) -> dict[str, Any]:
    """One load to its end; what ``done`` says, with ``per_s``. LabError where a request failed."""
    node = lab.client
    node.run(["sh", "-c", f"rm -rf {config.out} && mkdir -p {config.out}"])
    node.put(config.password_file, lab.password.encode(), mode=0o600)
    node.put("/run/bench/load.json", config.to_json().encode())
    words = [PYTHON, "-m", "loadtests", "--config", "/run/bench/load.json"]
    timeout = (config.duration_s or 0) + 60
    ended = node.run(words, env={"PYTHONPATH": CODE}, timeout_s=timeout, check=False)
    if ended.exit_code:
        raise LabError(f"the load failed: {(ended.stderr or ended.stdout).strip()[-500:]}")
    done: dict[str, Any] = json.loads(node.get(f"{config.out}/done"))
    if done["errors"] or done["dropped"]:
        raise LabError(f"the load met errors: {done['errors']}, dropped {done['dropped']}")
    # "Everything recorded" has to be true: there is a row in the file for each request counted.
    size = int(node.run(["stat", "-c", "%s", f"{config.out}/requests.0.bin"]).stdout)
    if size < done["requests"] * ROW.size:
        raise LabError(f"{done['requests']} requests, but a record of {size} bytes")
    done["per_s"] = done["requests"] / done["seconds"]
    return done


def run(pairs: int = 6, say: Callable[[str], None] = lambda _: None, *, seconds: int = 5) -> list[Figure]:
    """The three figures of bench (b). About ``pairs`` · ``seconds`` · 2.5 + 60 seconds."""
    closed = LoadConfig(
        run="bench", out="/run/bench/out", workload="point-select",
        writer=LoadTarget("pg.direct", "pg", 5432, "postgres"), user="postgres",
        password_file="/run/bench/password", sslmode="require", arrivals="closed", users=CLIENTS,
        duration_s=float(seconds), deadline_s=300.0, prepare_threshold=0,
    )  # fmt: skip
    ours: list[dict[str, Any]] = []
    theirs: list[float] = []
    lags: list[dict[str, Any]] = []
    with pair() as lab:
        closed = replace(closed, writer=replace(closed.writer, address=lab.address))
        lab.client.put_tree(Path(loadtests.__file__).parent, f"{CODE}/loadtests")
        run_pgbench(lab, 3)
        run_locust(lab, replace(closed, duration_s=2.0))
        for number in range(pairs):
            # In turn, and in turns: what drifts on the machine hits both alike.
            for ours_now in (number % 2 == 0, number % 2 == 1):
                if ours_now:
                    ours.append(run_locust(lab, closed))
                else:
                    theirs.append(run_pgbench(lab, seconds))
            say(f"load: pair {number + 1} of {pairs}, {ours[-1]['per_s']:.0f}/s, pgbench {theirs[-1]:.0f}/s")
        for number in range(3):
            paced = replace(closed, arrivals="poisson", rate=LAG_RATE, duration_s=10.0, seed=number + 1)
            lags.append({**run_locust(lab, paced), "timer_ms": bare_timer(lab)})
            lag, floor = lags[-1]["lag_ms"]["p99"], lags[-1]["timer_ms"]
            say(f"load: schedule lag at {LAG_RATE:g}/s: p99 {lag:.2f} ms, of a bare timer {floor:.2f} ms")
    return figures(ours, theirs, lags)


def figures(ours: list[dict[str, Any]], theirs: list[float], lags: list[dict[str, Any]]) -> list[Figure]:
    """The figures, from what the runs said."""
    ratios = [one["per_s"] / other for one, other in zip(ours, theirs, strict=True)]
    ratio = statistics.median(ratios)
    lag = statistics.median(one["lag_ms"]["p99"] for one in lags)
    floor = statistics.median(one["timer_ms"] for one in lags)
    return [
        Figure(
            name="load.ratio",
            value=ratio,
            unit="requests/s, Locust user class ÷ pgbench",
            aim=f"≥ {RATIO_AIM:.2f}",
            better="more",
            holds=ratio >= RATIO_AIM,
            note=f"median of {len(ratios)} interleaved pairs; one process, {CLIENTS} users, all recorded",
            detail={
                "ratios": ratios,
                "locust_per_s": [one["per_s"] for one in ours],
                "pgbench_per_s": theirs,
            },
        ),
        Figure(
            name="load.cpu",
            value=statistics.median(one["cpu_us_per_request"] for one in ours),
            unit="µs of CPU a request",
            aim="",
            better="less",
            holds=None,
            note="generator's own user and system time, closed loop, recording included",
            detail={"us": [one["cpu_us_per_request"] for one in ours]},
        ),
        Figure(
            name="load.lag",
            value=lag,
            unit=f"ms, p99 of the schedule lag at {LAG_RATE:g} requests/s",
            aim=f"≤ {LAG_AIM_MS:g} ms",
            better="less",
            holds=lag <= LAG_AIM_MS,
            note=f"median of {len(lags)} runs of 10 s, Poisson arrivals, {CLIENTS} users; a process that "
            f"only sleeps was {floor:.2f} ms late on this machine (p99), in between",
            detail={
                "runs": [one["lag_ms"] for one in lags],
                "timer_p99_ms": [one["timer_ms"] for one in lags],
            },
        ),
    ]
