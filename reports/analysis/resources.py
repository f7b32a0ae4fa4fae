"""What each node used in the steady state.

- *cpu_cores* = Δcpu_seconds ÷ Δt. *cpu_share* = that ÷ the node's limit, in percent; a node without a limit
  has none (its cores are shown).
- *throttled_share* = Δcpu_throttled_seconds ÷ Δt, in percent: the time in which the quota held it back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lab.record.schema import NS
from reports.analysis.metrics import Metrics, Series, increase
from reports.analysis.model import Usage


def limit_of(resources: dict[str, Any], node: str) -> tuple[float | None, float | None]:
    """(cores, bytes) that a node is limited to, as the manifest has it."""
    entry = resources.get(node)
    if not isinstance(entry, dict):
        return None, None
    cpus, memory = entry.get("cpus"), entry.get("memory_bytes")
    return (float(cpus) if cpus else None), (float(memory) if memory else None)


def usage(
    metrics: Metrics, resources: dict[str, Any], steady: tuple[int, int] | None, whole: tuple[int, int]
) -> tuple[Usage, ...]:
    """One row a node that was sampled."""
    rows = []
    for node in metrics.nodes("cpu_seconds"):
        cores = _per_second(metrics.one("cpu_seconds", node), steady)
        held = _per_second(metrics.one("cpu_throttled_seconds", node), steady)
        cpus, memory_limit = limit_of(resources, node)
        memory = metrics.one("memory_bytes", node)
        peak = memory.within(*whole).value if memory else np.zeros(0)
        rows.append(
            Usage(
                node=node,
                cpu_cores=cores,
                limit_cores=cpus,
                cpu_share=100 * cores / cpus if cores is not None and cpus else None,
                throttled_share=None if held is None else 100 * held,
                memory_max_bytes=float(peak.max()) if len(peak) else None,
                memory_limit_bytes=memory_limit,
            )
        )
    return tuple(rows)


def _per_second(series: Series | None, steady: tuple[int, int] | None) -> float | None:
    if series is None or steady is None:
        return None
    inside = series.within(*steady)
    grown = increase(inside)
    return None if grown is None else grown / ((inside.t[-1] - inside.t[0]) / NS)
