"""``pooling``: the same transactions direct and through every pool mode, in cells that take turns.

Every repeat holds all cells in an order of its own, drawn from the seed, so that what drifts on the machine
hits all alike, and cells of one repeat can be paired. *Direct* is through the router, as the poolers reach
the database: the paths differ by the pooler alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lab.deploy.parameters import split_limit
from lab.driver import Lab
from lab.errors import LabError, UsageError
from lab.experiment.bouncer import Bouncer, Settings, Userlist, bouncer, console
from lab.experiment.core import Cell, Experiment, experiment
from lab.experiment.jobs import Job, Kind
from lab.experiment.memory import idle_memory
from lab.experiment.waits import idle_timeout, query_wait
from lab.load import LoadSpec
from lab.scenario.progress import Progress
from lab.topology.models import Pooler, Topology
from loadtests.config import Connections

NAME = "pooling"
DIRECT = "direct"
ONE_STATEMENT, TRANSACTION = "limit-check", "trade-booking"
STORED = "stored secrets"
GROUPS = (
    "statement",
    "single",
    "prepared",
    "authentication",
    "transaction",
    "control",
    "memory",
    "timeouts",
)
SECONDS = 2.5
"""Length of a cell: with all groups, 20 and 100 clients and 6 repeats a run takes a quarter of an hour."""
CELL_OVERHEAD_S = 2.0
"""What a cell takes besides its load: to start it, to fetch its requests."""
CONTROL_RATE, CONTROL_S, CONTROL_WARM_S = 4.0, 27.0, 1.0
"""So slow that server connections which live for a second are often new; and enough for 100 assignments."""
AROUND_S = 45.0
"""Beside the cells: collectors, ceilings, timeouts, closing the record."""
CONSOLE_PORT = 6432
IDLE_CLIENTS = 50


@dataclass(frozen=True)
class Variant:
    """What one kind of cell runs."""

    group: str
    path: str
    """``direct`` or a pool mode."""
    connections: Connections
    clients: int
    workload: str = ONE_STATEMENT
    prepared: bool = True
    authentication: str = STORED
    """Of clients at the pooler: SCRAM with stored secrets, SCRAM with plain passwords, or md5."""

    @property
    def name(self) -> str:
        words = [self.path, self.workload, self.connections, str(self.clients)]
        words += [] if self.prepared else ["unprepared"]
        words += [] if self.authentication == STORED else [self.authentication]
        return " ".join(words)


AUTHENTICATIONS: dict[str, tuple[str, Userlist]] = {
    "plain passwords": ("scram-sha-256", "plain passwords"),
    "md5": ("md5", "plain passwords"),
}
"""Of further poolers beside the lab's own, whose users have stored secrets."""


def design(topology: Topology, clients: Sequence[int], groups: Sequence[str]) -> list[Variant]:
    """Every kind of cell. The first number of clients is that of the smaller groups.

    A single client is there because many, on one machine, wait for each other's CPU time: its cells show what
    a connection costs where nobody competes.
    """
    modes = [pooler.mode for pooler in topology.poolers]
    few = clients[0]
    both: tuple[Connections, ...] = ("per-request", "lasting")
    found = [
        Variant("statement", path, connections, count)
        for count in clients
        for path in (DIRECT, *modes)
        for connections in both
    ]
    found += [
        Variant("single", path, connections, 1)
        for path in (DIRECT, *modes)
        for connections in both
        if path in (DIRECT, "transaction") and 1 not in clients
    ]
    found += [Variant("prepared", path, "lasting", few, prepared=False) for path in (DIRECT, *modes)]
    found += [
        Variant("authentication", "transaction", "per-request", count, authentication=kind)
        for count in sorted({1, few})
        for kind in AUTHENTICATIONS
        if "transaction" in modes
    ]
    found += [
        Variant("transaction", path, "lasting", few, workload=TRANSACTION)
        for path in (DIRECT, *(mode for mode in modes if mode != "statement"))
    ]
    return [one for one in found if one.group in groups]


def check_groups(groups: Sequence[str]) -> None:
    """UsageError where there is no such group."""
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise UsageError(f"there is no group {unknown[0]!r}", hint=f"There are: {', '.join(GROUPS)}.")


def estimate_s(variants: Sequence[Variant], repeats: int, seconds: float) -> float:
    """About how long the cells take."""
    return len(variants) * repeats * (seconds + CELL_OVERHEAD_S)


def _check_topology(topology: Topology) -> None:
    """UsageError where it lacks what is compared."""
    if not topology.poolers or not topology.routers:
        raise UsageError(f"topology {topology.name} has no pooler, or no router to compare it with")
    if topology.postgres.schema_set != "risk":
        raise UsageError(
            f"the workloads of this experiment need schema risk, not {topology.postgres.schema_set}"
        )


def run_pooling(
    lab: Lab,
    *,
    clients: Sequence[int] = (20, 100),
    repeats: int = 6,
    seconds: float = SECONDS,
    groups: Sequence[str] = GROUPS,
    minutes: float | None = None,
    seed: int,
    runs_dir: Path = Path("runs"),
    command: str = "",
    progress: Progress | None = None,
) -> Path:
    """Run the experiment; the path of its record.

    Args:
        seconds: length of a cell.
        minutes: once so much time has passed no further repeat begins; None: all of them.

    Raises:
        UsageError: the lab has no pooler or no such group.
        LabError: it could not be run.
    """
    topology = lab.topology
    check_groups(groups)
    _check_topology(topology)
    variants = design(topology, clients, groups)
    told = progress or Progress()
    cells = estimate_s(variants, repeats, seconds) + 2 * CONTROL_S * ("control" in groups)
    told.say(f"{len(variants)} kinds of cells × {repeats} repeats; about {cells / 60:.0f} min")
    with (
        experiment(
            lab,
            NAME,
            title="What the pools are worth",
            claim="The same transactions direct and through each pool, on new or lasting connections.",
            seed=seed,
            deadline_s=3 * cells + 600,
            runs_dir=runs_dir,
            command=command,
            progress=told,
        ) as run,
        contextlib.ExitStack() as stack,
    ):
        further = _further(run, stack, variants, 3 * cells + 300)
        _ceiling(run, seconds)
        began = time.monotonic()
        for repeat in range(1, repeats + 1):
            if minutes is not None and time.monotonic() > began + 60 * minutes:
                told.say(f"{minutes:g} min have passed: {repeat - 1} of {repeats} repeats", "yellow")
                run.record.note(f"{repeat - 1} of {repeats} repeats fitted into {minutes:g} min")
                break
            order = list(variants)
            run.rng.shuffle(order)
            for variant in order:
                _measure(run, variant, repeat, seconds, further)
        node = _pooler(topology, "transaction").name
        if "control" in groups:
            for lifetime in (None, 1):
                _control(run, lifetime)
        if "memory" in groups:
            idle_memory(run, node, _primary(run), IDLE_CLIENTS, 1)
        if "timeouts" in groups:
            for repeat in (1, 2, 3):
                idle_timeout(run, node, repeat)
                query_wait(run, node, repeat)
        return run.record.path


def _further(
    run: Experiment, stack: contextlib.ExitStack, variants: Sequence[Variant], seconds: float
) -> dict[str, Bouncer]:
    wanted = {one.authentication for one in variants} & AUTHENTICATIONS.keys()
    found = {}
    for kind in sorted(wanted):
        auth_type, users = AUTHENTICATIONS[kind]
        settings = Settings(mode="transaction", auth_type=auth_type, users=users)
        node = _pooler(run.lab.topology, "transaction").name
        name = f"auth-{kind.replace(' ', '-')}"
        found[kind] = stack.enter_context(bouncer(run, node, name, settings, seconds))
    return found


def _ceiling(run: Experiment, seconds: float) -> None:
    """What one process of the generator can do at most, before anything is compared."""
    for connections in ("lasting", "per-request"):
        variant = Variant("ceiling", DIRECT, connections, 20)
        with run.cell(f"ceiling {connections}", **asdict(variant)) as cell:
            run.load(cell, _spec(run, variant, max(2.0, seconds / 2)))


def _measure(
    run: Experiment, variant: Variant, repeat: int, seconds: float, further: dict[str, Bouncer]
) -> None:
    topology = run.lab.topology
    if variant.path == DIRECT:
        with run.cell(variant.name, repeat=repeat, **asdict(variant)) as cell:
            run.load(cell, _spec(run, variant, seconds))
        return
    pooler = _pooler(topology, variant.path)
    room = split_limit(pooler.max_server_connections, pooler.writer_share)[0]
    with run.cell(variant.name, repeat=repeat, pooler=pooler.name, room=room, **asdict(variant)) as cell:
        if pooler.mode == "session" and variant.connections == "lasting" and variant.clients > room:
            cell.result["not_run"] = (
                f"{variant.clients} lasting clients, room for {room} sessions: the others would wait for ever"
            )
            return
        _through(run, cell, variant, pooler, further.get(variant.authentication), seconds)


def _control(run: Experiment, lifetime: int | None) -> None:
    """Clients that come and go slowly, through a pooler as the lab's, or one that keeps no connection."""
    pooler = _pooler(run.lab.topology, "transaction")
    values = {} if lifetime is None else {"server_lifetime": str(lifetime)}
    name = "as designed" if lifetime is None else f"server_lifetime={lifetime}"
    variant = Variant("control", pooler.mode, "per-request", 20)
    with (
        bouncer(run, pooler.name, "control", Settings(pooler.mode, values=values), CONTROL_S + 120) as other,
        run.cell(f"control/{name}", node=pooler.name, server_lifetime=lifetime, rate=CONTROL_RATE) as cell,
    ):
        spec = replace(_spec(run, variant, CONTROL_S), port=other.port)
        # What a pool opens when it begins is no part of it.
        run.load(cell, replace(spec, duration_s=CONTROL_WARM_S))
        before, logged = stats(run.lab, pooler.name, other.port), _new_connections(other)
        run.load(cell, replace(spec, arrivals="constant", rate=CONTROL_RATE))
        after = stats(run.lab, pooler.name, other.port)
        cell.result["pooler"] = {key: after[key] - before.get(key, 0) for key in after}
        cell.result["new_connections"] = _new_connections(other) - logged


def _through(
    run: Experiment, cell: Cell, variant: Variant, pooler: Pooler, other: Bouncer | None, seconds: float
) -> None:
    """One load with the pooler's own counts before and after it, when no client is there."""
    port = other.port if other else CONSOLE_PORT
    logged = _new_connections(other)
    before = stats(run.lab, pooler.name, port)
    run.load(cell, replace(_spec(run, variant, seconds), port=other.port if other else None))
    after = stats(run.lab, pooler.name, port)
    cell.result["pooler"] = {name: after[name] - before.get(name, 0) for name in after}
    if other is not None:
        cell.result["new_connections"] = _new_connections(other) - logged


def _new_connections(other: Bouncer | None) -> int:
    return other.log().count("new connection to server") if other else 0


def stats(lab: Lab, node: str, port: int) -> dict[str, int]:
    """Totals of SHOW STATS, over the databases without the console's; times in µs."""
    rows = [row for row in console(lab, node, "SHOW STATS", port) if row["database"] != "pgbouncer"]
    names = {name for row in rows for name in row if name.startswith("total_")}
    return {name: sum(int(row[name]) for row in rows) for name in sorted(names)}


def _spec(run: Experiment, variant: Variant, seconds: float) -> LoadSpec:
    topology = run.lab.topology
    direct = variant.path == DIRECT
    return LoadSpec(
        workload=variant.workload,
        users=variant.clients,
        duration_s=seconds,
        arrivals="closed",
        pool=topology.routers[0].name if direct else _pooler(topology, variant.path).name,
        seed=run.seed,
        connections=variant.connections,
        prepare=variant.prepared,
    )


def _pooler(topology: Topology, mode: str) -> Pooler:
    return next((p for p in topology.poolers if p.mode == mode), topology.poolers[0])


def _primary(run: Experiment) -> str:
    """The node that leads now. LabError where none does."""
    watch = run.session.watch
    leader = watch.latest().leader if watch is not None else None
    if leader is None:
        raise LabError("no node leads, so there is no primary whose memory could be measured")
    return leader


def _job(topology: Topology, quick: bool) -> Job:
    """Short: what promises ask for, at 20 clients, with the fewest repeats that make a verdict."""
    _check_topology(topology)
    settings: dict[str, Any] = (
        {
            "clients": [20],
            "repeats": 3,
            "seconds": 2.0,
            "groups": ["statement", "single", "prepared", "timeouts"],
        }
        if quick
        else {"clients": [20, 100], "repeats": 6, "seconds": SECONDS, "groups": list(GROUPS)}
    )
    groups, repeats = settings["groups"], settings["repeats"]
    length = estimate_s(design(topology, settings["clients"], groups), repeats, settings["seconds"])
    length += 2 * CONTROL_S * ("control" in groups)
    return Job(name=NAME, settings=settings, trials=repeats, estimate_s=length + AROUND_S)


def _run_job(lab: Lab, settings: Mapping[str, Any], **how: Any) -> Path:
    return run_pooling(lab, **settings, **how)


JOB = Kind(NAME, _job, _run_job)
