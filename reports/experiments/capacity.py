"""What a lab carries within an objective, what ends it, until when it lasts, and what then.

- *knee*: the greatest offered rate at which most steps kept the objective, below every rate that did not; the
  range goes up to the least bad rate. The generator, the machine or the users as the constraint make it a
  lower bound.
- *carried*, for forecast and options: the model's knee with instance classes at full size where the model was
  shown to reproduce the lab up to its knee (± the larger of 15 % and its error there); else the measured
  knee, which is that of the lab at its scale.
- *headroom* = 1 − λ_now ÷ the lower bound of what is carried.
- *Little's law*: mean requests under way, counted at 2,001 moments, against throughput × mean service time. A
  step that is off by more than 5 % is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from lab.errors import LabError, RecordError
from lab.record.reader import RecordReader
from reports.capacity import sections
from reports.capacity.answer import knee as model_knee
from reports.capacity.calibrate import Calibration, calibrate
from reports.capacity.constraint import Constraint, binding
from reports.capacity.growth import Growth, Reached, headroom, month_of, reached
from reports.capacity.loads import loads
from reports.capacity.options import Option, options, recommended
from reports.capacity.scalability import Fit, fit
from reports.capacity.sections import EVIDENCE, Carried
from reports.capacity.signals import THRESHOLD, Signal, decided, signals
from reports.capacity.steps import Run, read_run
from reports.capacity.validate import BOUND, Validation, validate
from reports.capacity.whatif import on_paper
from reports.experiments import Experiment, Outcome
from reports.findings import Finding
from reports.view import Headline, number


def analyse(record: RecordReader) -> Outcome:
    """Read, model, and write it down."""
    run = read_run(record)
    rows = loads(run)
    constraint = binding(rows)
    calibration, why = _try(lambda: calibrate(record))
    validation, unproven = _try(lambda: validate(run, calibration)) if calibration else (None, why)
    law, unfitted = _try(lambda: _law(run))
    growth, now = _growth(record)
    noticed = signals(rows, run.knee[0]) if run.knee[0] else []
    carried = _carried(run, calibration, validation)
    when = reached(growth, carried.low, (carried.low, carried.high)) if growth and carried else None
    choices = (
        options(calibration, run.slo, (carried.low, carried.high), growth) if calibration and carried else []
    )
    return Outcome(
        findings=_findings(run, constraint, law, carried, now, noticed),
        lead=_lead(run, constraint, carried, growth, when, choices),
        headlines=_headlines(run, constraint, law, carried, now, growth, when),
        sections=tuple(
            section
            for section in (
                sections.curve(run, constraint, validation),
                sections.law(law, unfitted),
                sections.resources(rows, constraint),
                sections.forecast(growth, when, carried, now),
                sections.scaling(noticed, constraint, run.knee[0], growth),
                sections.capacity_units(calibration, growth),
                sections.options(choices, growth, calibration, carried),
                sections.model(validation, unproven, calibration),
                sections.scale(run, calibration),
            )
            if section is not None
        ),
    )


def _try(make: Any) -> tuple[Any, str]:
    """A part that cannot be had is left out, and the report says why."""
    try:
        return make(), ""
    except LabError as error:
        return None, str(error)


def _law(run: Run) -> Fit:
    return fit([float(s.users or 0) for s in run.closed], [s.figures.throughput for s in run.closed])


def _growth(record: RecordReader) -> tuple[Growth | None, float | None]:
    told = record.json("growth.json")
    now = (record.manifest.load or {}).get("now")
    if told is None:
        return None, float(now) if now else None
    try:
        growth = Growth.model_validate(told)
    except ValidationError as error:
        raise RecordError(
            f"{record.path / 'growth.json'} cannot be read: {error.errors()[0]['msg']}"
        ) from error
    return growth, growth.now


def _carried(run: Run, calibration: Calibration | None, validation: Validation | None) -> Carried | None:
    good, bad = run.knee
    if good is None:
        return None
    error = validation.knee_error if validation else None
    if calibration and validation and error is not None and (validation.shown_to or 0) >= good:
        paper = on_paper(calibration)
        found, _ = model_knee(paper.system, calibration.demands, run.slo)
        if found:
            off = max(BOUND, abs(error))
            return Carried(
                found * (1 - off),
                found * (1 + off),
                "the model, instance classes at full size",
                modelled=True,
            )
    return Carried(
        good, bad if bad is not None else good, f"measured, at scale {number(run.record.manifest.scale)}"
    )


def _lead(
    run: Run,
    constraint: Constraint,
    carried: Carried | None,
    growth: Growth | None,
    when: Reached | None,
    choices: Sequence[Option],
) -> str:
    good, bad = run.knee
    if good is None or carried is None:
        return f"No rate that was offered kept {run.slo.text}: {_first_why(run)}."
    at_least = "at least " if constraint.lower_bound or bad is None else ""
    said = f"On this machine, at scale {number(run.record.manifest.scale)}, it carries {at_least}"
    said += f"{number(good)} requests/s within {run.slo.text}; what ends it: "
    said += f"{constraint.name} ({constraint.evidence})."
    if growth is None or when is None:
        return said + " No growth was given, so that there is no forecast (--growth)."
    said += f" {_until(growth, when, carried)}"
    best = recommended(list(choices))
    if best is not None:
        cost = f" for {best.cost:,.0f} $ a month in all" if best.cost is not None else ""
        until = f", which lasts until {month_of(growth, best.reached.earliest)}" if best.reached else ""
        return said + f" Then: {best.name}{cost}{until} (extrapolated)."
    base = next((option for option in choices if not option.words), None)
    cost = f"; it costs {base.cost:,.0f} $ a month" if base and base.cost is not None else ""
    return said + (
        f" Nothing has to be done within a year{cost}." if choices else " The model cannot rate options."
    )


def _until(growth: Growth, when: Reached, carried: Carried) -> str:
    """The second sentence: when the load reaches what is carried."""
    range_ = f"{number(carried.low)} to {number(carried.high)}/s"
    said = f"With the instance classes at full size the model expects {range_}: " if carried.modelled else ""
    if when.already:
        return (
            f"{said}{number(growth.now)}/s now is more than {number(carried.low)}/s, so that it runs out now."
        )
    said += f"{number(growth.now)}/s now, growing by {100 * growth.monthly:.1f} % a month, "
    if when.earliest is None:
        return f"{said}does not reach that within ten years."
    first, last = month_of(growth, when.earliest), month_of(growth, when.latest)
    return f"{said}runs out {f'in {first}' if first == last else f'between {first} and {last}'}."


def _first_why(run: Run) -> str:
    step = run.open[0] if run.open else None
    return ", ".join(step.why) if step and step.why else "no open-loop step was measured"


def _findings(
    run: Run,
    constraint: Constraint,
    law: Fit | None,
    carried: Carried | None,
    now: float | None,
    noticed: Sequence[Signal],
) -> tuple[Finding, ...]:
    good, bad = run.knee
    detail: dict[str, Any] = {
        "slo": run.slo.text,
        "constraint": constraint.name,
        "evidence": constraint.evidence,
        "lower_bound": constraint.lower_bound,
        "pace": run.pace,
        "knee_over_pace": run.normalised,
    }
    found = [
        Finding(
            metric="capacity.knee",
            unit="1/s",
            value=good,
            interval=(good, bad) if good is not None and bad is not None else None,
            status=None if good is not None else "inconclusive",
            why="" if good is not None else f"no rate kept the objective: {_first_why(run)}",
            evidence=EVIDENCE,
            detail=detail,
        )
    ]
    if now is not None:
        share = 100 * headroom(now, carried.low) if carried else None
        found.append(
            Finding(
                metric="capacity.headroom",
                unit="%",
                value=share,
                status=None if share is not None else "inconclusive",
                why="" if share is not None else "no rate kept the objective",
                evidence=EVIDENCE,
                detail={"now_per_s": now, "carried": vars(carried) if carried else None},
            )
        )
    if law is not None and law.law.peak is not None:
        found.append(
            Finding(
                metric="capacity.peak", unit="1/s", value=law.law.peak, interval=law.interval("peak"),
                status=None if law.describes else "inconclusive",
                why="" if law.describes else f"the law explains little of it: R² {law.r_squared:.2f}",
                confidence=0.95, evidence=EVIDENCE,
                detail={"alpha": law.law.alpha, "beta": law.law.beta, "gamma": law.law.gamma,
                        "at": law.law.peak_at},
            )
        )  # fmt: skip
    if noticed:
        found.append(_signal(noticed, constraint))
    return tuple(found)


def _signal(noticed: Sequence[Signal], constraint: Constraint) -> Finding:
    """Automatic scaling on paper: the strongest signal at the knee, of its threshold."""
    most = max(noticed, key=lambda one: one.knee)
    share = 100 * most.knee / THRESHOLD
    unknown = not decided(noticed, constraint)
    return Finding(
        metric="capacity.signal", unit="%", value=share,
        status="inconclusive" if unknown else None,
        why=f"no limit that a full-size database has ended it: {constraint.name}" if unknown else "",
        evidence=EVIDENCE,
        detail={"threshold": THRESHOLD, "signals": {one.name: vars(one) for one in noticed}},
    )  # fmt: skip


def _headlines(
    run: Run,
    constraint: Constraint,
    law: Fit | None,
    carried: Carried | None,
    now: float | None,
    growth: Growth | None,
    when: Reached | None,
) -> tuple[Headline, ...]:
    good, bad = run.knee
    rows = [
        Headline(
            "Carries",
            f"{'≥ ' if constraint.lower_bound and good else ''}{number(good)} /s",
            f"first bad: {number(bad)} /s; {run.slo.text}",
            "" if good is not None else "bad",
            EVIDENCE,
        ),
        Headline(
            "Ended by", constraint.name, constraint.evidence, "unsure" if constraint.lower_bound else ""
        ),
    ]
    if now is not None and carried is not None:
        share = headroom(now, carried.low)
        rows.append(
            Headline(
                "Headroom", f"{100 * share:.0f} %", f"{number(now)} /s now", "good" if share > 0 else "bad"
            )
        )
    if growth is not None and when is not None:
        rows.append(Headline("Runs out", "now" if when.already else month_of(growth, when.earliest),
                             f"at the latest {month_of(growth, when.latest)}"))  # fmt: skip
    if law is not None and law.describes:
        peak = f"{number(law.law.peak)} /s" if law.law.peak is not None else "none"
        detail = (
            f"at {number(law.law.peak_at)} under way"
            if law.law.peak_at is not None
            else "throughput does not fall"
        )
        rows.append(Headline("Peak by the law", peak, detail))
    return tuple(rows)


EXPERIMENT = Experiment(
    "capacity", ("capacity.knee", "capacity.headroom", "capacity.signal", "capacity.peak"), analyse
)
