"""Whether every table is the same on all nodes at the end: the share of tables with equal checksums.

The checksums (``audit/checksums.json``, ``lab/scenario/last_look.py``) were taken on each node itself after
the load had ended and replay had caught up. Tables that a node lacks are unequal; tables that were too large
to read are named, and without another finding make the result open. The catalogue is not compared.
"""

from __future__ import annotations

from typing import Any

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

METRIC = "tables.equal"
FILE = "audit/checksums.json"


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    told = record.json(FILE)
    if not isinstance(told, dict) or not told:
        return [nothing(METRIC, "%", "not run", "the record has no checksums of tables")]
    if (why := _incomplete(analysis, told)) is not None:
        return [nothing(METRIC, "%", "invalid", why)]
    names = sorted({name for one in told.values() for name in one["tables"]})
    if not names:
        return [nothing(METRIC, "%", "not run", "no table was read")]
    different = [name for name in names if len({_sum(one, name) for one in told.values()}) > 1]
    skipped = sorted({name for one in told.values() for name in one.get("skipped") or ()})
    rows = next(iter(told.values()))["tables"]
    finding = Finding(
        metric=METRIC,
        unit="%",
        value=100 * (len(names) - len(different)) / len(names),
        why="; ".join(_difference(told, name) for name in different[:5])
        or f"{len(names)} tables, {sum(int(rows[name][0]) for name in names):,} rows, on {len(told)} nodes",
        evidence=(FILE,),
        detail={"tables": len(names), "nodes": sorted(told), "different": different, "skipped": skipped},
    )
    if skipped and not different:
        why = f"too large to read: {', '.join(skipped)}"
        return [finding.model_copy(update={"status": "inconclusive", "why": why})]
    return [finding]


def _incomplete(analysis: Analysis, told: dict[str, dict[str, Any]]) -> str | None:
    """Why the checksums cannot be compared."""
    absent = [name for name in analysis.databases if name not in told]
    failed = [f"{name}: {one['why']}" for name, one in told.items() if one.get("why")]
    behind = [node.node for node in analysis.ledger.nodes if not node.caught_up]
    if absent:
        return f"no checksums of {', '.join(absent)}"
    if failed:
        return f"checksums failed: {'; '.join(failed)}"
    if behind:
        return f"replay had not caught up on {', '.join(behind)}"
    if len(told) < 2:
        return "there is only one node: nothing to compare"
    return None


def _sum(one: dict[str, Any], name: str) -> tuple[int, str] | None:
    found = one["tables"].get(name)
    return (int(found[0]), str(found[1])) if found else None


def _difference(told: dict[str, dict[str, Any]], name: str) -> str:
    """Which nodes hold which version of a table, by its number of rows."""
    versions: dict[tuple[int, str] | None, list[str]] = {}
    for node, one in sorted(told.items()):
        versions.setdefault(_sum(one, name), []).append(node)
    said = [
        f"{', '.join(nodes)}: {'absent' if version is None else f'{version[0]:,} rows'}"
        for version, nodes in versions.items()
    ]
    return f"{name} differs ({'; '.join(said)})"


CHECK = Check("tables", {METRIC: "%"}, run)
