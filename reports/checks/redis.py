"""Redis under Sentinel: how long writes were away, and how many that it had acknowledged are gone.

Redis acknowledges a write once its primary has executed it, and replicates afterwards. A kill takes the
network down with the server, so that what was acknowledged had mostly left for the replica: no loss after a
kill proves nothing. It takes a partition in which clients still reached the old primary after Sentinel had
named another (*exposed* writes, ``reports/analysis/redis_writes.py``). A loss counts whatever the fault.
"""

from __future__ import annotations

from collections.abc import Callable

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis, OpenSessions, Outage, RedisTrial
from reports.checks import Check
from reports.checks.common import nothing, of_trials
from reports.checks.outage import of_outages
from reports.findings import Finding

TABLE = "redis_writes.parquet"
EVIDENCE = (TABLE, "audit/redis/", "events.parquet")
OUTAGES: dict[str, Callable[[RedisTrial], Outage | OpenSessions]] = {
    "redis.rto": lambda trial: trial.write,
    "redis.rto.new_sessions": lambda trial: trial.write_new,
}
LOST = "redis.lost_writes"


def run(analysis: Analysis, _record: RecordReader) -> list[Finding]:
    trials = analysis.redis.trials if analysis.redis else ()
    why = ""
    if analysis.redis is None:
        why = "nobody wrote to Redis in this run"
    elif not any(trial.hit for trial in trials):
        why = "no fault hit a Redis server or a Sentinel"
    if why:
        return [
            *(nothing(metric, "s", "not run", why) for metric in OUTAGES),
            _lost(analysis, trials) if _any_lost(analysis) else nothing(LOST, "writes", "not run", why),
        ]
    return [*(_outage(analysis, trials, metric) for metric in OUTAGES), _lost(analysis, trials)]


def _any_lost(analysis: Analysis) -> bool:
    return analysis.redis is not None and analysis.redis.ledger.lost > 0


def _left_out(trials: list[RedisTrial]) -> str:
    said = "; ".join(f"trial {t.trial}: {', '.join(t.invalid)}" for t in trials)
    return f"left out: {said}" if said else ""


def _outage(analysis: Analysis, trials: tuple[RedisTrial, ...], metric: str) -> Finding:
    valid, invalid = [t for t in trials if not t.invalid], [t for t in trials if t.invalid]
    if not valid:
        return nothing(metric, "s", "invalid", _left_out(invalid), invalid_trials=len(invalid))
    pick = OUTAGES[metric]
    detail = {
        "invalid_trials": len(invalid),
        "slow_after_s": analysis.manifest.slow_after_s,
        "announced_s": [t.announced_s for t in valid],
        "failovers": [f"{t.old_primary} → {t.new_primary}" for t in valid if t.new_primary],
        "sentinel": [line for t in valid for line in t.said],
    }
    return of_outages(metric, TABLE, {t.trial: pick(t) for t in valid}, _left_out(invalid), detail)


def _lost(analysis: Analysis, trials: tuple[RedisTrial, ...]) -> Finding:
    assert analysis.redis is not None
    whole = analysis.redis.ledger
    valid, void = [t for t in trials if not t.void], [t for t in trials if t.void]
    if not whole.complete:
        return nothing(LOST, "writes", "invalid", f"the audit: {whole.why or 'none was made'}")
    outside = whole.lost - sum(t.ledger.lost for t in trials)
    if not valid and not outside:
        return nothing(LOST, "writes", "invalid", _left_out(void) or "no trial was recorded")
    samples = [float(t.ledger.lost) for t in valid] or [0.0]
    exposed = sum(t.exposed for t in valid)
    finding = of_trials(
        LOST,
        "writes",
        samples,
        evidence=EVIDENCE,
        why=_left_out(void),
        acknowledged=whole.acknowledged,
        exposed=exposed,
        total=whole.lost,
        duplicate=whole.duplicate,
        phantom=whole.phantom,
        outside=outside,
        numbers=list(whole.lost_numbers),
    )
    if outside > 0:
        why = f"{outside} write(s) were lost outside the trials"
        return finding.model_copy(update={"value": max(samples) + outside, "why": why})
    if any(samples):
        return finding
    proving = [t for t in valid if t.exposed]
    if not proving:
        why = "no write went to the old primary after Sentinel had named another: nothing could be lost"
        return finding.model_copy(update={"status": "inconclusive", "why": why})
    detail = {**finding.detail, "trials": len(proving)}
    return finding.model_copy(update={"samples": (0.0,) * len(proving), "detail": detail})


CHECK = Check("redis", (*OUTAGES, LOST), run)
