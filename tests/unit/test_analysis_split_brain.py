"""Two nodes that accept writes at one time."""

from __future__ import annotations

import numpy as np
import pytest

from lab.record.schema import NS
from reports.analysis.columns import Nodes, Text
from reports.analysis.split_brain import split_brain

MS = 1_000_000


def nodes(*samples: tuple[str, int, int, bool]) -> Nodes:
    """(node, sent ms, done ms, accepts)"""
    rows = sorted(samples, key=lambda row: row[1])
    names = tuple(sorted({row[0] for row in rows}))
    yes = np.ones(len(rows), dtype=bool)
    zeros = np.zeros(len(rows), dtype=np.int64)
    return Nodes(
        np.array([row[1] * MS for row in rows], dtype=np.int64),
        np.array([row[2] * MS for row in rows], dtype=np.int64),
        Text(np.array([names.index(row[0]) for row in rows], dtype=np.int32), names),
        yes,
        np.array([row[3] for row in rows], dtype=bool),
        ~yes,
        zeros,
        zeros,
    )


def test_a_clean_handover_is_no_split_brain() -> None:
    old = [("a", t, t + 1, t < 1000) for t in range(0, 3000, 50)]
    new = [("b", t + 3, t + 4, t >= 2000) for t in range(0, 3000, 50)]
    found = split_brain(nodes(*old, *new), 0, 10 * NS)
    assert (found.certain_s, found.possible_s, found.moments, found.pairs) == (0, 0, 0, ())
    assert found.samples == 120


def test_an_overlap_has_its_length_between_its_bounds() -> None:
    old = [("a", t, t + 1, t < 2000) for t in range(0, 3000, 50)]
    new = [("b", t + 3, t + 4, t >= 1000) for t in range(0, 3000, 50)]
    found = split_brain(nodes(*old, *new), 0, 10 * NS)
    assert found.pairs == (("a", "b"),)
    assert found.certain_s <= 1.0 <= found.possible_s
    assert found.certain_s == pytest.approx(1950 / 1000 - 1004 / 1000)
    assert found.moments > 0


def test_one_sample_between_two_of_another_proves_it() -> None:
    found = split_brain(
        nodes(("a", 0, 1, True), ("a", 50, 51, True), ("b", 10, 60, False), ("b", 20, 25, True)), 0, NS
    )
    assert found.moments == 1
    assert found.certain_s == 0
    assert found.possible_s > 0


def test_neighbouring_samples_do_not_prove_it() -> None:
    found = split_brain(nodes(("a", 0, 1, True), ("a", 50, 51, False), ("b", 40, 52, True)), 0, NS)
    assert found.moments == 0
    assert found.certain_s == 0
    assert found.possible_s > 0


def test_three_primaries_are_not_counted_twice() -> None:
    rows = [(n, t + i, t + i + 1, True) for i, n in enumerate("abc") for t in range(0, 1000, 50)]
    found = split_brain(nodes(*rows), 0, NS)
    assert found.certain_s <= 0.951
    assert len(found.pairs) == 3


def test_not_watched_is_told() -> None:
    assert split_brain(nodes(), 0, NS).samples == 0
