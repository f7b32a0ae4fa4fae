"""Which node ran what the load sent: statements to readers, to writers, and analytics, node by node."""

from __future__ import annotations

import json

import yaml

from reports.charts import style
from reports.charts.scene import Chart, Drawing, Scene
from reports.checks.replicas import tagged

KINDS = (
    ("reads sent to a reader", style.BLUE),
    ("of these, analytics", style.PURPLE),
    ("sent to the writer", style.ORANGE),
)


def draw(scene: Scene) -> list[Drawing] | str:
    try:
        told = json.loads(scene.text("statements.json") or "{}")
        paper = yaml.safe_load(scene.text("topology.yaml") or "{}") or {}
        roles = {str(node["name"]): str(node["role"]) for node in paper["postgres"]["nodes"]}
        calls = tagged({node: tuple(rows) for node, rows in told.items()})
    except (ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return "the nodes' statements were not collected"
    nodes = [node for node in roles if node in told]
    if not nodes or not calls:
        return "the load tagged no statement"
    counts = {kind: dict.fromkeys(nodes, 0) for kind, _ in KINDS}
    for (node, service, route), count in calls.items():
        if node not in roles or route == "prepare":
            continue
        read = route.rpartition(".")[2] == "reader"
        counts[KINDS[0][0] if read else KINDS[2][0]][node] += count
        if read and service == "analytics":
            counts[KINDS[1][0]][node] += count
    figure, axes = style.panels((0.42 * len(nodes) + 0.4,))
    axis = axes[0]
    height = 0.25
    most = max(max(of.values()) for of in counts.values()) or 1
    for number, (kind, colour) in enumerate(KINDS):
        at = [row + (number - 1) * height for row in range(len(nodes))]
        values = [counts[kind][node] for node in nodes]
        axis.barh(at, values, height=height * 0.9, color=colour, label=kind)
        for y, value in zip(at, values, strict=True):
            axis.annotate(
                f"{value:,}", (value, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7.5
            )
    axis.set_yticks(range(len(nodes)), [f"{node} ({roles[node]})" for node in nodes])
    axis.invert_yaxis()
    axis.set_xlim(0, 1.12 * most)
    axis.grid(visible=True, axis="x")
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("statements in this run")
    style.key(axis, 3)
    return [Drawing("reads", "Counted by each node itself (pg_stat_statements).", figure)]


CHART = Chart(
    id="reads",
    title="Where statements ran",
    needs=(),
    draw=draw,
    about="Analytics belongs on replicas only, and the standby serves no reads.",
    order=70,
)
