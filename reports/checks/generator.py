"""The load generator's account of itself: Little's law, and how near it was to its own ceiling.

- ``load.little``: |L − X·R| ÷ L in percent (``reports/analysis/little.py``); beyond 5 % the load's findings
  are invalid.
- ``load.ceiling``: requests answered per second ÷ what the generator could send at most, percent; beyond 80 %
  the load's findings are inconclusive. Measured by ``lab latency`` before it loads (``lab/ceiling.py``).
"""

from __future__ import annotations

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

LITTLE, CEILING = "load.little", "load.ceiling"


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    return [_little(analysis), _ceiling(analysis, record)]


def _little(analysis: Analysis) -> Finding:
    law = analysis.little
    if law is None:
        why = "the generator did not count its requests under way, or there were too few of them"
        return nothing(LITTLE, "%", "not run", why)
    return Finding(
        metric=LITTLE,
        unit="%",
        value=100 * law.off,
        evidence=("metrics.parquet", "requests.parquet"),
        why=f"{law.in_flight:.3g} under way; {law.rate:.1f}/s × {1000 * law.service_s:.2f} ms "
        f"= {law.rate * law.service_s:.3g}",
        detail=law.model_dump(mode="json"),
    )


def _ceiling(analysis: Analysis, record: RecordReader) -> Finding:
    told = record.json("generator.json")
    ceiling = told.get("per_s") if isinstance(told, dict) else None
    steady = analysis.load.steady
    if not ceiling or steady is None or steady.rate is None:
        return nothing(CEILING, "%", "not run", "the generator's ceiling was not measured")
    return Finding(
        metric=CEILING,
        unit="%",
        value=100 * steady.rate / ceiling,
        evidence=("generator.json", "requests.parquet"),
        why=f"{steady.rate:.0f}/s of {ceiling:.0f}/s",
        detail=dict(told),
    )


CHECK = Check("generator", (LITTLE, CEILING), run)
