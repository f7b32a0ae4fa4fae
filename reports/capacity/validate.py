"""Model against lab: the open-loop steps of a capacity run, each simulated as the lab ran it.

Every point has an error for throughput, p50, p95, p99 and pool wait: (model − lab) ÷ lab; the wait's is of
the mean response, since a wait that is next to nothing has no ratio worth telling. A point is *shown* where
throughput, p50, p95 and wait lie within the bound: the larger of 15 % and the lab's own spread between
repeats of that rate. Where the record tells the machine's pace, each step is simulated at its own. What lies
beyond the last rate up to which all points are shown is *extrapolated*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab.errors import UsageError
from reports.capacity.answer import Point, knee, point
from reports.capacity.calibrate import Calibration
from reports.capacity.simulator import simulate
from reports.capacity.steps import Run, Step
from reports.capacity.system import Demand, System, Traffic

LEAST_LOADS = 6
BOUND = 0.15
LEAST_REQUESTS = 2000
FIGURES = ("throughput", "p50", "p95", "p99", "wait")
JUDGED = ("throughput", "p50", "p95", "wait")


@dataclass(frozen=True)
class Compared:
    """One rate. Lab and model: times in ms, throughput per second; None where the lab could not tell."""

    rate: float
    calibrated: bool
    """The model's service times come from this rate."""
    lab: dict[str, float | None]
    model: dict[str, float | None]
    error: dict[str, float | None]
    bound: dict[str, float]
    """What each error is held against."""

    @property
    def shown(self) -> bool:
        """Whether the model is shown to predict this point; what the lab cannot tell shows nothing."""
        return all((e := self.error[n]) is not None and abs(e) <= self.bound[n] for n in JUDGED)


@dataclass(frozen=True)
class Validation:
    """Every rate, and how far the model is shown to hold."""

    points: tuple[Compared, ...]
    shown_to: float | None
    """The greatest rate up to which every point is shown; None: not even the least."""
    lab_knee: tuple[float | None, float | None]
    model_knee: float | None

    @property
    def knee_error(self) -> float | None:
        """Against the middle of the lab's bracket."""
        low, high = self.lab_knee
        if low is None or self.model_knee is None:
            return None
        middle = low if high is None else (low * high) ** 0.5
        return self.model_knee / middle - 1


def validate(run: Run, calibration: Calibration) -> Validation:
    """Simulate every rate of the run. UsageError with fewer than six."""
    rates = sorted({step.rate for step in run.open if step.rate})
    if len(rates) < LEAST_LOADS:
        raise UsageError(
            f"a validation needs at least {LEAST_LOADS} loads, and {run.record.path} has {len(rates)}",
            hint="`lab capacity --precision 0.03` measures more of them.",
        )
    points = tuple(_compare([s for s in run.open if s.rate == rate], rate, calibration) for rate in rates)
    shown = None
    for one in points:
        if not one.shown:
            break
        shown = one.rate
    return Validation(points, shown, run.knee, knee(calibration.system, calibration.demands, run.slo)[0])


def _compare(steps: Sequence[Step], rate: float, calibration: Calibration) -> Compared:
    of_lab = [_lab(step) for step in steps]
    lab = {name: _mean([one[name] for one in of_lab]) for name in FIGURES}
    model = _model(steps, rate, calibration)
    error: dict[str, float | None] = {}
    bound: dict[str, float] = {}
    for name in FIGURES:
        mine, theirs = model[name], lab[name]
        scale = _mean([step.figures.response["mean"] for step in steps]) if name == "wait" else theirs
        known = mine is not None and theirs is not None and scale
        error[name] = (
            (mine - theirs) / scale if known and mine is not None and theirs is not None and scale else None
        )
        values = [v for one in of_lab if (v := one[name]) is not None]
        spread = (max(values) - min(values)) / scale if len(values) > 1 and scale else 0.0
        bound[name] = max(BOUND, spread)
    return Compared(rate, rate in calibration.rates, lab, model, error, bound)


def _lab(step: Step) -> dict[str, float | None]:
    grown = {name: step.per_second(name) for name in ("pgb_wait_time", "pgb_assignment", "pgb_xact")}
    count = grown["pgb_assignment"] or grown["pgb_xact"]
    wait = 1000 * grown["pgb_wait_time"] / count if grown["pgb_wait_time"] is not None and count else None
    response = step.figures.response
    return {
        "throughput": step.figures.throughput,
        "wait": wait,
        **{name: response[name] for name in ("p50", "p95", "p99")},
    }


def _model(steps: Sequence[Step], rate: float, calibration: Calibration) -> dict[str, float | None]:
    """Each step with as many requests as it had, since overload grows with time; more seeds where few."""
    found: list[Point] = []
    for step in steps:
        count = max(100, round(rate * step.seconds))
        seeds = max(1, -(-LEAST_REQUESTS * 5 // count // len(steps)))
        system, demands = _at_pace(calibration, step.pace)
        for seed in range(1, seeds + 1):
            outcome = simulate(system, Traffic(demands, count, rate, seed=step.cell + 100 * seed))
            found.append(point(system, demands, outcome, rate))
    names = ("p50", "p95", "p99")
    return {
        "throughput": _mean([one.throughput for one in found]),
        "wait": _mean([one.wait for one in found]),
        **{name: _mean([one.response[name] for one in found]) for name in names},
    }


def _at_pace(calibration: Calibration, pace: float | None) -> tuple[System, tuple[Demand, ...]]:
    """The model on a machine of another pace: all that takes time takes so much longer."""
    if pace is None or calibration.pace is None:
        return calibration.system, calibration.demands
    slower = calibration.pace / pace
    return (
        replace(calibration.system, machine_cpu=slower * calibration.system.machine_cpu),
        tuple(replace(d, service=slower * d.service) for d in calibration.demands),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
