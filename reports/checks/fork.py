"""The fork of the timeline: WAL and acknowledgements that only the old primary had; the worst trial.

Without a failover there is no fork, and no figure. Zero is no proof of anything after a kill (``ledger.py``).
"""

from __future__ import annotations

from collections.abc import Callable

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, Fork
from reports.checks import Check
from reports.checks.common import no_valid_trial, nothing, of_trials, split
from reports.findings import Finding

UNITS = {"rpo.wal_bytes": "B", "fork.acknowledged": "rows", "split_brain.acknowledged": "rows"}


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    return [
        _finding(analysis, "rpo.wal_bytes", lambda f: f.beyond_bytes, "the ends of WAL were not seen"),
        _finding(analysis, "fork.acknowledged", lambda f: f.losing, ""),
        _finding(
            analysis,
            "split_brain.acknowledged",
            lambda f: f.dual if f.watched else None,
            "it was not seen when the new primary first accepted writes",
        ),
    ]


def _finding(analysis: Analysis, metric: str, pick: Callable[[Fork], int | None], unseen: str) -> Finding:
    unit = UNITS[metric]
    if (empty := no_valid_trial(analysis, metric, unit, ledger=True)) is not None:
        return empty
    valid = split(analysis, ledger=True)[0]
    forks = {t.trial: t.fork for t in valid if t.fork is not None}
    if not forks:
        return nothing(metric, unit, "not run", "no other node took over, so no timeline was left")
    incomplete = [t.trial for t in valid if t.fork is not None and not t.ledger.complete]
    if metric == "fork.acknowledged" and incomplete:
        why = f"the audit of trial {', '.join(map(str, incomplete))} is not complete"
        return nothing(metric, unit, "invalid", why)
    known = {k: value for k, fork in forks.items() if (value := pick(fork)) is not None}
    blind = sorted(set(forks) - set(known))
    if blind and not any(known.values()):
        return nothing(metric, unit, "inconclusive", f"{unseen} (trial {', '.join(map(str, blind))})")
    sources = sorted({fork.source for fork in forks.values() if fork.source})
    files = tuple(source for source in sources if source != "samples")
    sampled = metric == "rpo.wal_bytes" and "samples" in sources
    said = [
        f"trial {k}: {fork.dual} by {fork.old} up to {fork.dual_s:.2f} s after {fork.new} accepted writes"
        for k, fork in forks.items()
        if metric == "split_brain.acknowledged" and fork.dual
    ]
    if sampled:
        said.append("from samples: the old primary may have written more after its last")
    return of_trials(
        metric,
        unit,
        [float(value) for value in known.values()],
        evidence=(*files, "nodes.parquet", "writes.parquet"),
        why="; ".join(said),
        not_seen=len(blind),
        forks=[fork.model_dump(mode="json") for fork in forks.values()],
    )


CHECK = Check("fork", UNITS, run)
