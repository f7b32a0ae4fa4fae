"""Figures of one step of load, from its raw requests."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab.experiment.slo import Objective
from lab.experiment.steady import look
from lab.record.schema import NS
from loadtests.format import whole

COLUMNS = ("intended", "started", "done", "name", "endpoint", "outcome")
LAG_LIMIT_MS = 50.0
"""p99 of the generator's own lateness beyond which its step says nothing of the system (measurement.md)."""
KEEPS_UP = 0.95
"""Share of the offered rate that has to be answered; less, with growing responses, is a backlog."""
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
BEYOND = 10
"""Samples that have to lie beyond a percentile for it to be told."""


@dataclass(frozen=True)
class StepFigures:
    """One step, its warm-up cut. Times in ms, shares of 1, rates per second."""

    begin: int
    """First moment that counts, ns of the observer's clock: the first intended request + warm-up."""
    end: int
    """The last intended request."""
    requests: int
    offered: float
    """Requests intended per second; closed loop: requests started."""
    throughput: float
    """Answered well per second of the step, drained ones included: over [begin, last answer or end]."""
    response: dict[str, float | None]
    service: dict[str, float | None]
    errors: float
    dropped: float
    steady: bool
    warm_up_s: float
    drift: float | None
    unsteady: str
    """Why it is not steady; empty where it is."""
    concurrency: float | None
    """Mean number of requests between start and answer, from a count at regular moments."""
    residence_ms: float | None
    """Mean service time of everything that was started: R of Little's law."""
    everything: dict[str, float | None] = field(default_factory=dict)
    """Response times with those of requests in the background among them."""

    def shares(self) -> dict[str, float | None]:
        """What an objective is about."""
        return shares(self.response, self.everything, self.errors, self.dropped)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def shares(
    response: Mapping[str, float | None],
    everything: Mapping[str, float | None],
    errors: float,
    dropped: float,
) -> dict[str, float | None]:
    """Figures by the names that an objective has for them; ``p99(all)`` is of every request."""
    of_all = {f"{name}(all)": value for name, value in everything.items()}
    return {**response, **of_all, "errors": errors, "dropped": dropped}


def measure(
    requests: pa.Table, length_s: float | None = None, background: Collection[str] = ()
) -> StepFigures | None:
    """Figures of the requests of one step (columns ``COLUMNS``); None where there are none.

    Parts of requests (commands to the cache) are left out: they count in the request that sent them.

    Args:
        length_s: how long requests were scheduled; None: from the first to the last intended.
        background: names of requests for which nobody waits. They count for throughput, errors and dropped
            work, not for percentiles and steadiness.
    """
    requests = whole(requests)
    if not requests.num_rows:
        return None
    intended, started, done = (
        np.asarray(pc.fill_null(requests[name], -1).to_numpy(), dtype=np.int64)
        for name in ("intended", "started", "done")
    )
    outcome = requests["outcome"].cast(pa.string())
    ok = np.asarray(pc.fill_null(pc.equal(outcome, "ok"), False).to_numpy(zero_copy_only=False), dtype=bool)
    dropped = np.asarray(
        pc.fill_null(pc.equal(outcome, "dropped"), False).to_numpy(zero_copy_only=False), dtype=bool
    ) | (started < 0)
    first, last = int(intended.min()), int(intended.max())
    length = length_s if length_s is not None else (last - first) / NS
    good = ok & (done >= 0)
    waited_for = _waited_for(requests, background)
    response = (done - intended) / 1e6
    judged = good & waited_for
    found = look((intended[judged] - first) / NS, response[judged], length)
    begin = first + round(found.warm_up_s * NS)
    inside = intended >= begin
    good &= inside
    judged &= inside
    count = int(inside.sum())
    span = max((last - begin) / NS, 1e-9)
    # A step that leaves a backlog behind must not be told as having kept up: its answers took longer.
    ended = max(int(done[good].max()) if good.any() else last, last)
    ran = inside & (started >= 0) & (done >= 0)
    return StepFigures(
        begin=begin,
        end=last,
        requests=count,
        offered=count / span,
        throughput=int(good.sum()) / max((ended - begin) / NS, 1e-9),
        response=quantiles(response[judged]),
        service=quantiles((done - started)[judged] / 1e6),
        errors=float((inside & ~ok & ~dropped).sum()) / max(1, count),
        dropped=float((inside & dropped).sum()) / max(1, count),
        steady=found.steady,
        warm_up_s=found.warm_up_s,
        drift=found.drift,
        unsteady=found.why,
        concurrency=_concurrency(started[started >= 0], done[started >= 0], begin, last),
        residence_ms=float(((done - started)[ran] / 1e6).mean()) if ran.any() else None,
        everything=quantiles(response[good]),
    )


def _waited_for(requests: pa.Table, background: Collection[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are no background requests; all of them, where nothing else was asked for."""
    names = requests["name"].cast(pa.string())
    found = pc.invert(pc.is_in(names, pa.array(sorted(background), pa.string())))
    kept = np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)
    return kept if kept.any() else np.ones(len(kept), dtype=bool)


def quantiles(values: np.ndarray[Any, Any]) -> dict[str, float | None]:
    """Nearest-rank percentiles and the mean; None with fewer than ten samples beyond."""
    ordered = np.sort(values)
    found: dict[str, float | None] = {}
    for name, q in QUANTILES.items():
        known = len(ordered) * (1 - q) >= BEYOND - 1e-9
        found[name] = float(ordered[math.ceil(q * len(ordered)) - 1]) if known else None
    found["mean"] = float(ordered.mean()) if len(ordered) else None
    return found


def _concurrency(
    started: np.ndarray[Any, Any], done: np.ndarray[Any, Any], begin: int, end: int
) -> float | None:
    """Counted, not derived from R: else Little's law would be compared with itself."""
    if end <= begin:
        return None
    moments = np.linspace(begin, end, 2001)
    begun = np.searchsorted(np.sort(started), moments, side="right")
    left = np.searchsorted(np.sort(done[done >= 0]), moments, side="right")
    return float((begun - left).mean())


def faults(figures: StepFigures | None, slo: Objective, lag_p99_ms: float | None) -> list[str]:
    """Why a step is bad, in words; empty where it is good."""
    if figures is None:
        return ["nothing was answered"]
    found = slo.broken(figures.shares())
    if "grew" in figures.unsteady and figures.throughput < KEEPS_UP * figures.offered:
        found.append(f"{figures.unsteady}, and only {figures.throughput:.0f}/s were answered")
    if lag_p99_ms is not None and lag_p99_ms > LAG_LIMIT_MS:
        found.append(f"the generator itself was late by {lag_p99_ms:.0f} ms (p99)")
    return found
