"""A scenario: load, settle, break, watch, heal, again; as data. Durations are seconds, or ``30s``, ``5m``.

``steps`` tell a story. They are taken in order: a step begins once its own moment ``at`` has come (counted
from the moment of injection of the trial), its condition ``when`` holds, and the step before it has begun
(faults, assertions) or has come true (``until``). Faults overlap: each is healed after its own ``for``, or,
without one, when the observation window has ended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from lab.durations import seconds_in
from lab.topology.models import Model, Name

MAX_STEPS = 50

ROLES = (
    "primary", "standby", "sync-replica", "any-replica", "etcd-leader", "etcd-follower", "etcd-majority",
    "etcd-all", "pooler:transaction", "pooler:session", "pooler:statement", "router", "redis-primary",
    "redis-replica", "sentinel-minority",
)  # fmt: skip
"""Targets by role; besides them ``az:<zone>``, ``az-data:<zone>`` and ``node:<name>`` (``targets.py``)."""

_ZONE = re.compile(r"^az(-data)?:([a-z]|primary)$")
_NODE = re.compile(r"^node:[a-z][a-z0-9-]{0,30}$")
_FIELD = re.compile(r"^[a-z_]+(\.[a-z0-9_-]+)*$")


def _target(text: str) -> str:
    if text in ROLES or _ZONE.match(text) or _NODE.match(text):
        return text
    raise ValueError(
        f"a target is one of {', '.join(ROLES)}, az:<zone>, az-data:<zone> (a zone's letter, or primary) "
        "or node:<name>"
    )


Target = Annotated[str, AfterValidator(_target)]
"""What a fault hits, by role. Resolved at the moment of injection, to one or several nodes."""

Condition = Literal[
    "replicas streaming",
    "synchronous",
    "writes healthy",
    "writes failing",
    "leader changed",
    "leader unchanged",
]
"""``replicas streaming``: every database node streams from one leader, on its timeline. ``synchronous``: a
standby is synchronous. ``writes healthy``: a write was acknowledged and none failed or was slow in the last
1.5 s. ``writes failing``: the contrary. ``leader changed``, ``leader unchanged``: another node leads than at
the trial's start, or the same (or none)."""


def _in_seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    seconds = seconds_in(value)
    if seconds is None:
        raise ValueError("a duration is a number of seconds, or such as 10s, 5m or 200ms")
    return seconds


Seconds = Annotated[float, BeforeValidator(_in_seconds)]
Duration = Annotated[Seconds, Field(gt=0, le=86_400)]
Moment = Annotated[Seconds, Field(ge=0, le=86_400)]


class Load(Model):
    """What the clients do meanwhile."""

    workload: Name = "risk-api"
    rate: Annotated[float, Field(gt=0, le=100_000)] = 100.0
    """Requests per second offered, over all users."""
    users: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """None: one for every application instance that the topology names."""
    pool: Name | None = None
    """The pooler that clients connect to; None: the first with transaction pooling."""
    arrivals: Literal["poisson", "constant"] = "poisson"
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    cache: bool = True
    """Whether the workload uses the topology's cache, where there is one."""
    clock: Annotated[float, Field(ge=1, le=10_000)] = 1.0
    """How many times faster than the document's the application's timeouts (the cache's TTL) run."""
    coalesce: bool = False
    """Whether clients that miss the same entry of the cache at one time wait for one of them to load it."""


class Step(Model):
    """One sentence of the story: a ``fault``, a wait ``until``, or something that one can ``assert``."""

    # ``for`` and ``assert`` are words of Python, so that these fields have other names there.

    at: Moment | None = None
    """Not before so many seconds after the trial's moment of injection. None: at once."""
    when: Condition | None = None
    """What has to hold before the step begins."""

    fault: Name | None = None
    target: Target = "primary"
    duration: Annotated[Duration | None, Field(alias="for")] = None
    """Seconds after which the fault is healed; None: when the observation window has ended."""

    until: Condition | None = None
    """Wait until this holds."""

    claim: Annotated[Condition | None, Field(alias="assert")] = None
    """What must hold, looked at all the time."""
    throughout: Duration | Literal["window"] | None = None
    """How long, from the beginning of the step; ``window``: until the observation window ends."""

    within: Duration = 60.0
    """How long ``when`` and ``until`` may take (and a target to be found); then the trial is inconclusive."""

    @model_validator(mode="after")
    def _one_thing(self) -> Step:
        said = [w for w, v in (("fault", self.fault), ("until", self.until), ("assert", self.claim)) if v]
        if len(said) != 1:
            found = " and ".join(said) or "none of them"
            raise ValueError(f"a step is one of fault, until and assert, found {found}")
        given = self.model_fields_set
        only = {"fault": ("target", "duration"), "assert": ("throughout",)}
        for word, fields in only.items():
            wrong = [name for name in fields if name in given and word != said[0]]
            if wrong:
                name = "for" if wrong[0] == "duration" else wrong[0]
                raise ValueError(f"{name} belongs to a step with {word}, not with {said[0]}")
        if self.claim and self.throughout is None:
            raise ValueError("assert needs throughout: a number of seconds, or window")
        return self


class Recovery(Model):
    """What comes after the fault."""

    window: Annotated[Seconds, Field(ge=1, le=86_400)] | Literal["auto"] = "auto"
    """How long clients are observed after the first fault; auto: until the predicted worst case of every
    fault, and its healing within the window, + 5 s."""
    redundant_within: Duration = 180.0
    """How long healing may take until every node streams again."""


class Scenario(Model):
    """The whole story."""

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=120)]
    claim: Annotated[str, Field(min_length=1)]
    """What it tries to show, why that matters, and what it cannot show."""
    load: Load = Load()
    settle: Moment = 10.0
    """Length of the steady state before the first fault (and of the whole run where there is none)."""
    settle_within: Duration = 60.0
    """How long the lab may take to become whole and healthy before a trial."""
    trials: Annotated[int, Field(ge=1, le=1000)] = 3
    steps: Annotated[tuple[Step, ...], Field(max_length=MAX_STEPS)] = ()
    recovery: Recovery = Recovery()
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Fields of the topology and their values, such as ``postgres.patroni.ttl: 30``."""
    checks: tuple[str, ...] = ()
    """Metrics that it is judged by; empty: all that it yields."""
    slow_after: Annotated[Seconds, Field(gt=0, le=3600)] = 1.0
    """T: a write that takes longer counts as failed."""

    @field_validator("overrides")
    @classmethod
    def _paths(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        for path in overrides:
            if not _FIELD.match(path):
                raise ValueError(f"{path!r} is no field of a topology, such as postgres.patroni.ttl")
        return overrides

    @field_validator("steps")
    @classmethod
    def _a_story(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        if steps and not any(step.fault for step in steps):
            raise ValueError("a story needs a step with a fault; `fault: none` changes nothing")
        _in_order(steps)
        return steps

    @property
    def faults(self) -> tuple[tuple[int, Step], ...]:
        """(place in the story from 1, step) of every fault step; none for a run without a fault."""
        return tuple((number, step) for number, step in enumerate(self.steps, 1) if step.fault)

    @property
    def step(self) -> Step | None:
        """The first fault step, None for a run without a fault."""
        return self.faults[0][1] if self.faults else None


def _in_order(steps: Sequence[Step]) -> None:
    last = 0.0
    for number, step in enumerate(steps):
        if step.at is not None and step.at < last:
            raise ValueError(f"step {number + 1} has at: {step.at:g}, before the step above it ({last:g})")
        last = step.at if step.at is not None else last


CONDITIONS: tuple[str, ...] = get_args(Condition)
