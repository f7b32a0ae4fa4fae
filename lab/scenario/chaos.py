"""A random, bounded schedule of faults: a story like any other, made from a seed.

Bounds: at most ``MOST_AT_ONCE`` faults are in force at a time, each on another target; every one is healed
within the schedule's duration; the duration holds at least one. The story is recorded as the run's
``scenario.yaml``, so that ``lab replay`` repeats it without drawing anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from lab.errors import UsageError
from lab.faults import faults
from lab.faults._base import On, traits
from lab.load import first_that_fits
from lab.scenario.models import MAX_STEPS, Scenario
from lab.scenario.needs import lacking
from lab.scenario.targets import Missing, candidates
from lab.topology.models import Topology

NAME = "chaos"
MOST_AT_ONCE = 2
GAP_S = (3.0, 12.0)
"""Shortest and longest time between two injections."""
HOLD_S = (5.0, 30.0)
"""Shortest and longest time that a fault is in force."""
SHORTEST_S = 10.0
TARGETS: dict[On, tuple[str, ...]] = {
    "database": ("primary", "standby", "any-replica"),
    "etcd": ("etcd-leader", "etcd-follower", "etcd-majority"),
    "pooler": ("pooler:transaction", "pooler:session", "pooler:statement"),
    "router": ("router",),
    "redis": ("redis-primary", "redis-replica"),
    "sentinel": ("sentinel-minority",),
    "proxy": (),
    "client": (),
}
"""What chaos aims at, by the sort of node that a fault can hit."""
ANY: tuple[On, ...] = ("database", "etcd", "pooler", "router", "redis")
"""Sorts of node for a fault that can hit any."""

Possible = Callable[[str, str], bool]
"""Whether a fault (by name) can be performed on a target."""


def choices(topology: Topology, names: Iterable[str] | None = None) -> list[tuple[str, str]]:
    """Every pair of fault and target that the topology has room for, sorted. UsageError: an unknown fault."""
    known = faults()
    wanted = sorted(known if names is None else names)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UsageError(f"no fault {unknown[0]!r}", hint=f"There are: {', '.join(known)}.")
    found = []
    for name in wanted:
        if traits(known[name]).kind == "none":
            continue
        for sort in traits(known[name]).on or ANY:
            for target in TARGETS[sort]:
                try:
                    nodes = candidates(target, topology)
                except Missing:
                    continue
                if not lacking(topology, known[name], nodes):
                    found.append((name, target))
    return found


def schedule(
    topology: Topology,
    seed: int,
    duration_s: float,
    *,
    names: Iterable[str] | None = None,
    possible: Possible = lambda _fault, _target: True,
) -> list[dict[str, Any]]:
    """The steps, as they stand in a scenario file. The same arguments always give the same steps.

    UsageError where the duration holds no fault, or nothing can be performed.
    """
    if duration_s < SHORTEST_S:
        raise UsageError(f"a duration of {duration_s:g} s is too short: at least {SHORTEST_S:g} s")
    rng = random.Random(f"chaos {seed}")
    left = choices(topology, names)
    steps: list[dict[str, Any]] = []
    busy: dict[str, float] = {}
    at = 0.0
    while at + HOLD_S[0] <= duration_s and len(steps) < MAX_STEPS:
        busy = {target: end for target, end in busy.items() if end > at}
        if len(busy) >= MOST_AT_ONCE:
            at = round(min(busy.values()) + 0.1, 1)
            continue
        fault, target = _draw(rng, left, busy, possible)
        hold = round(min(rng.uniform(*HOLD_S), duration_s - at), 1)
        step: dict[str, Any] = {"at": at, "fault": fault, "target": target, "within": 30.0}
        if traits(faults()[fault]).ends_itself:
            hold = GAP_S[0]
        else:
            step["for"] = hold
        steps.append(step)
        busy[target] = at + hold
        at = round(at + rng.uniform(*GAP_S), 1)
    return steps


def _draw(
    rng: random.Random, left: list[tuple[str, str]], busy: dict[str, float], possible: Possible
) -> tuple[str, str]:
    """A fault first, then its target, so that one with many targets is no likelier. Impossible pairs go."""
    while True:
        free = [pair for pair in left if pair[1] not in busy]
        if not free:
            raise UsageError("no fault can be performed here", hint="lab doctor")
        name = rng.choice(sorted({fault for fault, _ in free}))
        pair = rng.choice([pair for pair in free if pair[0] == name])
        if possible(*pair):
            return pair
        left.remove(pair)


def story(
    topology: Topology,
    seed: int,
    duration_s: float,
    *,
    rate: float,
    settle: float,
    workload: str | None = None,
    names: Iterable[str] | None = None,
    possible: Possible = lambda _fault, _target: True,
) -> Scenario:
    """The schedule as a scenario of one trial.

    Args:
        workload: by default the risk platform's own on its schema, elsewhere ``bank``, whose total must hold.
    """
    own = first_that_fits(topology, "risk-api", "bank")
    steps = schedule(topology, seed, duration_s, names=names, possible=possible)
    return Scenario.model_validate(
        {
            "name": NAME,
            "title": f"Chaos from seed {seed}, {duration_s:g} s",
            "claim": (
                "Faults at random, overlapping, each healed in its time. Nothing acknowledged may be lost, "
                "nothing refused may appear, and the lab must become whole again. One schedule that passes "
                "proves little; one that fails is a counterexample, and can be replayed."
            ),
            "load": {"rate": rate, "workload": workload or own},
            "settle": settle,
            "trials": 1,
            "steps": steps,
            "recovery": {"redundant_within": 300.0},
        }
    )
