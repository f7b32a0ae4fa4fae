"""Would scaling on CPU and connections notice in time? Automatic scaling on paper, from measured steps.

A rule adds capacity when a signal stands above its threshold. It helps only where some signal gets there at
or below the knee: a rule on the database's connections, say, never acts behind a pooler, whose server
connections do not grow with the load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.capacity.constraint import Constraint, Load

THRESHOLD = 0.70
"""Of each signal's limit. Assumed: the documents name none; rules that keep CPU at 60 to 75 % are usual."""
SIGNALS = (
    ("CPU of the primary", "primary_cpu"),
    ("CPU of the busiest replica", "replica_cpu"),
    ("connections of the primary", "connections"),
)
"""What such a rule is told of: label, field of ``Load``."""


@dataclass(frozen=True)
class Signal:
    """One signal against the load. Shares of 1, rates per second."""

    name: str
    least: float
    """At the least rate."""
    knee: float
    """At the knee."""
    noticed: float | None
    """Rate at which it reaches the threshold; None: not up to the knee."""


def decided(found: Sequence[Signal], constraint: Constraint) -> bool:
    """Whether signals that stayed low say something of a full-size database.

    Not where the machine, the generator or the users ended it, nor where a CPU did: one that binds below the
    threshold is a quota of the lab's scale that bursts run into.
    """
    noticed = any(one.noticed is not None for one in found)
    return noticed or not (
        constraint.lower_bound or constraint.name in ("unknown", "primary CPU", "replica CPU")
    )


def signals(loads: Sequence[Load], knee: float) -> list[Signal]:
    """Every signal that was sampled up to the knee; between two rates on a straight line."""
    found = []
    for name, field in SIGNALS:
        at: dict[float, list[float]] = {}
        for load in loads:
            value = getattr(load, field)
            if value is not None and load.rate <= knee:
                at.setdefault(load.rate, []).append(value)
        if knee in at:
            rates = sorted(at)
            shares = [float(np.mean(at[rate])) for rate in rates]
            found.append(Signal(name, shares[0], shares[-1], _reached(rates, shares)))
    return found


def _reached(rates: Sequence[float], shares: Sequence[float]) -> float | None:
    """Where the threshold is crossed for good, up to the knee."""
    if shares[-1] < THRESHOLD:
        return None
    last = max((i for i, share in enumerate(shares) if share < THRESHOLD), default=-1)
    if last < 0:
        return rates[0]
    return float(np.interp(THRESHOLD, shares[last : last + 2], rates[last : last + 2]))
