"""Parts of the capacity report, each from the values that the analysis made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.topology.instances import ACU_PRICE
from reports.analysis.little import LEAST
from reports.analysis.little import law as hold
from reports.analysis.model import Little
from reports.capacity import pictures
from reports.capacity.calibrate import Calibration
from reports.capacity.constraint import Constraint, Load
from reports.capacity.cost import dated
from reports.capacity.growth import Growth, Reached, headroom, month_of
from reports.capacity.options import Option, recommended, units
from reports.capacity.scalability import Fit
from reports.capacity.signals import THRESHOLD, Signal, decided
from reports.capacity.steps import Run, Step
from reports.capacity.validate import FIGURES, Validation
from reports.capacity.whatif import ASSUMES
from reports.experiments import Section, Table
from reports.view import number

PACE_HOLDS = 0.20
"""Change of the machine's pace during a run that the report warns of."""
EVIDENCE = ("requests.parquet", "cells.parquet", "metrics.parquet")


@dataclass(frozen=True)
class Carried:
    """What forecast and options count with, requests per second."""

    low: float
    high: float
    source: str
    modelled: bool = False
    """Whether it is the model's, and not the lab's."""


def curve(run: Run, constraint: Constraint, validation: Validation | None) -> Section:
    head = ("offered /s", "repeat", "answered /s", "p50 ms", "p95 ms", "p99 ms", "service p99 ms", "errors",
            "dropped", "warm-up s", "L ÷ XR", "verdict")  # fmt: skip
    rows, tones = [], []
    for step in run.open:
        f = step.figures
        rows.append(
            (
                number(step.rate), str(step.repeat), number(f.throughput),
                *(number(f.response[p]) for p in ("p50", "p95", "p99")), number(f.service["p99"]),
                f"{100 * f.errors:.2f} %", f"{100 * f.dropped:.2f} %", number(f.warm_up_s), _little(step),
                _verdict(step),
            )
        )  # fmt: skip
        tones.append(("",) * (len(head) - 1) + ("good" if step.good else "bad",))
    text = [
        f"Open loop: response counts from the intended start. A step is good where {run.slo.text} holds, no "
        "backlog grows, and the generator kept its schedule.",
        f"What ends it: {constraint.name}. {constraint.evidence[:1].upper()}{constraint.evidence[1:]}.",
    ]
    if constraint.lower_bound:
        text.append("So the figure is a lower bound: the system itself may carry more.")
    if constraint.also:
        text.append(f"Also under pressure: {'; '.join(constraint.also)}.")
    off = [s for s in run.steps if (found := little(s)) is not None and not found.holds]
    if off:
        text.append(
            f"Little's law is off by more than 5 % in {len(off)} of {len(run.steps)} steps: their figures do "
            "not fit together."
        )
    drawings = (pictures.curves(run.open, run.slo, run.knee, validation),) if run.open else ()
    return Section(
        "load", "Throughput and latency against load", tuple(text), drawings,
        (Table(head, tuple(rows), frozenset(range(11)), tones=tuple(tones)),), EVIDENCE,
    )  # fmt: skip


def _verdict(step: Step) -> str:
    unsteady = step.figures.unsteady
    said = ["good"] if step.good else list(step.why)
    if unsteady and not any(unsteady in text for text in said):
        said.append(unsteady)
    return "; ".join(said)


def little(step: Step) -> Little | None:
    """Little's law in a step: requests under way as counted, against what rate and residence make of them."""
    f = step.figures
    if f.concurrency is None or not f.residence_ms or f.requests < LEAST:
        return None
    started = f.requests * (1 - f.dropped)
    rate = started / max((f.end - f.begin) / 1e9, 1e-9)
    return hold(f.concurrency, rate, f.residence_ms / 1000)


def _little(step: Step) -> str:
    found = little(step)
    return "–" if found is None else f"{found.in_flight / (found.rate * found.service_s):.3f}"


def law(found: Fit | None, why: str) -> Section:
    title = "Scalability: closed loop over rising concurrency"
    if found is None:
        return Section("law", title, (f"Not fitted: {why}.",))

    def said(name: str) -> tuple[str, str, str]:
        value, interval = getattr(found.law, name), found.interval(name)
        return (
            name,
            number(value),
            "–" if interval is None else f"{number(interval[0])} to {number(interval[1])}",
        )

    names = {"alpha": "contention α", "beta": "coherency β", "gamma": "one client γ, 1/s",
             "peak": "peak, 1/s",
             "peak_at": "peak at N", "limit": "limit γ/α, 1/s"}  # fmt: skip
    rows = tuple((label, *said(name)[1:]) for name, label in names.items())
    text: tuple[str, ...] = (
        "X(N) = γN / (1 + α(N − 1) + βN(N − 1)), bounded least squares with a bootstrap of the residuals "
        f"(R² {found.r_squared:.3f}).",
    )
    if not found.describes:
        text += ("It explains too little of what was measured: its figures say nothing of this lab.",)
    return Section(
        "law", title, text, (pictures.law(found),),
        (Table(("", "value", "95 % interval"), rows, frozenset({1, 2})),), EVIDENCE,
    )  # fmt: skip


def resources(rows: Sequence[Load], constraint: Constraint) -> Section | None:
    if not rows:
        return None

    def share(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.0f} %"

    nodes = ("offered /s", "primary CPU", "held back", "replica CPU", "connections", "machine",
             "beside, cores", "generator", "lag ms")  # fmt: skip
    inside = ("offered /s", "pools in use", "pool wait ms", "WAL KB/s", "read KB/s", "written KB/s",
              "replay lag s", "cache hits", "waits for")  # fmt: skip
    of_nodes, of_inside = [], []
    for load in rows:
        waits = sorted(((n, v) for n, v in load.waits.items() if n != "CPU"), key=lambda item: -item[1])[:2]
        of_nodes.append(
            (
                number(load.rate), share(load.primary_cpu), share(load.primary_throttled),
                share(load.replica_cpu), share(load.connections), share(load.machine), number(load.beside),
                share(load.generator_cpu), number(load.generator_lag),
            )
        )  # fmt: skip
        of_inside.append(
            (
                number(load.rate),
                "; ".join(f"{n} {share(v)}" for n, v in sorted(load.pools.items())) or "–",
                _worst(load.pool_wait), _kb(load.wal_bytes), _kb(load.io_read), _kb(load.io_write),
                number(load.replay_lag_s), share(load.cache_hit),
                "; ".join(f"{n} {v:.1f}" for n, v in waits) or "–",
            )
        )  # fmt: skip
    note = (
        "WAL, read (into shared buffers) and written (to block devices; – where the kernel does not count "
        "it): the primary's. Waits: mean sampled active sessions of the primary by event. Beside: CPU used "
        "by nothing of the lab."
    )
    return Section(
        "resources", f"Resources at each step (what binds: {constraint.name})", (),
        (pictures.utilisation(rows),),
        (
            Table(nodes, tuple(of_nodes), frozenset(range(len(nodes)))),
            Table(inside, tuple(of_inside), frozenset(range(8)) - {1}, note),
        ),
        EVIDENCE,
    )  # fmt: skip


def _worst(waits: dict[str, float]) -> str:
    return number(max(waits.values())) if waits else "–"


def _kb(value: float | None) -> str:
    return "–" if value is None else number(value / 1024)


def forecast(
    growth: Growth | None, when: Reached | None, carried: Carried | None, now: float | None
) -> Section:
    title = "Until when"
    if carried is None:
        return Section("forecast", title, ("No rate kept the objective, so that it is too much already.",))
    if growth is None or when is None:
        room = f" Headroom over {number(now)}/s: {100 * headroom(now, carried.low):.0f} %." if now else ""
        return Section(
            "forecast", title, (f"No growth was given: `lab capacity --growth 5% --now 300`.{room}",)
        )
    rows = [
        ("load now", f"{number(growth.now)} /s"),
        ("growth a month", f"{100 * growth.monthly:.2f} % ({growth.method})"),
        ("carried", f"{number(carried.low)} to {number(carried.high)} /s ({carried.source})"),
        ("headroom", f"{100 * headroom(growth.now, carried.low):.0f} %"),
        ("reached at the earliest", "now" if when.already else month_of(growth, when.earliest)),
        ("expected", month_of(growth, when.expected)),
        ("at the latest", month_of(growth, when.latest)),
    ]
    return Section(
        "forecast", title, growth.notes, (pictures.forecast(growth, when, (carried.low, carried.high)),),
        (Table(("", ""), tuple(rows)),), ("growth.json",),
    )  # fmt: skip


def options(
    choices: Sequence[Option], growth: Growth | None, calibration: Calibration | None, carried: Carried | None
) -> Section:
    title = "What then"
    if not choices or calibration is None or carried is None:
        return Section("options", title, ("The model could not be calibrated, so that it rates no option.",))
    best = recommended(list(choices)) if growth else None
    rows, tones = [], []
    for option in choices:
        when = option.reached
        rows.append(
            (
                option.name,
                f"× {option.ratio:.2f}",
                number(option.carries),
                _between(growth, when),
                "–" if option.cost is None else f"{option.cost:,.0f}",
                option.words or "–",
            )
        )
        tones.append(("good" if option is best else "",) + ("",) * 5)
    text = [
        "Simulated: each option's knee relative to that of the topology as it is, instance classes at full "
        "size. Every row but the first is extrapolated.",
        f"Costs are instances alone, primary, standbys and replicas, on demand, 730 h a month: {dated()}. "
        "Pool and instances of the application cost nothing here, a cache its own instance.",
    ]
    head = ("option", "knee", "carries /s", "runs out", "$ a month", "--what-if")
    return Section(
        "options",
        title,
        tuple(text),
        (),
        (Table(head, tuple(rows), frozenset({1, 2, 4}), tones=tuple(tones)),),
    )


def _between(growth: Growth | None, when: Reached | None) -> str:
    if growth is None or when is None:
        return "–"
    return f"{month_of(growth, when.earliest)} to {month_of(growth, when.latest)}"


def scaling(
    found: Sequence[Signal], constraint: Constraint, knee: float | None, growth: Growth | None
) -> Section | None:
    """Automatic scaling on paper; None where no signal was sampled at the knee."""
    if not found or not knee:
        return None
    rows, tones = [], []
    for one in found:
        ahead = "–"
        if one.noticed is not None and growth is not None and growth.monthly > 0:
            ahead = number(math.log(knee / one.noticed) / math.log1p(growth.monthly))
        rows.append(
            (
                one.name, f"{100 * one.least:.0f} %", f"{100 * one.knee:.0f} %",
                "not before the knee" if one.noticed is None else number(one.noticed), ahead,
            )
        )  # fmt: skip
        tones.append(("", "", "", "good" if one.noticed is not None else "bad", ""))
    timely = [one for one in found if one.noticed is not None]
    if timely:
        first = min(timely, key=lambda one: one.noticed or 0.0)
        said = (
            f"Yes: {first.name} stands at {100 * THRESHOLD:.0f} % from {number(first.noticed)}/s on, "
            f"the knee is at {number(knee)}/s."
        )
    else:
        most = max(found, key=lambda one: one.knee)
        said = f"No: at the knee the most used, {most.name}, stands at {100 * most.knee:.0f} %."
        if not decided(found, constraint):
            said = f"Not known: no limit that a full-size database has ended it ({constraint.name})."
    text = (
        said,
        f"A rule that adds capacity at {100 * THRESHOLD:.0f} % (assumed: the same of each limit) helps if a "
        "signal gets there below the knee. CPU is that of the lab's limits.",
    )
    head = (
        "signal",
        "at the least rate",
        "at the knee",
        "above the threshold from, /s",
        "months before the knee",
    )
    return Section(
        "scaling", "Would scaling on CPU and connections notice in time?", text, (),
        (Table(head, tuple(rows), frozenset({1, 2, 3, 4}), tones=tuple(tones)),), EVIDENCE,
    )  # fmt: skip


def capacity_units(calibration: Calibration | None, growth: Growth | None) -> Section | None:
    """Of a serverless topology; None of any other, and without growth."""
    if calibration is None or growth is None or calibration.acu is None:
        return None
    most = calibration.acu.maximum
    rows, tones = [], []
    for one in units(calibration, growth):
        said = [
            f"{count} × {number(needed) if needed else 'more than there is'}" for _, count, needed in one.each
        ]
        beyond = any(needed is None or needed > most for _, _, needed in one.each)
        rows.append(
            (
                month_of(growth, float(one.months)), number(one.rate), *said,
                "–" if one.cost is None else f"{one.cost:,.0f}",
                f"beyond {number(most)}: scales no further" if beyond else "within the topology's range",
            )
        )  # fmt: skip
        tones.append(("",) * (len(rows[-1]) - 1) + ("bad" if beyond else "good",))
    who = [name for name, _, _ in units(calibration, growth, (0,))[0].each]
    text = (
        "By CPU: requests/s × CPU seconds a request, at 70 % of 0.25 vCPU an ACU, in steps of 0.5; memory "
        f"and connections are not looked at. {number(calibration.acu.minimum)} to {number(most)} ACU are "
        f"configured; the cost is that of holding them all month at {ACU_PRICE} $ an ACU-hour ({dated()}). "
        "Extrapolated.",
    )
    head = ("month", "requests/s", *(f"ACU of the {name}" for name in who), "$ a month", "")
    return Section(
        "units", "Aurora capacity units as the load grows", text, (),
        (Table(head, tuple(rows), frozenset(range(1, len(head) - 1)), tones=tuple(tones)),),
    )  # fmt: skip


def model(validation: Validation | None, why: str, calibration: Calibration | None) -> Section:
    title = "Is the model right? Model against lab"
    if validation is None or calibration is None:
        return Section("model", title, (f"Not validated: {why}. What the model says is extrapolated.",))
    rows, tones = [], []
    for one in validation.points:
        cells = [f"{number(one.lab[n])} → {number(one.model[n])} ({_percent(one.error[n])})" for n in FIGURES]
        verdict = "shown" if one.shown else "extrapolated"
        rows.append((number(one.rate), *cells, "yes" if one.calibrated else "", verdict))
        tones.append(("",) * (len(FIGURES) + 2) + ("good" if one.shown else "unsure",))
    shown = (
        f"Shown to predict up to {number(validation.shown_to)} /s."
        if validation.shown_to
        else "Not shown to predict any rate."
    )
    knee = (
        f" Its knee is {number(validation.model_knee)} /s, {_percent(validation.knee_error)} off the lab's."
        if validation.knee_error is not None
        else ""
    )
    text = (
        "Lab → model (error). Throughput, p50, p95 and pool wait have to lie within the larger of 15 % and "
        f"the lab's own spread between repeats. {shown}{knee}",
        *calibration.notes,
    )
    head = (
        "offered /s",
        "throughput /s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "pool wait ms",
        "calibrated from",
        "",
    )
    return Section(
        "model",
        title,
        text,
        (),
        (Table(head, tuple(rows), frozenset(range(6)), tones=tuple(tones)),),
        EVIDENCE,
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.0f} %"


def scale(run: Run, calibration: Calibration | None) -> Section:
    head = run.record.manifest
    machine = head.machine
    text = [
        f"Measured on {machine.get('cores', '?')} cores ({machine.get('cpu_model', 'unknown CPU')}), "
        f"instance classes scaled by {number(head.scale)}: CPU and memory are scaled, counts such as "
        "connections are not. Absolute figures are this machine's.",
        f"From here to the instance class the model assumes that {'; '.join(ASSUMES)}.",
    ]
    if calibration is not None:
        text.append(
            f"The model is calibrated at {', '.join(number(rate) for rate in calibration.rates)} requests/s."
        )
    if run.pace:
        text.append(_pace(run))
    return Section("scale", "Machine, scale, and what scaling assumes", tuple(text))


def _pace(run: Run) -> str:
    """The machine's pace, and how far it held."""
    low, middle, high = (float(x) for x in np.percentile(run.pace, (10, 50, 90)))
    said = (
        "The machine's pace, in samples that a collector takes per second of its CPU (always the same work): "
        f"{number(middle)} (median of the steps; 10th and 90th percentile {number(low)} and {number(high)})"
    )
    if run.normalised is not None:
        said += (
            f"; knee ÷ pace = {number(run.normalised)}, by which runs of a machine whose pace changes can be "
            "compared"
        )
    if high > (1 + PACE_HOLDS) * low:
        said += (
            f". The machine's pace changed by {100 * (high / low - 1):.0f} % meanwhile: measure again on a "
            "quiet machine"
        )
    return said + "."
