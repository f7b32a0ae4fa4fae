"""How long a trial takes from its fault to full redundancy, and how much of that is the lab's own doing.

*total*: from asking for the first fault (``fault-begin``) to the moment at which the lab had seen that all is
whole (``trial-end``). *Waiting* is the time in it in which the lab itself has nothing to do: the window (from
the first ``fault-effect`` to ``window-end``), and the time from the end of the last healing (``heal-end``:
the node was started, the filters are gone) until every node streamed and a standby was synchronous again
(``redundant``, ``synchronous``). The rest is the lab's own: injecting, healing, and noticing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing, of_trials
from reports.findings import Finding

TOTAL, OWN = "trial.seconds", "trial.lab_seconds"
EVIDENCE = ("events.parquet",)


@dataclass(frozen=True)
class Spent:
    """Seconds of one trial."""

    total: float
    window: float
    """Clients were watched."""
    database: float
    """After the last healing, until everything was whole."""
    own: float
    """The rest."""


def spent(events: Sequence[dict[str, Any]]) -> Spent | None:
    """Where the time of a trial went; ``events`` are its own, in the order of time.

    None where it was not whole at the end, or a moment is missing: then there is no such time.
    """
    at = {kind: [int(e["t"]) for e in events if e["kind"] == kind] for kind in {e["kind"] for e in events}}
    wanted = ("fault-begin", "fault-effect", "window-end", "heal-end", "redundant", "trial-end")
    if any(not at.get(kind) for kind in wanted):
        return None
    begin, end = at["fault-begin"][0], at["trial-end"][-1]
    window = (max(begin, at["fault-effect"][0]), at["window-end"][0])
    healed = max(at["heal-end"][-1], window[1])
    # Either may have come true before the healing ended, or before the window did.
    whole = max(healed, at["redundant"][-1], *at.get("synchronous", ()))
    watched, waited = window[1] - window[0], min(whole, end) - healed
    return Spent(
        *(round(ns / NS, 6) for ns in (end - begin, watched, waited, end - begin - watched - waited))
    )


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    if not analysis.trials:
        why = "the run had no fault" if analysis.manifest.fault is None else "no trial was recorded"
        return [nothing(metric, "s", "not run", why) for metric in (TOTAL, OWN)]
    events = [event for event in record.events() if event["t"] is not None]
    found = [spent([e for e in events if e["trial"] == trial.trial]) for trial in analysis.trials]
    known = [one for one in found if one is not None]
    if not known:
        why = "no trial came from its fault to full redundancy"
        return [nothing(metric, "s", "inconclusive", why) for metric in (TOTAL, OWN)]
    left = f"{len(found) - len(known)} not whole at its end, left out" if len(known) < len(found) else ""
    parts = {
        "window_s": [one.window for one in known],
        "database_s": [one.database for one in known],
    }
    return [
        of_trials(TOTAL, "s", [one.total for one in known], evidence=EVIDENCE, why=left, **parts),
        of_trials(OWN, "s", [one.own for one in known], evidence=EVIDENCE, why=left),
    ]


CHECK = Check("trial-time", (TOTAL, OWN), run)
