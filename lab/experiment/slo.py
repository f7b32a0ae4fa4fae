"""A service-level objective: what a step of load has to keep to count as good.

p99<100ms, errors<0.1%, dropped<0.1%

Response times are of the requests that somebody waits for; ``p99(all)<1s`` counts reports and jobs too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lab.errors import UsageError

_TERM = re.compile(
    r"^\s*((?:p50|p95|p99|p99\.9|mean)(?:\(all\))?|errors|dropped)\s*(<=|<)\s*([0-9.]+)\s*(us|ms|s|%)\s*$"
)
_FACTOR = {"us": 0.001, "ms": 1.0, "s": 1000.0, "%": 0.01}
DEFAULT = "p99<100ms, errors<0.1%"
_EVERYTHING_DROPPED = 0.001
"""Dropped work counts as an error of 0.1 % unless the objective names its own limit."""


@dataclass(frozen=True)
class Objective:
    """Limits by name: response times in ms, errors and dropped as shares."""

    limits: tuple[tuple[str, str, float], ...]
    """(name, ``<`` or ``<=``, limit)"""
    text: str

    def broken(self, figures: Mapping[str, float | None]) -> list[str]:
        """Every term that the figures do not keep, in words; a figure that is not known keeps nothing."""
        found = []
        for name, comparison, limit in self.limits:
            value = figures.get(name)
            good = value is not None and (value < limit or (comparison == "<=" and value == limit))
            if not good:
                found.append(f"{name} {_said(name, value)}, not {comparison} {_said(name, limit)}")
        return found

    @property
    def percentile(self) -> tuple[str, float] | None:
        """The response-time term that a chart shows, and its limit in ms."""
        return next(((n, v) for n, _, v in self.limits if n not in ("errors", "dropped")), None)


def parse_slo(text: str) -> Objective:
    """UsageError where the text is no objective."""
    limits: list[tuple[str, str, float]] = []
    for term in text.split(","):
        match = _TERM.match(term)
        if not match:
            raise UsageError(
                f"{term.strip()!r} is no term of a service-level objective",
                hint=f'Such as "{DEFAULT}": p50, p95, p99, p99.9, mean in us, ms, s; errors, dropped in %.',
            )
        name, comparison, number, unit = match.groups()
        share = name in ("errors", "dropped")
        if share != (unit == "%"):
            raise UsageError(f"{term.strip()!r}: {name} is {'a share, in %' if share else 'a time'}")
        try:
            limit = float(number) * _FACTOR[unit]
        except ValueError:
            raise UsageError(f"{term.strip()!r}: {number} is not a number") from None
        if limit <= 0 and comparison == "<":
            raise UsageError(f"{term.strip()!r}: nothing is less than 0, so that nothing can meet it")
        if any(known == name for known, _, _ in limits):
            raise UsageError(f"the objective names {name} twice")
        limits.append((name, comparison, limit))
    if not any(name == "dropped" for name, _, _ in limits):
        limits.append(("dropped", "<=", _EVERYTHING_DROPPED))
    return Objective(tuple(limits), ", ".join(part.strip() for part in text.split(",")))


def _said(name: str, value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{100 * value:.3g} %" if name in ("errors", "dropped") else f"{value:.4g} ms"
