"""When requests are meant to be sent: schedules that do not wait for answers, from a seeded generator.

Times are nanoseconds after the start of the schedule.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from loadtests.config import LoadConfig

NS = 1_000_000_000


def poisson(rate: float, rng: random.Random) -> Iterator[int]:
    """A Poisson process: independent exponential gaps with mean 1 / rate, without end."""
    at = 0.0
    while True:
        at += rng.expovariate(rate)
        yield int(at * NS)


def constant(rate: float, phase: float = 0.0) -> Iterator[int]:
    """Evenly spaced arrivals; ``phase`` (0 to 1) is the part of a gap before the first one.

    Counted from the start rather than added up, so that no rounding error accumulates.
    """
    gap = NS / rate
    number = 0
    while True:
        yield int((number + phase) * gap)
        number += 1


def schedule(config: LoadConfig, worker: int) -> Iterator[int]:
    """One worker's share of the arrivals, up to the end of ``duration_s``.

    The workers' shares are independent Poisson processes (whose sum is one of the whole rate), or
    constant ones that interleave evenly. With ``burst`` = n, n requests arrive at each moment of a process
    of an n-th of the rate. Equal seeds give equal schedules.

    Raises:
        ValueError: the configuration is closed, so it has no schedule.
    """
    if config.arrivals == "closed":
        raise ValueError("closed arrivals have no schedule")
    rate = config.rate / config.workers / config.burst
    if config.arrivals == "poisson":
        source = poisson(rate, random.Random(f"{config.seed}/{worker}/arrivals"))
    else:
        source = constant(rate, worker / config.workers)
    end = None if config.duration_s is None else int(config.duration_s * NS)
    for at in source:
        if end is not None and at >= end:
            return
        for _ in range(config.burst):
            yield at
