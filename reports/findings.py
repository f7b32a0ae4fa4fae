"""The words between analysis, judgement and report.

record ──analyse──▶ Finding ──judge(target)──▶ Verdict
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["met", "not met", "inconclusive", "not run", "invalid"]
Method = Literal["measured", "scaled", "simulated", "on paper"]


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Value):
    """What the analysis found for one metric.

    ``value`` is None where nothing could be found, and ``why`` says why. ``status`` is set by the
    analysis where the finding must not be judged: invalid (why), not run (why), inconclusive (why).
    """

    metric: str
    """Id such as ``rto.write`` (see docs/measurement.md)."""
    unit: str
    value: float | None
    """The figure that is judged: the worst trial for outages, the mean or percentile otherwise."""
    samples: tuple[float, ...] = ()
    """One a trial, where trials make the figure."""
    interval: tuple[float, float] | None = None
    """Confidence interval of the median (trials) or of the value."""
    confidence: float | None = None
    status: Literal["inconclusive", "not run", "invalid"] | None = None
    why: str = ""
    evidence: tuple[str, ...] = ()
    """Files of the run record that the number comes from."""
    detail: dict[str, Any] = {}


class Target(Value):
    """A promise, as something that can be judged."""

    id: str
    quote: str
    """The promise in the document's words."""
    place: str
    """Where in the document."""
    metric: str
    comparison: Literal["<", "<=", ">", ">=", "=="]
    limit: float
    unit: str
    method: Method = "measured"
    min_trials: int = 1
    stand_in: str | None = None
    environments: tuple[str, ...] = ()
    """Environments of the system that it is promised for; empty: all."""
    scenarios: tuple[str, ...] = ()
    """Scenarios and experiments that yield the metric."""
    proven_by: tuple[str, ...] = ()
    """Of these, the ones that can show that it is met; the others can only refute it. Empty: all."""
    not_built: str | None = None
    """What is missing, where nothing yields the metric yet."""

    def concerns(self, environment: str | None) -> bool:
        """Whether it is promised for an environment; None: not known, so yes."""
        return not self.environments or environment is None or environment in self.environments


class Verdict(Value):
    """The answer to a promise."""

    target: Target
    status: Status
    why: str
    """One sentence: the figure against the limit, or why it was not judged."""
    finding: Finding | None = None
