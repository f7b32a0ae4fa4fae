"""What a run will do, worked out before anything is started. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lab.deploy.allocation import Allocation
from lab.deploy.allocation import Endpoint as Place
from lab.deploy.endpoints import POOLER_PORT, REDIS_PORT, SENTINEL_SERVICE, endpoints
from lab.deploy.parameters import client_timeouts, split_limit
from lab.deploy.secret_names import MONITOR, PROBE
from lab.errors import UsageError
from lab.faults import find
from lab.faults._base import sort_of, traits
from lab.load import resolve_pool, workload_for
from lab.observe.config import Config, Endpoint, Http, Probes, Redis
from lab.scenario.models import Scenario, Step
from lab.scenario.needs import lacking
from lab.scenario.predict import predict, watch_s
from lab.scenario.targets import Missing, candidates, may_hit_leader
from lab.topology.models import Topology
from loadtests.config import LoadConfig

WINDOW_MARGIN_S = 5.0
PREROLL_S = 1.0
"""Between the start of a trial and the earliest injection: writes must be seen to work before."""
HANDLING_S = 60.0
"""What injecting, verifying and healing one fault may take."""
SLACK_S = 120.0
"""What a run may take beyond its longest waits, before what runs in the lab ends itself."""


@dataclass(frozen=True)
class Plan:
    """Decided once, recorded, and followed."""

    scenario: Scenario
    topology: Topology
    seed: int
    trials: int
    """0 for a scenario without a fault."""
    phases_s: tuple[float, ...]
    """Of each trial: seconds between its start and the injection."""
    window_s: float
    """Of a trial in which nothing has to be waited for: seconds after its first fault."""
    longest_s: float
    """The same with every wait as long as it may be."""
    predicted: dict[str, float]
    writer: str
    """Endpoint name that probes and load write through."""
    reader: str | None
    deadline_s: float
    """After this, whatever runs inside the lab ends itself."""
    probes: Probes = field(default_factory=Probes)
    """How often the observer's probes ask; an interval of 0 leaves one out."""
    not_run: str = ""
    """Why the topology has no room for a fault of the scenario; then there are no trials."""


def make_plan(scenario: Scenario, topology: Topology, allocation: Allocation, seed: int) -> Plan:
    """UsageError where the scenario makes no sense on the topology."""
    if why := no_room(scenario, topology):
        return Plan(scenario, topology, seed, 0, (), 0.0, 0.0, {}, "", None, 0.0, not_run=why)
    workload_for(topology, scenario.load.workload)
    known = endpoints(topology, allocation)
    writer, reader = resolve_pool(topology, known, scenario.load.pool)
    window = story_s(scenario, topology)
    given = scenario.recovery.window
    if given != "auto":
        late = [n for n, step in enumerate(scenario.steps, 1) if (step.at or 0.0) >= given]
        if late:
            raise UsageError(f"recovery.window: {given:g} s have passed before step {late[0]} begins")
        window = given
    trials = scenario.trials if scenario.step else 0
    # The phase is random over Patroni's loop, whose own phase is not known to us.
    rng = random.Random(seed)
    loop = float(topology.postgres.patroni.loop_wait)
    phases = tuple(round(PREROLL_S + rng.uniform(0, loop), 6) for _ in range(trials))
    longest = window + waits_s(scenario) + HANDLING_S * len(scenario.faults)
    a_trial = scenario.settle_within + max(phases, default=0) + longest + scenario.recovery.redundant_within
    deadline = scenario.settle_within + scenario.settle + trials * (a_trial + 30) + SLACK_S
    return Plan(
        scenario, topology, seed, trials, phases, round(window, 3), round(longest, 3),
        predicted(scenario, topology), writer, reader, deadline, probes=probes_for(topology, writer),
    )  # fmt: skip


def probes_for(topology: Topology, writer: str) -> Probes:
    """The probes that ask there. In session pooling a lasting session keeps a server connection for itself:
    they take a quarter of them at most, so that the load finds room."""
    usual = Probes()
    for pooler in topology.poolers:
        if pooler.mode == "session" and writer == f"{pooler.name}.writer":
            room = min(split_limit(pooler.max_server_connections, pooler.writer_share))
            return replace(usual, sessions=max(1, min(usual.sessions, room // 4)))
    return usual


def no_room(scenario: Scenario, topology: Topology) -> str:
    """Why a fault can never be performed on this topology, "" where all may.

    UsageError where a fault cannot hit what its target is, whatever the topology.
    """
    for number, step in scenario.faults:
        try:
            check_target(number, step, topology)
            why = lacking(topology, find(str(step.fault)), candidates(step.target, topology))
        except Missing as error:
            why = f"{step.fault}: {error}"
        if why:
            return f"step {number}: {why}"
    return ""


def check_target(number: int, step: Step, topology: Topology) -> None:
    """Missing where the topology has no such target, UsageError where the fault cannot hit it."""
    possible = traits(find(str(step.fault))).on
    for node in candidates(step.target, topology):
        sort = sort_of(topology, node)
        if possible and sort not in possible:
            raise UsageError(
                f"step {number}: {step.fault} cannot hit {node}, which is a {sort} node",
                hint=f"it hits {', '.join(possible)}; target is {step.target}",
            )


def need_s(step: Step, topology: Topology) -> float:
    """How long clients are watched after a fault step took effect, margin included, in seconds."""
    leader = may_hit_leader(step.target, topology)
    needed = watch_s(topology, str(step.fault), may_hit_leader=leader)
    return max(needed, step.duration or 0.0) + WINDOW_MARGIN_S


def story_s(scenario: Scenario, topology: Topology) -> float:
    """Seconds from the first fault to the end of the automatic window, if no wait takes any time."""
    end, at, first = WINDOW_MARGIN_S, 0.0, None
    for step in scenario.steps:
        at = max(at, step.at or 0.0)
        if step.fault:
            first = at if first is None else first
            end = max(end, at - first + need_s(step, topology))
        elif isinstance(step.throughout, float):
            end = max(end, at - (first or 0.0) + step.throughout)
    return end


def waits_s(scenario: Scenario) -> float:
    """The sum of the limits of every wait of a story, in seconds."""
    waits = sum(step.within for step in scenario.steps for wait in (step.when, step.until) if wait)
    # From the second fault on a target may have to be waited for.
    return waits + sum(step.within for _, step in scenario.faults[1:])


def predicted(scenario: Scenario, topology: Topology) -> dict[str, float]:
    """What the configuration predicts for a trial, seconds after its first fault; empty: nothing.

    Of a fault that surely hits the primary and stays until the failover is over. Where several do,
    the range only: from the first one's best case to the last worst case. Nothing where a later step may move
    the leader at a moment, or in a time, that is not known (a switchover once replication is synchronous).
    """
    if not scenario.step:
        return {}
    found: list[tuple[float, dict[str, float]]] = []
    at, first, waited = 0.0, scenario.step.at or 0.0, False
    begun = False
    for step in scenario.steps:
        at = max(at, step.at or 0.0)
        # After a wait the moment is not known.
        waited = waited or bool(begun and (step.when or step.until))
        if step.fault is None:
            continue
        begun = True
        sure = step.target in ("primary", "az:primary", "az-data:primary")
        moves = traits(find(step.fault)).moves_leader
        one = predict(topology, step.fault) if sure and moves == "yes" and not waited else {}
        if one and (step.duration is None or step.duration >= one["worst"]):
            found.append((at - first, one))
        elif found and moves != "no" and may_hit_leader(step.target, topology):
            return {}
    if not found or found[0][0] > 0:
        return {}
    if len(found) == 1:
        return found[0][1]
    return {"best": found[0][1]["best"], "worst": round(max(after + one["worst"] for after, one in found), 3)}


def estimate_s(plan: Plan) -> float:
    """About how long the run will take, on a machine that is not busy with other things."""
    if plan.not_run:
        return 0.0
    whole = 15.0 if plan.trials else 0.0
    per_trial = plan.window_s + whole + max(plan.phases_s, default=0.0)
    return 20.0 + plan.scenario.settle + plan.trials * per_trial


def observer_config(
    plan: Plan,
    allocation: Allocation,
    *,
    run: str,
    out: str,
    token: str,
    passwords: Mapping[str, str],
    scope: str,
    namespace: str,
) -> Config:
    """What the observer's programs are told. ``passwords``: role (and ``redis``) → file in the observer."""
    topology = plan.topology
    places = endpoints(topology, allocation)
    sslmode = "verify-full" if topology.tls.enabled else "disable"

    def control(node: str, port: int) -> Place:
        """A node as collectors reach it: past every link, whatever stands or is broken in it."""
        address = allocation.addresses[node]["control"]
        return Place(name=node, node=node, host=f"{node}.control", address=address, port=port)

    def database(
        name: str,
        role: str,
        *,
        where: Place | None = None,
        database: str | None = None,
        tcp: Mapping[str, int] | None = None,
    ) -> Endpoint:
        place = where or places[name]
        return Endpoint(
            name=name,
            host=place.host,
            address=place.address,
            port=place.port,
            database=database or place.database or topology.postgres.database,
            user=role,
            password_file=passwords[role],
            sslmode=sslmode,
            target_session_attrs=place.target_session_attrs or "",
            tcp=tcp or {},
        )

    def http(name: str, path: str = "") -> Http:
        place = places[name]
        return Http(node=place.node, url=f"http://{place.address}:{place.port}{path}", host=place.host)

    def redis(place: Place, node: str | None = None) -> Redis:
        return Redis(
            node=node or place.node,
            host=place.host,
            address=place.address,
            port=place.port,
            password_file=passwords["redis"],
            tls=topology.tls.enabled,
        )

    nodes = [node.name for node in topology.postgres.nodes]
    patroni = topology.postgres.high_availability == "patroni"
    cache = topology.cache.nodes if topology.cache else ()
    sentinels = topology.cache.sentinels if topology.cache else ()
    return Config(
        run=run,
        out=out,
        deadline_s=plan.deadline_s,
        token=token,
        slow_after_s=plan.scenario.slow_after,
        agent_address=allocation.addresses[topology.observer.name]["control"],
        # As the application's own sessions; the lab's other instruments keep the system's times.
        writer=database(plan.writer, PROBE, tcp=client_timeouts(topology.tcp.client)),
        reader=database(plan.reader or plan.writer, PROBE, tcp=client_timeouts(topology.tcp.client)),
        router=database(f"{topology.routers[0].name}.write", PROBE) if topology.routers else None,
        nodes=tuple(database(f"{name}.direct", MONITOR) for name in nodes),
        poolers=tuple(
            database(
                f"{pooler.name}.console",
                MONITOR,
                where=control(pooler.name, POOLER_PORT),
                database="pgbouncer",
            )
            for pooler in topology.poolers
        ),
        patroni=tuple(http(f"{name}.patroni") for name in nodes) if patroni else (),
        etcd=tuple(http(f"{member.name}.client") for member in topology.etcd),
        haproxy=tuple(http(f"{router.name}.stats", "/stats;csv") for router in topology.routers),
        redis=tuple(redis(control(member.name, REDIS_PORT)) for member in cache),
        redis_clients=tuple(redis(places[f"{member.name}.redis"], member.name) for member in cache),
        sentinels=tuple(redis(places[f"{member.name}.sentinel"]) for member in sentinels),
        sentinel_service=SENTINEL_SERVICE,
        scope=scope,
        namespace=namespace,
        addresses={
            address: node for node, networks in allocation.addresses.items() for address in networks.values()
        },
        probes=plan.probes,
    )


def load_summary(config: LoadConfig) -> dict[str, Any]:
    """For the manifest."""
    return {
        "workload": config.workload,
        "rate": config.rate,
        "users": config.users,
        "arrivals": config.arrivals,
        "workers": config.workers,
        "endpoint": config.writer.name,
        "reader": config.reader.name if config.reader else None,
        "burst": config.burst,
        "cache_ttl_s": config.cache.ttl_s if config.cache else None,
        "clock": config.cache.clock if config.cache else 1.0,
        "coalesce": config.cache is not None and config.cache.coalesce,
    }
