"""What a scenario promises by itself: that what it asserts holds, and under chaos that nothing is lost.

Judged as a document's promises are.
"""

from __future__ import annotations

from typing import Any

import yaml

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis
from reports.findings import Target

METRIC = "assertions.held"
CHAOS = "chaos"
SAFETY = {
    "ledger.lost": "nothing acknowledged is lost",
    "ledger.phantom": "nothing refused appears",
    "ledger.duplicate": "nothing is there twice",
}
"""What must hold under a random schedule of faults, whatever it is: metric → in words."""


def own_targets(record: RecordReader, analysis: Analysis) -> list[Target]:
    """The targets that come from the scenario itself: its assertions, in its own words. None: no target."""
    scenario = analysis.manifest.scenario
    found = [_safety(metric) for metric in SAFETY] if scenario == CHAOS else []
    said = _asserted(record.text("scenario.yaml"))
    if not said:
        return found
    return [
        *found,
        Target(
            id=f"{scenario}.assertions",
            quote="; ".join(said),
            place=f"scenarios/{scenario}.yaml, steps",
            metric=METRIC,
            comparison="==",
            limit=100,
            unit="%",
            scenarios=(scenario,),
        ),
    ]


def _safety(metric: str) -> Target:
    return Target(
        id=f"{CHAOS}.{metric.partition('.')[2]}",
        quote=SAFETY[metric],
        place="lab/scenario/chaos.py",
        metric=metric,
        comparison="==",
        limit=0,
        unit="rows",
        scenarios=(CHAOS,),
    )


def _asserted(text: str | None) -> list[str]:
    try:
        data = yaml.safe_load(text or "")
    except yaml.YAMLError:
        return []
    steps = data.get("steps") if isinstance(data, dict) else None
    found = []
    for step in steps if isinstance(steps, list) else []:
        claim: Any = step.get("assert") if isinstance(step, dict) else None
        if claim:
            span = step.get("throughout")
            found.append(f"{claim} throughout {'the window' if span == 'window' else f'{span} s'}")
    return found
