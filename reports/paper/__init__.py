"""On paper: what arithmetic alone says of a topology and its promises, without a lab.

Each module of this package that defines ``RULE`` is a rule: it reckons figures from a topology and from what
the document states, and holds them against the promises (targets with ``method: on paper``) or against what
must hold whatever was promised. To add one, add a file: nothing else needs to change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lab.discovery import discover
from lab.topology.models import Topology
from reports.findings import Finding, Target, Verdict
from reports.judge import judge_finding
from reports.targets import Stated


@dataclass(frozen=True)
class Paper:
    """One environment as it is written down."""

    topology: Topology
    stated: Stated = field(default_factory=Stated)
    targets: tuple[Target, ...] = ()
    """The promises of this environment, whatever their method."""

    def promised(self, *metrics: str) -> tuple[Target, ...]:
        """Promises of these metrics."""
        return tuple(target for target in self.targets if target.metric in metrics)


@dataclass(frozen=True)
class Rule:
    """A rule: what it is called, the metrics that targets on paper may name (with their units), and how.

    ``run`` gives nothing where the rule does not apply to the topology.
    """

    id: str
    title: str
    metrics: Mapping[str, str]
    run: Callable[[Paper], list[Verdict]]


def rules() -> dict[str, Rule]:
    """Every rule by its id. Two of one id, or of one metric, are a programming error (ValueError)."""
    found = discover(__name__, "RULE", Rule, lambda rule: rule.id)
    owners: dict[str, str] = {}
    for rule in found.values():
        for metric in rule.metrics:
            if metric in owners:
                raise ValueError(f"{metric} comes from two rules: {owners[metric]} and {rule.id}")
            owners[metric] = rule.id
    return found


def units() -> dict[str, str | None]:
    """Every metric that a target on paper may name → its unit."""
    return {metric: unit for rule in rules().values() for metric, unit in rule.metrics.items()}


def check(paper: Paper) -> list[Verdict]:
    """What every rule says; and *not run* for promises on paper that none could answer."""
    found = [verdict for rule in rules().values() for verdict in rule.run(paper)]
    answered = {verdict.target.id for verdict in found}
    return found + [
        Verdict(
            target=target,
            status="not run",
            why="neither the topology nor what its targets file states has what the arithmetic needs",
        )
        for target in paper.targets
        if target.method == "on paper" and target.id not in answered
    ]


def paper_of(topology: Topology) -> Paper:
    """A topology with its system's promises. UsageError where the targets file is wrong."""
    from reports.targets import file_of

    # What runs yield is of no concern here, and takes seconds to import.
    file = file_of(topology.system, runs=False)
    if file is None:
        return Paper(topology)
    return Paper(
        topology,
        file.stated.get(topology.environment, Stated()),
        tuple(target for target in file.targets if target.concerns(topology.environment)),
    )


# What rules are made of


def holds(paper: Paper, finding: Finding) -> list[Verdict]:
    """Verdicts on the promises on paper of the finding's metric."""
    return [
        judge_finding(target, finding)
        for target in paper.promised(finding.metric)
        if target.method == "on paper"
    ]


def implied(target: Target, finding: Finding) -> Verdict:
    """The verdict on what a promise that is measured implies on paper, for the finding's own metric."""
    twin = target.model_copy(
        update={
            "id": f"{target.id} ({finding.metric})",
            "metric": finding.metric,
            "unit": finding.unit,
            "method": "on paper",
            "min_trials": 1,
            "scenarios": (),
            "proven_by": (),
        }
    )
    return judge_finding(twin, finding)


def required(paper: Paper, finding: Finding, comparison: str, limit: float, rule: str, place: str) -> Verdict:
    """The verdict on what must hold, whatever was promised.

    Args:
        rule: the sentence that stands where a promise has its quote.
        place: the field of the topology, or the source.
    """
    target = Target.model_validate(
        {
            "id": finding.metric, "quote": rule, "place": place, "metric": finding.metric,
            "comparison": comparison, "limit": limit, "unit": finding.unit, "method": "on paper",
            "environments": (paper.topology.environment,),
        }
    )  # fmt: skip
    return judge_finding(target, finding)


def figure(metric: str, unit: str, value: float, arithmetic: str) -> Finding:
    """A finding on paper: its evidence is the arithmetic."""
    return Finding(metric=metric, unit=unit, value=value, why=arithmetic)
