"""Split brain: seconds in which two nodes accepted writes, in the worst trial."""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, SplitBrain
from reports.checks import Check
from reports.checks.common import no_valid_trial, nothing, of_trials, split
from reports.findings import Finding

METRIC = "split_brain.seconds"


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    if (empty := no_valid_trial(analysis, METRIC, "s", ledger=True)) is not None:
        return [empty]
    valid = split(analysis, ledger=True)[0]
    if any(t.split_brain.samples == 0 for t in valid):
        return [nothing(METRIC, "s", "not run", "the nodes were not watched")]
    return [
        of_trials(
            METRIC,
            "s",
            [seconds(t.split_brain) for t in valid],
            evidence=("nodes.parquet",),
            possible_s=max(t.split_brain.possible_s for t in valid),
            moments=sum(t.split_brain.moments for t in valid),
            pairs=sorted({" + ".join(pair) for t in valid for pair in t.split_brain.pairs}),
        )
    ]


def seconds(found: SplitBrain) -> float:
    """What is judged: the certain length; where overlap is proven but too short to have one, the possible."""
    if found.certain_s > 0:
        return found.certain_s
    return found.possible_s if found.moments else 0.0


CHECK = Check("split-brain", {METRIC: "s"}, run)
