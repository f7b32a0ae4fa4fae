"""Starts a load on a lab's client node, and ends it. The load itself is the package ``loadtests``."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import loadtests
from lab.deploy.allocation import Endpoint
from lab.deploy.endpoints import (
    MULTI_HOST,
    SENTINEL_SERVICE,
    UI_PORT,
    application_endpoints,
    endpoints,
)
from lab.deploy.parameters import client_timeouts, cluster_parameters, split_limit
from lab.deploy.secret_names import application_role, document_roles
from lab.driver import Lab, Node
from lab.errors import LabError, UsageError
from lab.scenario.remote import stop
from lab.topology.models import Topology
from lab.topology.workload import CustomWorkload, load_workload_file
from loadtests.config import Arrivals, CacheConfig, CacheNode, Connections, LoadConfig, LoadTarget
from loadtests.workloads import Workload, list_workloads

PYTHON = "/opt/venv/bin/python"
CODE = "/opt/lab"
CUSTOM = "custom"
"""The workload whose scripts the topology's workload file names."""
START_S = 45.0
"""How long a load may take from its start to its first request."""
DEADLINE_SLACK_S = 120.0
"""Beyond its duration, a load ends itself after this, whatever happened to who started it."""


@dataclass(frozen=True)
class LoadSpec:
    """What to load a lab with. Durations are seconds, rates requests per second."""

    workload: str = "risk-api"
    rate: float = 200.0
    users: int | None = None
    """None: one for every application instance that the topology names."""
    duration_s: float | None = None
    """None: until it is stopped (at ``deadline_s`` at the latest)."""
    arrivals: Arrivals = "poisson"
    pool: str | None = None
    """A pooler, pool mode or router, ``multi-host``, or an endpoint; None: the first pooler with transaction
    pooling."""
    workers: int = 1
    seed: int = 1
    ui: bool = False
    deadline_s: float = 3600.0
    drop_after_s: float = 5.0
    user: str | None = None
    """Role, unless the workload must run as another; None: the application's, that reads and writes."""
    cache: bool = True
    """Whether the workload uses the topology's cache, where there is one."""
    clock: float = 1.0
    """How many times faster than the document's the application's timeouts (the cache's TTL) run."""
    coalesce: bool = False
    """Whether clients that miss the same entry of the cache at one time wait for one of them to load it."""
    connections: Connections = "lasting"
    """``per-request``: every request opens a connection and closes it."""
    prepare: bool | None = None
    """Whether statements are prepared; None: where the pooler can."""
    port: int | None = None
    """Another port of the endpoint's node: a pooler that an experiment runs there."""
    room: int | None = None
    """Server connections that there are at least; None: the pooler's."""


@dataclass(frozen=True)
class LoadResult:
    """What a load says of itself at its end."""

    requests: int
    """Rows of the record, dropped ones included."""
    dropped: int
    lag_p99_ms: float | None
    """The generator's own lateness; None with fewer than 1000 requests, and with closed arrivals."""
    cpu_us_per_request: float | None
    detail: dict[str, Any]
    """The file ``done`` as it is, see ``loadtests.process``."""


class LoadHandle:
    """A load that runs."""

    def __init__(self, node: Node, out: str, config: LoadConfig) -> None:
        self.node = node
        self.out = out
        self.config = config

    def files(self) -> dict[str, str]:
        """Segment of the record → path on the node, for every file of raw requests there is."""
        found = self.node.run(
            ["sh", "-c", f"ls {self.out}/requests.*.bin 2>/dev/null || true"]
        ).stdout.split()
        return {path.rsplit("/", 1)[1]: path for path in found}

    def ended(self) -> bool:
        """Whether the load is over."""
        return self.node.run(["test", "-e", f"{self.out}/done"], check=False).exit_code == 0

    def stop(self, grace_s: float = 20.0) -> None:
        """End the load: requests under way are awaited, up to ``grace_s``. Idempotent."""
        stop(self.node, self.out, wait_s=grace_s)
        self.node.run(["sh", "-c", f"rm -f {self.config.password_file}*"], check=False)

    def wait(self, timeout_s: float, *, poll_s: float = 0.5) -> LoadResult:
        """Wait for the load's own end. LabError where it does not come, or where the load failed."""
        deadline = time.monotonic() + timeout_s
        while not self.ended():
            if time.monotonic() > deadline:
                raise LabError(f"the load on {self.node.name} did not end within {timeout_s:.0f} s")
            time.sleep(poll_s)
        return self.result()

    def result(self) -> LoadResult:
        """What the load says of itself. LabError where it has not ended, or failed."""
        try:
            done = json.loads(self.node.get(f"{self.out}/done"))
        except LabError as error:
            raise LabError(
                f"the load on {self.node.name} left no summary: it was killed", hint=self._last_words()
            ) from error
        if done["failure"]:
            raise LabError(
                f"the load on {self.node.name} could not run: {done['failure']}", hint=self._last_words()
            )
        return LoadResult(
            requests=done["requests"],
            dropped=done["dropped"],
            lag_p99_ms=done["lag_ms"]["p99"],
            cpu_us_per_request=done["cpu_us_per_request"],
            detail=done,
        )

    def wait_started(self, timeout_s: float = START_S) -> None:
        """Wait until every worker sends. LabError where one does not, with what it said."""
        deadline = time.monotonic() + timeout_s
        # The pid is read once, and `done` looked for after it: a load that ends meanwhile has not died.
        script = (
            f"cd {self.out}; ls started.* 2>/dev/null | wc -l; pid=$(cat pid 2>/dev/null); "
            '[ -z "$pid" ] || kill -0 "$pid" || echo dead; [ ! -e done ] || echo done; exit 0'
        )
        while True:
            words = self.node.run(["sh", "-c", script], check=False).stdout.split()
            if "done" in words:
                self.result()
                return
            if str(self.config.workers) in words:
                return
            if "dead" in words:
                raise LabError(f"the load on {self.node.name} died at its start", hint=self._last_words())
            if time.monotonic() > deadline:
                self.stop(2)
                raise LabError(
                    f"the load on {self.node.name} did not start within {timeout_s:.0f} s",
                    hint=self._last_words(),
                )
            time.sleep(0.2)

    def _last_words(self) -> str | None:
        tail = f"tail -n 6 {self.out}/output.txt {self.out}/log.txt 2>/dev/null"
        said = self.node.run(["sh", "-c", tail], check=False).stdout.strip()
        return f"its log ends with:\n{said}" if said else None


def resolve_pool(topology: Topology, known: dict[str, Endpoint], pool: str | None) -> tuple[str, str | None]:
    """Names of the writer endpoint and, where there is one, the reader endpoint.

    Args:
        pool: as in ``LoadSpec.pool``.

    Raises:
        UsageError: there is no such thing in the topology.
    """
    if pool is None:
        return application_endpoints(topology)[0]
    for pooler in topology.poolers:
        if pool in (pooler.name, pooler.mode):
            return f"{pooler.name}.writer", f"{pooler.name}.reader"
    for router in topology.routers:
        if pool == router.name:
            return f"{router.name}.write", f"{router.name}.read"
    if pool == MULTI_HOST:
        if not topology.direct_access:
            raise UsageError(
                f"topology {topology.name}: clients cannot reach the database nodes themselves",
                hint="`lab up … --set direct_access=true` gives them the endpoint multi-host.",
            )
        return f"{MULTI_HOST}.write", f"{MULTI_HOST}.read"
    if pool in known and known[pool].database is not None:
        return pool, None
    names = [f"{pooler.name} ({pooler.mode})" for pooler in topology.poolers]
    names += [router.name for router in topology.routers]
    names += [name for name, endpoint in known.items() if endpoint.database is not None]
    raise UsageError(
        f"topology {topology.name} has no pool or endpoint {pool!r}", hint=f"There are: {', '.join(names)}."
    )


def workload_for(topology: Topology, name: str) -> Workload:
    """A workload by its name. UsageError where there is none, or where the topology lacks its schema."""
    workloads = list_workloads()
    needed, there = find_workload(name).schema_set, Path(topology.postgres.schema_set).name
    if needed not in (None, there):
        anywhere = ", ".join(other for other, found in workloads.items() if found.schema_set is None)
        raise UsageError(
            f"workload {name} needs the schema set {needed}, and topology {topology.name} has {there}",
            hint=f"These run on any (a scenario takes --set load.workload=…): {anywhere}.",
        )
    return workloads[name]


def find_workload(name: str) -> Workload:
    """A workload by its name. UsageError, with the names that there are, where there is none."""
    workloads = list_workloads()
    if name not in workloads:
        raise UsageError(f"there is no workload {name!r}", hint=f"There are: {', '.join(sorted(workloads))}.")
    return workloads[name]


def first_that_fits(topology: Topology, *names: str) -> str:
    """The first workload whose schema a topology has; the last where none fits. UsageError: no such one."""
    there = Path(topology.postgres.schema_set).name
    fits = (name for name in names if find_workload(name).schema_set in (None, there))
    return next(fits, names[-1])


def default_workload(topology: Topology) -> str:
    """What a topology is loaded with unless told otherwise.

    Its own workload file, else everything that its applications do at once (``mixed``), else ``tpcb``.
    """
    return CUSTOM if topology.workload is not None else first_that_fits(topology, "mixed", "tpcb")


def load_config(lab: Lab, spec: LoadSpec, run: str, folder: str) -> LoadConfig:
    """The configuration of a load on a lab. UsageError where the spec does not fit the lab."""
    topology = lab.topology
    workload = workload_for(topology, spec.workload)
    own = _own_workload(topology) if spec.workload == CUSTOM else None
    transactions = workload.transactions if own is None else own.transactions
    known = endpoints(topology, lab.allocation)
    writer, reader = resolve_pool(topology, known, spec.pool)
    client = topology.clients[0].name
    pooler = next((p for p in topology.poolers if known[writer].node == p.name), None)
    if pooler is not None and spec.port is None and pooler.mode == "statement" and transactions:
        raise UsageError(
            f"workload {spec.workload} needs transactions, and {pooler.name} (statement pooling) has none",
            hint="Choose another pool, or a workload without transactions, such as point-select.",
        )
    prepared = pooler is None or pooler.max_prepared_statements > 0
    prepared = prepared if spec.prepare is None else spec.prepare
    room = spec.room or (split_limit(pooler.max_server_connections, pooler.writer_share)[0] if pooler else 50)
    # Half of what the database allows: the lab's own sessions need some of it too.
    room = min(room, max(1, int(cluster_parameters(topology)["max_connections"]) // 2))
    clock = known.get(f"{topology.observer.name}.clock")
    try:
        return LoadConfig(
            run=run,
            out=f"{folder}/load",
            workload=spec.workload,
            writer=_at(_target(lab, client, known[writer]), spec.port),
            reader=_at(_target(lab, client, known[reader]), spec.port) if reader else None,
            node=client,
            routes=_routes(lab, client, known),
            roles=workload.roles or None,
            cache=_cache(lab, spec, known, folder, run) if spec.cache and workload.uses_cache else None,
            user=(own and own.role) or workload.user or spec.user or application_role(topology),
            scripts=own.scripts if own else (),
            variables=own.variables if own else None,
            connections=spec.connections,
            proof=min(50, room),
            password_file=f"{folder}/load-password",
            sslmode="verify-full" if topology.tls.enabled else "prefer",
            tcp=client_timeouts(topology.tcp.client),
            arrivals=spec.arrivals,
            rate=spec.rate,
            burst=workload.burst if spec.arrivals != "closed" else 1,
            users=spec.users if spec.users is not None else max(topology.instances, spec.workers),
            duration_s=spec.duration_s,
            deadline_s=min(spec.deadline_s, spec.duration_s + DEADLINE_SLACK_S)
            if spec.duration_s is not None and not spec.ui
            else spec.deadline_s,
            drop_after_s=spec.drop_after_s,
            seed=spec.seed,
            workers=spec.workers,
            clock=(clock.address, clock.port) if clock else None,
            prepare_threshold=2 if prepared else None,
            ui_port=UI_PORT if spec.ui else None,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _routes(lab: Lab, client: str, known: dict[str, Endpoint]) -> dict[str, LoadTarget]:
    """Where requests may go besides the load's own pool: past the poolers, or to the pooler of a mode."""
    topology = lab.topology
    first = topology.routers[0].name if topology.routers else None
    direct = f"{first}.write" if first else f"{topology.postgres.nodes[0].name}.direct"
    routes = {"direct": direct}
    for pooler in reversed(topology.poolers):
        routes |= {f"{pooler.mode}.{kind}": f"{pooler.name}.{kind}" for kind in ("writer", "reader")}
    return {route: _target(lab, client, known[name]) for route, name in routes.items()}


def _cache(lab: Lab, spec: LoadSpec, known: dict[str, Endpoint], folder: str, run: str) -> CacheConfig | None:
    """The topology's cache as the client reaches it, None where there is none."""
    cache = lab.topology.cache
    if cache is None:
        return None

    def node(name: str, kind: str) -> CacheNode:
        place = known[f"{name}.{kind}"]
        announced = lab.allocation.addresses[name]["app"]
        return CacheNode(f"{name}.{kind}", place.address, place.port, announced)

    return CacheConfig(
        nodes=tuple(node(member.name, "redis") for member in cache.nodes),
        sentinels=tuple(node(member.name, "sentinel") for member in cache.sentinels),
        service=SENTINEL_SERVICE,
        password_file=f"{folder}/load-password.redis",
        ttl_s=cache.ttl / spec.clock,
        clock=spec.clock,
        prefix=f"{run}:",
        coalesce=spec.coalesce,
        tls=lab.topology.tls.enabled,
    )


def _secrets(lab: Lab, config: LoadConfig) -> dict[str, str]:
    """File on the client node → the secret that belongs there."""
    files = {config.password_file: lab.secret(f"password_{config.user}")}
    for role in (config.roles or {}).values():
        files[f"{config.password_file}.{role}"] = lab.secret(f"password_{role}")
    if config.cache:
        files[config.cache.password_file] = lab.secret("password_redis")
    return files


def _own_workload(topology: Topology) -> CustomWorkload:
    """The workload file of a topology. UsageError where it names none, or where the file is wrong."""
    if topology.workload is None:
        raise UsageError(
            f"topology {topology.name} names no workload file, which the workload {CUSTOM} needs",
            hint="`workload: ./workload.yaml` in its file; `lab init` writes an example.",
        )
    own = load_workload_file(topology.workload)
    roles = document_roles(topology)
    if own.role is not None and own.role not in roles:
        raise UsageError(
            f"{topology.workload}: role: the schema set has no login role {own.role!r}",
            hint=f"There are: {', '.join(roles)}.",
        )
    return own


def _at(target: LoadTarget, port: int | None) -> LoadTarget:
    return target if port is None else replace(target, port=port)


def _target(lab: Lab, client: str, endpoint: Endpoint) -> LoadTarget:
    """An endpoint as the client node reaches it. UsageError where it cannot."""
    if endpoint.target_session_attrs and endpoint.database:
        return LoadTarget(
            endpoint.name,
            endpoint.host,
            endpoint.port,
            endpoint.database,
            endpoint.address,
            endpoint.target_session_attrs,
        )
    mine = lab.allocation.addresses[client]
    theirs = lab.allocation.addresses.get(endpoint.host.removesuffix(".control"), {})
    networks = [network for network in ("app", "data", "control") if network in mine and network in theirs]
    if not networks or endpoint.database is None:
        raise UsageError(f"{client} cannot reach {endpoint.name}: they share no network")
    shared = networks[0]
    host = endpoint.host if endpoint.address == theirs[shared] else endpoint.node
    if shared == "control" and not host.endswith(".control"):
        host = f"{host}.control"
    return LoadTarget(endpoint.name, host, endpoint.port, endpoint.database, theirs[shared])


def start_load(lab: Lab, spec: LoadSpec, run: str, *, wait_started: bool = True) -> LoadHandle:
    """Bring the code to the client node and start the load.

    Args:
        run: name of the run; its files are in ``/run/lab/<run>`` on the client node.
        wait_started: return only once requests are being sent.

    Raises:
        UsageError: the spec does not fit the lab.
        LabError: the load does not start.
    """
    folder = f"/run/lab/{run}"
    config = load_config(lab, spec, run, folder)
    node = lab.nodes[lab.topology.clients[0].name]
    node.put_tree(Path(loadtests.__file__).parent, f"{CODE}/loadtests")
    node.run(["sh", "-c", f"rm -rf {config.out} && mkdir -p {config.out} && chmod 700 {folder}"])
    for path, secret in _secrets(lab, config).items():
        node.put(path, secret.encode(), mode=0o600)
    node.put(f"{folder}/load.json", config.to_json().encode())
    # The pid from the start, so that a death before the first line of Python is seen too.
    words = f"{PYTHON} -m loadtests --config {folder}/load.json"
    command = f"echo $$ > {config.out}/pid; exec {words} > {config.out}/output.txt 2>&1"
    node.spawn(["sh", "-c", command], env={"PYTHONPATH": CODE, "PYTHONDONTWRITEBYTECODE": "1"})
    handle = LoadHandle(node, config.out, config)
    if wait_started:
        handle.wait_started()
    return handle
