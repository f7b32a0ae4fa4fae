"""Split brain: two nodes that accept writes at one time, on any two timelines.

Every node is asked directly. A sample says that the node accepted writes at some moment between its *sent*
and its *done*. A *run* is a sequence of consecutive accepting samples of one node.

- The node accepted writes *for certain* from the first sample's done to the last sample's sent, and
  *possibly* from the sent of the sample before the run to the done of the sample after it.
- *certain* and *possible* seconds are the lengths of the union over pairs of nodes of these overlaps.
- A *moment* is an accepting sample of one node that lies between two consecutive accepting samples of
  another: a proof of overlap, also where it was too short to have a certain length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from lab.record.schema import NS
from reports.analysis.columns import Bools, Ints, Nodes
from reports.analysis.model import SplitBrain

Interval = tuple[int, int]


def split_brain(nodes: Nodes, start: int, end: int) -> SplitBrain:
    """Overlaps among the samples sent in [start, end)."""
    within = (nodes.sent >= start) & (nodes.sent < end)
    inner: dict[str, list[Interval]] = {}
    outer: dict[str, list[Interval]] = {}
    points: dict[str, list[Interval]] = {}
    for name in nodes.node.words:
        rows = np.flatnonzero(within & nodes.node.equals(name))
        sent, done, accepts = nodes.sent[rows], nodes.done[rows], nodes.accepts[rows]
        inner[name], outer[name] = _runs(sent, done, accepts)
        points[name] = [(int(s), int(d)) for s, d in zip(sent[accepts], done[accepts], strict=True)]
    certain: list[Interval] = []
    possible: list[Interval] = []
    pairs: list[tuple[str, str]] = []
    moments = 0
    for a, b in combinations(sorted(inner), 2):
        both = _overlaps(inner[a], inner[b])
        held = _contained(points[b], inner[a]) + _contained(points[a], inner[b])
        certain += both
        possible += _overlaps(outer[a], outer[b])
        moments += held
        if both or held:
            pairs.append((a, b))
    return SplitBrain(
        certain_s=_length(certain) / NS,
        possible_s=_length(possible) / NS,
        moments=moments,
        pairs=tuple(pairs),
        samples=int(within.sum()),
    )


def _runs(sent: Ints, done: Ints, accepts: Bools) -> tuple[list[Interval], list[Interval]]:
    inner: list[Interval] = []
    outer: list[Interval] = []
    edges = np.flatnonzero(np.diff(np.r_[False, accepts, False].astype(np.int8)))
    for begin, stop in zip(edges[::2], edges[1::2], strict=True):
        last = stop - 1
        if done[begin] <= sent[last]:
            inner.append((int(done[begin]), int(sent[last])))
        before = sent[begin - 1] if begin else sent[begin]
        after = done[stop] if stop < len(done) else done[last]
        outer.append((int(before), int(after)))
    return inner, outer


def _overlaps(left: Sequence[Interval], right: Sequence[Interval]) -> list[Interval]:
    found = []
    for a0, a1 in left:
        for b0, b1 in right:
            begin, end = max(a0, b0), min(a1, b1)
            if begin < end:
                found.append((begin, end))
    return found


def _contained(points: Sequence[Interval], runs: Sequence[Interval]) -> int:
    return sum(any(a0 <= s and d <= a1 for a0, a1 in runs) for s, d in points) if runs else 0


def _length(intervals: Sequence[Interval]) -> int:
    total, reach = 0, None
    for begin, end in sorted(intervals):
        if reach is None or begin > reach:
            total += end - begin
            reach = end
        elif end > reach:
            total += end - reach
            reach = end
    return total
