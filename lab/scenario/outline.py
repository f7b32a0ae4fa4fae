"""What a run would do, as a table: every step with its moment, its nodes and its limits. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lab.faults import find
from lab.faults._base import traits
from lab.scenario.models import Step
from lab.scenario.plan import Plan, estimate_s, need_s
from lab.scenario.targets import candidates, fixed


@dataclass(frozen=True)
class Line:
    """One step."""

    step: int
    earliest_s: float
    """Seconds after the trial's moment of injection, if no wait takes any time."""
    latest_s: float
    """The same if every wait takes as long as it may."""
    does: str
    target: str | None = None
    nodes: tuple[str, ...] = ()
    """Those that it hits, or, where ``certain`` is False, may hit."""
    certain: bool = True
    healed: str = ""
    """When a fault is healed, in words."""
    watched_s: float | None = None
    """How long clients are watched after it, at least."""
    kind: str | None = None
    needs: tuple[str, ...] = ()


def outline(plan: Plan) -> list[Line]:
    """Every step of a plan."""
    lines: list[Line] = []
    earliest = latest = 0.0
    for number, step in enumerate(plan.scenario.steps, 1):
        earliest, latest = max(earliest, step.at or 0.0), max(latest, step.at or 0.0)
        if step.when:
            latest += step.within
        if step.fault:
            lines.append(_fault(plan, number, step, earliest, latest))
        elif step.until:
            when = f"when {step.when}, " if step.when else ""
            latest += step.within
            lines.append(
                Line(number, earliest, latest, f"{when}wait until {step.until}, at most {step.within:g} s")
            )
        else:
            span = "the window" if step.throughout == "window" else f"{step.throughout:g} s"
            lines.append(
                Line(number, earliest, latest, _when(step, f"assert {step.claim} throughout {span}"))
            )
    return lines


def _when(step: Step, text: str) -> str:
    return f"when {step.when} (at most {step.within:g} s): {text}" if step.when else text


def _fault(plan: Plan, number: int, step: Step, earliest: float, latest: float) -> Line:
    fault = find(str(step.fault))
    known = traits(fault)
    sure = fixed(step.target, plan.topology)
    healed = "after the window" if step.duration is None else f"after {step.duration:g} s"
    return Line(
        number,
        earliest,
        latest,
        _when(step, f"fault {fault.name}"),
        step.target,
        sure or candidates(step.target, plan.topology),
        bool(sure),
        "ends by itself" if known.ends_itself else healed,
        need_s(step, plan.topology),
        known.kind,
        tuple(fault.needs),
    )


def as_json(plan: Plan) -> dict[str, Any]:
    """The whole plan as a JSON document."""
    scenario = plan.scenario
    return {
        "scenario": scenario.name,
        "title": scenario.title,
        "topology": plan.topology.name,
        "seed": plan.seed,
        "trials": plan.trials,
        "injection_s": list(plan.phases_s),
        "load": scenario.load.model_dump(mode="json"),
        "steady_s": scenario.settle,
        "settle_within_s": scenario.settle_within,
        "window_s": plan.window_s,
        "longest_s": plan.longest_s,
        "redundant_within_s": scenario.recovery.redundant_within,
        "predicted": plan.predicted,
        "estimate_s": round(estimate_s(plan), 1),
        "ends_itself_after_s": round(plan.deadline_s, 1),
        "not_run": plan.not_run or None,
        "steps": [] if plan.not_run else [asdict(line) for line in outline(plan)],
    }
