"""A finding against a target: the verdict.

- A finding without a figure, or one that must not be judged, is never green: it is *not run*, *invalid* or
  *inconclusive*, with the reason.
- A figure beyond the limit is *not met*, however few the trials: one counterexample is enough. So is an
  outage that did not end within a time that is already beyond the limit.
- *met* needs the worst trial within the limit and at least 3 trials (or as many as the target asks for, if
  more) where trials make the figure; with fewer it is *inconclusive*.
- A median over repeats is judged with its spread (the interval, or all values where there are too few for
  one): where that lies on both sides of the limit, the figure is *inconclusive*, whichever side the median is
  on.
- A run whose scenario can only refute a target never shows that it is met.
- *no outage* meets an RTO: trials count only where the fault was verified to be in effect.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reports.findings import Finding, Status, Target, Verdict

if TYPE_CHECKING:
    # Judging what is on paper takes none of the numerics behind these.
    from lab.record.schema import Manifest
    from reports.analysis.model import Analysis

LEAST_TRIALS = 3
HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
SIGNS = {"<": "<", "<=": "≤", ">": ">", ">=": "≥", "==": "="}


def judge(analysis: Analysis, target: Target) -> Verdict:
    """The verdict of a run on a target, naming stand-ins and substitutions.

    A target that does not name the run's scenario is *not run*: the same metric from another fault would
    answer another promise.
    """
    scenario = analysis.manifest.scenario
    if scenario not in target.scenarios:
        where = ", ".join(target.scenarios)
        why = f"scenario {scenario} does not test it; {f'tested by: {where}' if where else 'none does'}"
        if target.not_built:
            why = f"not built yet: {target.not_built}"
        return Verdict(target=target, status="not run", why=why)
    verdict = judge_finding(target, analysis.finding(target.metric))
    if verdict.status == "met" and target.proven_by and scenario not in target.proven_by:
        why = f"{verdict.why}; but {scenario} can only refute it: proven by {', '.join(target.proven_by)}"
        verdict = verdict.model_copy(update={"status": "inconclusive", "why": why})
    said = _stand_ins(target, analysis.manifest)
    return verdict.model_copy(update={"why": f"{verdict.why} ({said})"}) if said else verdict


def judge_finding(target: Target, finding: Finding | None) -> Verdict:
    """The verdict on one finding (None: the run yields none)."""
    status, why = _decide(target, finding)
    return Verdict(target=target, status=status, why=why, finding=finding)


def _decide(target: Target, finding: Finding | None) -> tuple[Status, str]:
    if finding is None:
        return "not run", f"no check of this run yields {target.metric}"
    if finding.metric != target.metric:
        return "invalid", f"the finding is of {finding.metric}, the target of {target.metric}"
    if finding.unit != target.unit:
        return "invalid", f"the figure is in {finding.unit}, the target in {target.unit}"
    if finding.status in ("invalid", "not run"):
        return finding.status, finding.why or "no reason was given"
    at_least = finding.detail.get("at_least")
    if finding.value is None and isinstance(at_least, (int, float)) and _beyond(at_least, target):
        return "not met", f"at least {_show(at_least, target)}, promised {_limit(target)}: {finding.why}"
    if finding.status == "inconclusive":
        return "inconclusive", finding.why or "no reason was given"
    trials = finding.detail.get("trials")
    needed = max(LEAST_TRIALS, target.min_trials)
    enough = not isinstance(trials, int) or trials >= needed
    if finding.value is None:
        return _without_value(target, finding, trials, needed)
    if not all(math.isfinite(number) for number in (finding.value, *finding.samples)):
        return "inconclusive", "the figure is not a number"
    worst = f" in the worst of {trials} trial{'s' if trials != 1 else ''}" if isinstance(trials, int) else ""
    figure = f"{_show(finding.value, target)}{worst}, promised {_limit(target)}"
    if (spread := _straddles(finding, target)) is not None:
        return "inconclusive", "; ".join(filter(None, [f"{figure}, but {spread}", finding.why]))
    if not HOLDS[target.comparison](finding.value, target.limit):
        return "not met", "; ".join(filter(None, [figure, finding.why]))
    if not enough:
        return "inconclusive", f"{figure}, but it takes {needed} trials to say that it is met"
    said = _strength(trials) if isinstance(trials, int) else ""
    return "met", "; ".join(filter(None, [figure, said, finding.why]))


def _without_value(target: Target, finding: Finding, trials: Any, needed: int) -> tuple[Status, str]:
    calm = finding.detail.get("no_outage")
    if not isinstance(trials, int) or calm != trials or not trials or target.comparison not in ("<", "<="):
        return "inconclusive", finding.why or "there is no figure"
    said = f"no outage was seen in {trials} trial{'s' if trials != 1 else ''} with the fault verified"
    if trials < needed:
        return "inconclusive", f"{said}, but it takes {needed} trials to say that it is met"
    return "met", f"{said}; {_strength(trials)}"


def _straddles(finding: Finding, target: Target) -> str | None:
    """How far a median over repeats is uncertain, where that leaves the verdict open; None: it does not."""
    repeats = finding.detail.get("repeats")
    if not isinstance(repeats, int) or not (finding.interval or finding.samples):
        return None
    low, high = finding.interval or (min(finding.samples), max(finding.samples))
    holds = HOLDS[target.comparison]
    if holds(low, target.limit) == holds(high, target.limit):
        return None
    share = (
        f"the {finding.confidence:.0%} interval" if finding.interval and finding.confidence else "the range"
    )
    return f"{share} of {repeats} repeats is {_show(low, target)} to {_show(high, target)}"


def _strength(trials: int) -> str:
    from reports.analysis.trials import strength

    return strength(trials)


def _beyond(at_least: float, target: Target) -> bool:
    """Whether something that is at least so great can no longer be within the limit."""
    if target.comparison == "<":
        return at_least >= target.limit
    return target.comparison == "<=" and at_least > target.limit


def _stand_ins(target: Target, manifest: Manifest) -> str:
    said: list[str] = []
    if target.method != "measured":
        said.append(target.method)
    if target.stand_in:
        said.append(f"stand-in: {target.stand_in}")
    said += [f"substituted: {one}" for one in manifest.substitutions]
    return "; ".join(said)


def _show(value: float, target: Target) -> str:
    text = f"{value:,.3f}".rstrip("0").rstrip(".")
    return text if target.unit == "1" else f"{text} {target.unit}"


def _limit(target: Target) -> str:
    return f"{SIGNS[target.comparison]} {_show(target.limit, target)}"
