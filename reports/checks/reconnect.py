"""The rush back: log-ins per second at the poolers around recovery, and how many were beyond the usual.

From the poolers' logs (``login attempt``, PgBouncer with ``log_connections``), its own console left out. The
*peak* is the greatest number of log-ins within any one second from a fault's effect to the end of its window,
over all poolers; the *retries* are those beyond what the rate of the CALM_S seconds before the fault would
have made. The probe's own short sessions are among both. The worst trial.
"""

from __future__ import annotations

import re

import numpy as np

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis.clock import engine_offset, parse_stamp
from reports.analysis.columns import Ints
from reports.analysis.model import Analysis, Trial
from reports.checks import Check
from reports.checks.common import no_valid_trial, nothing, of_trials, split
from reports.findings import Finding

UNITS = {"reconnect.peak": "1/s", "reconnect.retries": "1"}
CALM_S = 10.0
_LOGIN = re.compile(r" login attempt: db=(?!pgbouncer )")


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    for metric, unit in UNITS.items():
        if no_valid_trial(analysis, metric, unit, ledger=True) is not None:
            return [_empty(analysis, m, u) for m, u in UNITS.items()]
    moments = logins(analysis, record)
    if moments is None or not len(moments):
        why = "the poolers' logs show no log-in, or their clock is not known"
        return [nothing(m, u, "not run", why) for m, u in UNITS.items()]
    valid = [t for t in split(analysis, ledger=True)[0] if t.effect_s is not None]
    evidence = tuple(f"logs/{pool.pooler}.log" for pool in analysis.pools)
    before = [_before(moments, t) for t in valid]
    return [
        of_trials(
            "reconnect.peak", "1/s", [_peak(moments, t) for t in valid], evidence=evidence, before=max(before)
        ),
        of_trials(
            "reconnect.retries",
            "1",
            [_beyond(moments, t, rate) for t, rate in zip(valid, before, strict=True)],
            evidence=evidence,
        ),
    ]


def _empty(analysis: Analysis, metric: str, unit: str) -> Finding:
    found = no_valid_trial(analysis, metric, unit, ledger=True)
    assert found is not None
    return found


def logins(analysis: Analysis, record: RecordReader) -> Ints | None:
    """Moments of all log-ins at the poolers, ns since run-start, in order; None without a clock."""
    offset = engine_offset(analysis.manifest)
    start = next((e["t"] for e in record.events("run-start") if e["t"] is not None), None)
    if offset is None or start is None:
        return None
    found = [
        stamp + offset - start
        for pool in analysis.pools
        for line in record.logs.get(pool.pooler, "").splitlines()
        if _LOGIN.search(line) and "@unix" not in line and (stamp := parse_stamp(line)) is not None
    ]
    return np.sort(np.array(found, dtype=np.int64))


def _bounds(trial: Trial) -> tuple[int, int]:
    assert trial.effect_s is not None
    end = trial.window_end_s if trial.window_end_s is not None else trial.end_s
    return round(trial.effect_s * NS), round(end * NS)


def _within(moments: Ints, begin: int, end: int) -> Ints:
    inside: Ints = moments[np.searchsorted(moments, begin) : np.searchsorted(moments, end)]
    return inside


def _peak(moments: Ints, trial: Trial) -> float:
    inside = _within(moments, *_bounds(trial))
    if not len(inside):
        return 0.0
    return float((np.searchsorted(inside, inside + NS, side="left") - np.arange(len(inside))).max())


def _before(moments: Ints, trial: Trial) -> float:
    """Log-ins per second just before the fault."""
    begin, _ = _bounds(trial)
    return len(_within(moments, begin - round(CALM_S * NS), begin)) / CALM_S


def _beyond(moments: Ints, trial: Trial, rate: float) -> float:
    begin, end = _bounds(trial)
    return max(0.0, len(_within(moments, begin, end)) - rate * (end - begin) / NS)


CHECK = Check("reconnect", UNITS, run)
