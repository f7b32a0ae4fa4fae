"""Whether failover was automatic: the share of trials in which writes came back before anything was healed.

The runner touches nothing between the fault and the end of the observation window, and no human does. The
figure is 100 % if all trials did, and 0 % if in any of them no new leader was elected and writes stayed away.
"""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, Trial
from reports.checks import Check
from reports.checks.common import EVIDENCE, no_valid_trial, nothing, split
from reports.findings import Finding

METRIC = "failover.automatic"


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    if (empty := no_valid_trial(analysis, METRIC, "%")) is not None:
        return [empty]
    valid = split(analysis)[0]
    if any(t.write.state == "no data" for t in valid):
        return [nothing(METRIC, "%", "not run", "no write was recorded in the window")]
    early = [
        t.trial
        for t in valid
        for m in analysis.marks
        if m.trial == t.trial and m.kind == "heal-begin" and _before(m.t_s, t.window_end_s)
        if not _recovered_before(t, m.t_s)
    ]
    if early:
        trials = ", ".join(map(str, sorted(set(early))))
        why = f"the fault was healed within the window, before writes were back (trial {trials})"
        return [nothing(METRIC, "%", "invalid", why)]
    # With a new leader and no lasting recovery in the window it is open; without one nobody took over.
    opened = [t for t in valid if t.write.state == "not recovered" and t.new_primary is not None]
    if opened:
        why = "; ".join(f"trial {t.trial}: {t.write.why}" for t in opened)
        return [nothing(METRIC, "%", "inconclusive", why, trials=len(valid))]
    back = [100.0 if t.write.state in ("recovered", "no outage") else 0.0 for t in valid]
    return [
        Finding(
            metric=METRIC,
            unit="%",
            value=min(back),
            samples=tuple(back),
            evidence=EVIDENCE,
            detail={"trials": len(back), "new_primaries": [t.new_primary for t in valid]},
        )
    ]


def _recovered_before(trial: Trial, moment: float) -> bool:
    """Whether writes were back, for good, before the first thing was healed."""
    took = trial.write.seconds
    return took is not None and trial.effect_s is not None and trial.effect_s + took < moment


def _before(moment: float, end: float | None) -> bool:
    return end is not None and moment < end


CHECK = Check("automatic", {METRIC: "%"}, run)
