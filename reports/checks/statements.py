"""pg_stat_statements: the share of database nodes whose top statements the run could read.

One that is down when the run ends, or lacks the extension, has none.
"""

from __future__ import annotations

import yaml

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

METRIC = "statements.nodes"


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    nodes = _nodes(record)
    if not analysis.statements or not nodes:
        return [nothing(METRIC, "%", "not run", "the run recorded no statements")]
    without = [node for node in nodes if not analysis.statements.get(node)]
    return [
        Finding(
            metric=METRIC,
            unit="%",
            value=100 * (len(nodes) - len(without)) / len(nodes),
            why=f"none from {', '.join(without)}" if without else "",
            evidence=("statements.json",),
            detail={"nodes": nodes, "without": without},
        )
    ]


def _nodes(record: RecordReader) -> list[str]:
    """Database nodes of the topology."""
    try:
        topology = yaml.safe_load(record.text("topology.yaml") or "")
        return [str(node["name"]) for node in topology["postgres"]["nodes"]]
    except (yaml.YAMLError, KeyError, TypeError):
        return []


CHECK = Check("statements", {METRIC: "%"}, run)
