"""Whether everybody goes on after the healing: workers, users and probe sessions without a good answer."""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing, of_trials
from reports.findings import Finding

METRIC = "progress.stuck"


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    void = {t.trial for t in analysis.trials if t.void}
    seen = [one for one in analysis.standstill if one.trial not in void]
    if not seen:
        return [nothing(METRIC, "1", "not run", "no trial was healed")]
    open_ = [one for one in seen if one.why]
    known = [one for one in seen if not one.why]
    stuck = [f"trial {one.trial}: {name}" for one in known for name in one.stuck]
    if not known or (open_ and not stuck):
        why = "; ".join(f"trial {one.trial}: {one.why}" for one in open_)
        return [nothing(METRIC, "1", "inconclusive", why)]
    return [
        of_trials(
            METRIC,
            "1",
            [float(len(one.stuck)) for one in known],
            evidence=("requests.parquet", "writes.parquet", "reads.parquet", "events.parquet"),
            why="; ".join(stuck[:5]),
            workers=min(one.workers for one in known),
            users=min(one.users for one in known),
            sessions=min(one.sessions for one in known),
            stuck=stuck[:20],
        )
    ]


CHECK = Check("progress", {METRIC: "1"}, run)
