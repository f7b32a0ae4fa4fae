"""A system on paper, changed by a few words: ``instances=2000, pool.transaction=400``.

The base is the calibrated topology with its instance classes at full size, each node on cores of its own.
That assumes what no lab on one machine can show, and every answer says so:

- a vCPU of the class does a request's work in the time that a core of this machine takes;
- network, storage and commit latency stay those of the lab;
- the working set fits into memory as it did in the lab.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lab.errors import UsageError
from lab.topology.instances import instance_class
from reports.capacity.calibrate import Calibration
from reports.capacity.system import FOREVER, System

FURTHEST = 128.0
"""Times the calibrated size (instances, cores, connections, nodes) beyond which the model refuses."""
FURTHEST_RATE = 50.0
"""Times the greatest offered rate of the record beyond which it refuses."""
ASSUMES = (
    "a vCPU of the instance class does a request's work in the time that one core of this machine takes",
    "network, storage and commit latency are those of the lab",
    "the working set fits into memory as it does in the lab",
)


@dataclass(frozen=True)
class Question:
    """What is asked of the model."""

    system: System
    classes: dict[str, str]
    cached: float = 0.0
    """Share of hits of the cache that the record's topology has."""
    rate: float | None = None
    outage_s: float | None = None
    changed: tuple[str, ...] = ()
    far: tuple[str, ...] = field(default=())
    """In what it goes beyond what was measured."""


def on_paper(calibration: Calibration) -> Question:
    """The calibrated topology, its nodes as large as their classes."""
    classes = dict(calibration.classes)
    system = replace(
        calibration.system,
        machine=FOREVER,
        machine_cpu=0.0,
        primary=calibration.vcpu["primary"],
        replicas=(calibration.vcpu.get("replica", 0.0),) * len(calibration.system.replicas),
    )
    return Question(system, classes, calibration.cache_hit)


def as_measured(calibration: Calibration) -> Question:
    """The lab itself, its limits and its one machine."""
    return Question(calibration.system, dict(calibration.classes), calibration.cache_hit)


def ask(base: Question, text: str, calibration: Calibration) -> Question:
    """Apply the words. UsageError for what is no such word, no value, or further than the model goes."""
    question = base
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals or name not in _WORDS:
            raise UsageError(
                f"what-if {word!r}: expected one of {', '.join(sorted(_WORDS))}, with = and a value",
                hint='--what-if "instances=2000, pool.transaction=400, replicas=5, class=db.r5.4xlarge"',
            )
        question = _WORDS[name](question, value, word)
        question = replace(question, changed=(*question.changed, f"{name} = {value}"))
    return _within_bounds(question, calibration)


def _within_bounds(question: Question, calibration: Calibration) -> Question:
    was, now = calibration.system, question.system
    far = []
    for what, before, after in (
        ("instances", was.clients, now.clients),
        ("server connections", _connections(was), _connections(now)),
        ("cores of the primary", was.primary, now.primary),
        ("cores that serve reads", sum(was.replicas) or was.primary, sum(now.replicas) or now.primary),
    ):
        if after > FURTHEST * before:
            raise UsageError(
                f"{after:g} {what} are more than {FURTHEST:g} times the {before:g} that were measured",
                hint="The model is not shown to hold that far: calibrate it on a larger lab.",
            )
        if after > 2 * before or after < before / 2:
            far.append(f"{after:g} {what} ({before:g} measured)")
    if question.rate is not None and question.rate > FURTHEST_RATE * calibration.most:
        raise UsageError(
            f"{question.rate:g} requests/s are more than {FURTHEST_RATE:g} times the "
            f"{calibration.most:g} that were measured"
        )
    if now.cache_hit > 0:
        far.append("a cache in front of reads")
    for old, new in zip(was.pools, now.pools, strict=True):
        if new.mode != old.mode:
            far.append(f"{new.mode} pooling ({old.mode} measured)")
    if now.machine == FOREVER and was.machine != FOREVER:
        far.append("every node on cores of its own")
    return replace(question, far=tuple(far))


def _connections(system: System) -> int:
    return sum(pool.writer + pool.reader for pool in system.pools if not pool.direct) or 1


def _cores(name: str | None, otherwise: float) -> float:
    if name is None:
        return otherwise
    try:
        return float(instance_class(name).vcpu)
    except UsageError:
        return otherwise


def _whole(value: str, word: str, least: int = 1) -> int:
    try:
        number = int(value)
    except ValueError:
        raise UsageError(f"what-if {word!r}: {value!r} is no whole number") from None
    if number < least:
        raise UsageError(f"what-if {word!r}: at least {least}")
    return number


def _number(value: str, word: str, low: float, high: float) -> float:
    try:
        number = float(value.removesuffix("s").removesuffix("%"))
    except ValueError:
        raise UsageError(f"what-if {word!r}: {value!r} is no number") from None
    number = number / 100 if value.endswith("%") else number
    if not (low <= number <= high and math.isfinite(number)):
        raise UsageError(f"what-if {word!r}: from {low:g} to {high:g}")
    return number


def _instances(q: Question, value: str, word: str) -> Question:
    return replace(q, system=replace(q.system, instances=_whole(value, word)))


def _concurrency(q: Question, value: str, word: str) -> Question:
    return replace(q, system=replace(q.system, concurrency=_whole(value, word)))


def _pool_mode(q: Question, value: str, word: str) -> Question:
    if value not in ("transaction", "session", "statement"):
        raise UsageError(f"what-if {word!r}: transaction, session or statement")
    return replace(q, system=replace(q.system, pool=replace(q.system.pool, mode=value)))  # type: ignore[arg-type]


def _pool_size(mode: str) -> Callable[[Question, str, str], Question]:
    def apply(q: Question, value: str, word: str) -> Question:
        size, pools = _whole(value, word, 2), list(q.system.pools)
        # The pooler of that mode; where there is none, the application's own changes its mode.
        which = next((i for i, one in enumerate(pools) if one.mode == mode and not one.direct), 0)
        pool = pools[which]
        writer = max(1, round(size * pool.writer / (pool.writer + pool.reader)))
        pools[which] = replace(pool, mode=mode, writer=writer, reader=max(1, size - writer))  # type: ignore[arg-type]
        return replace(q, system=replace(q.system, pool=pools[0], more=tuple(pools[1:])))

    return apply


def _replicas(q: Question, value: str, word: str) -> Question:
    count = _whole(value, word, 0)
    each = q.system.replicas[0] if q.system.replicas else _cores(q.classes.get("replica"), q.system.primary)
    return replace(q, system=replace(q.system, replicas=(each,) * count))


def _class(q: Question, value: str, word: str) -> Question:
    del word
    cores = float(instance_class(value).vcpu)
    return replace(q, system=replace(q.system, primary=cores), classes={**q.classes, "primary": value})


def _replica_class(q: Question, value: str, word: str) -> Question:
    del word
    cores = float(instance_class(value).vcpu)
    system = replace(q.system, replicas=(cores,) * len(q.system.replicas))
    return replace(q, system=system, classes={**q.classes, "replica": value})


def _hit(q: Question, value: str, word: str) -> Question:
    """A cache answers so many of the reads, those that the record's own cache answered included."""
    wanted = _number(value, word, 0, 1)
    if wanted < q.cached:
        raise UsageError(
            f"what-if {word!r}: {q.cached:.0%} were hits already when it was measured, and what a miss costs "
            "then is not known",
            hint="Measure without the cache, or ask for more hits.",
        )
    more = (wanted - q.cached) / (1 - q.cached) if q.cached < 1 else 0.0
    return replace(q, system=replace(q.system, cache_hit=more))


def _rate(q: Question, value: str, word: str) -> Question:
    return replace(q, rate=_number(value, word, 0.01, 1e6))


def _outage(q: Question, value: str, word: str) -> Question:
    return replace(q, outage_s=_number(value, word, 0.01, 3600))


_WORDS: dict[str, Callable[[Question, str, str], Question]] = {
    "instances": _instances,
    "concurrency": _concurrency,
    "pool": _pool_mode,
    **{f"pool.{mode}": _pool_size(mode) for mode in ("transaction", "session", "statement")},
    "replicas": _replicas,
    "class": _class,
    "replica.class": _replica_class,
    "cache.hit": _hit,
    "rate": _rate,
    "outage": _outage,
}
