"""What to do once the load reaches the knee: each option with what it carries, until when, and its cost.

The model gives every option's knee on paper as a *ratio* to that of the topology as it is; the ratio is
applied to what is carried now. Prices are of the dated table. An option that the model cannot rate is left
out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lab.errors import UsageError
from lab.experiment.slo import Objective
from lab.topology.instances import ACU_PRICE, ACU_RANGE, ACU_VCPU, INSTANCE_CLASSES, instance_class
from reports.capacity.answer import ceiling, knee
from reports.capacity.calibrate import Calibration
from reports.capacity.cost import HOURS, monthly
from reports.capacity.growth import Growth, Reached, reached
from reports.capacity.system import Demand
from reports.capacity.whatif import Question, ask, on_paper

REQUESTS = 12_000
"""Of one simulated rate: the ratio of two knees needs fewer than a knee."""
ACU_USED = 0.7
"""Share of its CPU at which a serverless instance is planned."""


@dataclass(frozen=True)
class Option:
    """One way on. Rates in requests per second, dollars a month."""

    name: str
    words: str
    """As ``--what-if`` takes it; empty: as it is."""
    ratio: float
    carries: float
    reached: Reached | None
    cost: float | None


def options(
    calibration: Calibration, slo: Objective, carried: tuple[float, float], growth: Growth | None
) -> list[Option]:
    """As it is, and every option, by what they carry.

    Args:
        carried: lower and upper bound of the knee as it is.
    """
    base = on_paper(calibration)
    now, _ = knee(base.system, calibration.demands, slo, requests=REQUESTS)
    if not now:
        return []
    found = []
    for name, words in _choices(base):
        try:
            question = ask(base, words, calibration)
        except UsageError:
            continue
        other = now if not words else knee(question.system, calibration.demands, slo, requests=REQUESTS)[0]
        if not other:
            continue
        ratio = other / now
        bounds = (carried[0] * ratio, carried[1] * ratio)
        middle = math.sqrt(bounds[0] * bounds[1])
        when = reached(growth, middle, bounds) if growth is not None else None
        cost = monthly(question.classes, len(question.system.replicas))
        found.append(Option(name, words, ratio, middle, when, cost))
    return sorted(found, key=lambda option: (option.words != "", -option.ratio))


def _choices(base: Question) -> Iterator[tuple[str, str]]:
    yield "as it is", ""
    primary, replica = base.classes.get("primary"), base.classes.get("replica")
    if primary and (larger := _larger(primary)):
        yield f"primary {larger}", f"class={larger}"
    if base.system.replicas:
        count = len(base.system.replicas) + 2
        yield f"{count} replicas", f"replicas={count}"
        if replica and (larger := _larger(replica)):
            yield f"replicas {larger}", f"replica.class={larger}"
            if primary and (first := _larger(primary)):
                yield f"primary {first} and replicas {larger}", f"class={first}, replica.class={larger}"
    for pool in base.system.pools:
        if not pool.direct:
            yield f"{pool.mode} pool twice as large", f"pool.{pool.mode}={2 * (pool.writer + pool.reader)}"
    more = (1 + base.cached) / 2
    yield f"cache in front of reads, {more:.0%} hits", f"cache.hit={more:.2f}"
    yield "twice the instances", f"instances={2 * base.system.instances}"


def _larger(name: str) -> str | None:
    """The next class of the family with twice the vCPU, else the next larger one."""
    family = name.rpartition(".")[0]
    try:
        vcpu = instance_class(name).vcpu
    except UsageError:
        return None
    larger = [
        (one.vcpu, n) for n, one in INSTANCE_CLASSES.items() if n.startswith(f"{family}.") and one.vcpu > vcpu
    ]
    return min(larger)[1] if larger else None


def recommended(found: list[Option], horizon_months: float = 12.0) -> Option | None:
    """The cheapest option that lasts the horizon; where none does, the longest lasting. None: no need."""
    base = next((option for option in found if not option.words), None)
    others = [option for option in found if option.words and option.ratio > 1.02]
    if base is None or not others or _lasts(base) >= horizon_months:
        return None
    enough = [option for option in others if _lasts(option) >= horizon_months]
    if enough:
        return min(
            enough, key=lambda option: (option.cost if option.cost is not None else math.inf, -option.ratio)
        )
    return max(others, key=_lasts)


def _lasts(option: Option) -> float:
    if option.reached is None:
        return 0.0
    return option.reached.earliest if option.reached.earliest is not None else math.inf


@dataclass(frozen=True)
class Units:
    """Aurora capacity units at one moment."""

    months: int
    """From now."""
    rate: float
    each: tuple[tuple[str, int, float | None], ...]
    """(what, how many instances, ACU of each; None: more than one instance can have)"""
    cost: float | None
    """Dollars a month where they are held all the time."""


def units(
    calibration: Calibration, growth: Growth, months: Sequence[int] = (0, 6, 12, 24, 36)
) -> list[Units]:
    """What a serverless topology needs as the load grows: its writer, and each of its readers."""
    readers = len(calibration.system.replicas)
    parts = [("writer", 1, [d for d in calibration.demands if d.writes or not readers])]
    if readers:
        parts.append(("reader", readers, [d for d in calibration.demands if not d.writes]))
    found = []
    for month in months:
        rate = growth.middle[month]
        each: list[tuple[str, int, float | None]] = []
        for name, count, mine in parts:
            share = sum(d.share for d in mine) / sum(d.share for d in calibration.demands)
            try:
                each.append((name, count, acu(tuple(mine), rate * share / count) if mine else ACU_RANGE[0]))
            except UsageError:
                each.append((name, count, None))
        held = [None if needed is None else count * needed for _, count, needed in each]
        known = [one for one in held if one is not None]
        cost = HOURS * ACU_PRICE * sum(known) if len(known) == len(held) else None
        found.append(Units(month, rate, tuple(each), cost))
    return found


def acu(demands: tuple[Demand, ...], rate: float) -> float:
    """Aurora capacity units that a rate needs on one serverless instance, by CPU, in steps of 0.5.

    ACU = rate · CPU a request ÷ 0.7 ÷ 0.25 vCPU an ACU, at least 0.5. UsageError beyond one instance's.
    """
    from reports.capacity.system import Pool, System

    boundless = System(instances=10**9, pool=Pool(writer=10**9, reader=10**9), primary=1.0)
    per_core = ceiling(boundless, tuple(replace(d, pooler=0) for d in demands))
    needed = max(ACU_RANGE[0], math.ceil(2 * rate / per_core / ACU_USED / ACU_VCPU - 1e-9) / 2)
    if needed > ACU_RANGE[1]:
        raise UsageError(
            f"{rate:g} requests/s need {needed:g} ACU, and one instance has {ACU_RANGE[1]:g} at most"
        )
    return needed
