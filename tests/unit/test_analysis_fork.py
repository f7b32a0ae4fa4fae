"""Forks and exposures: histories with a known answer, one row for each condition of the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lab.record.schema import NS
from reports.analysis.columns import MISSING, Nodes, Routes, Text, Writes
from reports.analysis.faults import exposure, injected, kind_of
from reports.analysis.fork import accepted_first, fork, lsn, parse_evidence
from reports.analysis.model import Injected

KINDS = ("acknowledged", "acknowledged_locally", "failed", "unknown")
EFFECT = 100 * NS


def words(values: Sequence[str | None]) -> Text:
    known = tuple(sorted({value for value in values if value is not None}))
    codes = [-1 if value is None else known.index(value) for value in values]
    return Text(np.array(codes, dtype=np.int32), known)


def ints(values: Sequence[float | None]) -> Any:
    return np.array([MISSING if v is None else round(v * NS) for v in values], dtype=np.int64)


Row = tuple[float | None, float | None, str, str | None, bool]
"""Sent and done in seconds, outcome, server, lost."""


def ledger(rows: Sequence[Row]) -> tuple[Writes, Any]:
    zeros = np.zeros(len(rows), dtype=np.int64)
    writes = Writes(
        np.arange(1, len(rows) + 1, dtype=np.int64), zeros, zeros, zeros, zeros.astype(bool),
        ints([row[0] for row in rows]), ints([row[0] for row in rows]), ints([row[1] for row in rows]),
        words([row[2] for row in rows]), words([None] * len(rows)), words([row[3] for row in rows]),
    )  # fmt: skip
    return writes, np.array([row[4] for row in rows], dtype=bool)


def samples(rows: Sequence[tuple[str, float, bool, int | None]]) -> Nodes:
    """Node, second, accepts, timeline; answered after 0.1 s."""
    accepts = np.array([row[2] for row in rows], dtype=bool)
    return Nodes(
        ints([row[1] for row in rows]), ints([row[1] + 0.1 for row in rows]), words([row[0] for row in rows]),
        np.ones(len(rows), dtype=bool), accepts, ~accepts,
        np.array([MISSING if row[3] is None else row[3] for row in rows], dtype=np.int64),
        np.zeros(len(rows), dtype=np.int64),
    )  # fmt: skip


NODES = [
    ("b", 50.0, True, 7),  # an earlier reign of the new primary
    ("a", 90.0, True, 3),
    ("a", 95.0, False, 9),  # in recovery: no timeline of its own
    ("a", 100.0, True, 4),
    ("a", 100.0, False, 9),
    ("c", 100.0, True, 8),
    ("b", 100.0, False, 3),
    ("a", 105.0, True, 6),
    ("b", 110.0, True, 5),
    ("b", 112.0, True, 5),
]
ROWS: list[Row] = [
    (90, 91, "acknowledged", "a", False),
    (101, 102, "acknowledged", "a", True),  # losing, lost
    (102, 103, "unknown", "a", True),
    (103, 104, "failed", "a", False),
    (110.1, 110.2, "acknowledged", "a", False),  # sent when the new one answered: not later
    (111, 112, "acknowledged", "a", False),  # dual
    (113, 114, "acknowledged_locally", "a", True),  # dual, losing, lost
    (113, 114, "acknowledged", "b", False),
    (114, None, "acknowledged", "a", True),  # never came back
    (115, 116, "failed", "a", True),
    (119, 120, "acknowledged", "a", False),  # dual
    (120, 125, "acknowledged", "a", True),  # answered when it led again
    (130, 131, "acknowledged", "a", True),  # after that
]
EVENTS = [
    {"kind": "leader-elected", "t": 99 * NS, "node": "a", "detail": {}},
    {"kind": "leader-elected", "t": 109 * NS, "node": "b", "detail": {"leader": "b"}},
    {"kind": "leader-expired", "t": 118 * NS, "node": "a", "detail": {}},
    {"kind": "leader-elected", "t": 125 * NS, "node": None, "detail": {"leader": "a"}},
    {"kind": "leader-elected", "t": 126 * NS, "node": "a", "detail": {}},
]
EVIDENCE = [
    {"file": "other-node", "node": "b", "timeline": 4, "fork_lsn": 1, "end_lsn": 9000},
    {"file": "other-timeline", "node": "a", "timeline": 3, "fork_lsn": 1, "end_lsn": 9000},
    {"file": "torn", "node": "a", "timeline": 4, "fork_lsn": None, "end_lsn": 9000},
    {"file": "torn too", "node": "a", "timeline": 4, "fork_lsn": 1, "end_lsn": None},
    {"file": "right", "node": "a", "timeline": 4, "fork_lsn": 100, "end_lsn": 150},
]


def test_every_acknowledgement_on_the_losing_timeline() -> None:
    writes, lost = ledger(ROWS)
    found = fork(writes, lost, samples(NODES), [], EVENTS, "a", "b", EFFECT, 77)
    assert found is not None
    assert (found.losing, found.losing_lost, found.dual) == (4, 2, 3)
    assert found.dual_s == pytest.approx(120 - 110.1)
    assert (found.watched, found.parent_timeline) == (True, 4)
    assert (found.beyond_bytes, found.source, found.switch_lsn) == (77, "samples", None)


def test_evidence_of_that_node_and_timeline_counts_more_than_samples() -> None:
    writes, lost = ledger(ROWS)
    found = fork(writes, lost, samples(NODES), EVIDENCE, EVENTS, "a", "b", EFFECT, 77)
    assert found is not None
    assert (found.beyond_bytes, found.source, found.switch_lsn, found.end_lsn) == (50, "right", 100, 150)
    behind = [{"file": "x", "node": "a", "timeline": 4, "fork_lsn": 100, "end_lsn": 90}]
    early = fork(writes, lost, samples(NODES), behind, EVENTS, "a", "b", EFFECT, None)
    assert early is not None
    assert early.beyond_bytes == 0


def test_evidence_without_a_timeline_is_nobody_s() -> None:
    writes, lost = ledger(ROWS)
    unknown = [("a", 100.0, True, None), ("b", 110.0, True, 5)]
    kept = [{"file": "x", "node": "a", "timeline": None, "fork_lsn": 1, "end_lsn": 9}]
    found = fork(writes, lost, samples(unknown), kept, EVENTS, "a", "b", EFFECT, None)
    assert found is not None
    assert (found.parent_timeline, found.beyond_bytes, found.source) == (None, None, None)


def test_a_new_primary_that_was_not_seen_leaves_only_the_lost_ones() -> None:
    writes, lost = ledger(ROWS)
    found = fork(writes, lost, samples(NODES[:8]), [], EVENTS, "a", "b", EFFECT, None)
    assert found is not None
    assert (found.watched, found.dual, found.dual_s, found.losing, found.losing_lost) == (False, 0, 0.0, 2, 2)
    # It led again at once, by the first election after the effect: nothing after that is the old one's.
    soon = [{"kind": "leader-elected", "t": 101 * NS, "node": "a", "detail": {}}]
    again = fork(writes, lost, samples(NODES[:8]), [], soon, "a", "b", EFFECT, None)
    assert again is not None
    assert again.losing == 0


def test_an_election_at_the_moment_itself_is_no_second_reign() -> None:
    writes, lost = ledger(ROWS)
    at = [{"kind": "leader-elected", "t": round(110.1 * NS), "node": "a", "detail": {}}]
    found = fork(writes, lost, samples(NODES), [], at, "a", "b", EFFECT, None)
    assert found is not None
    assert found.dual == 5  # 111, 113, 119, 120 and 130
    calm, nothing = ledger(ROWS[:1])
    watched = fork(calm, nothing, samples(NODES), [], EVENTS, "a", "b", EFFECT, None)
    assert watched is not None
    assert (watched.watched, watched.dual, watched.dual_s) == (True, 0, 0.0)


def test_nobody_took_over() -> None:
    writes, lost = ledger(ROWS)
    for old, new in ((None, "b"), ("a", None), ("a", "a")):
        assert fork(writes, lost, samples(NODES), [], [], old, new, EFFECT, 1) is None


def test_the_first_answer_of_those_asked_later() -> None:
    assert accepted_first(samples(NODES), "b", 0) == round(50.1 * NS)
    assert accepted_first(samples(NODES), "b", 110 * NS) == round(110.1 * NS)
    assert accepted_first(samples(NODES), "b", 110 * NS + 1) == round(112.1 * NS)
    assert accepted_first(samples(NODES), "b", 113 * NS) is None
    assert accepted_first(samples(NODES), "nobody", 0) is None


def test_a_position_has_two_parts() -> None:
    assert (lsn("1/2"), lsn(" 16/B374D848\n")) == ((1 << 32) + 2, (0x16 << 32) + 0xB374D848)
    assert (lsn(""), lsn("x/1"), lsn("5")) == (None, None, None)
    (one,) = parse_evidence({"evidence/pg-1-20260101T000000Z.txt": "timeline=x\nfork_lsn=0/A\nnot a pair\n"})
    assert (one["node"], one["timeline"], one["fork_lsn"], one["end_lsn"]) == ("pg-1", None, 10, None)


# --- exposures


def cut(
    fault: str = "isolate",
    kind: str = "partition",
    effect: float | None = 10,
    nodes: tuple[str, ...] = ("a",),
) -> Injected:
    return Injected(fault=fault, kind=kind, target=None, nodes=nodes, begin_s=9, effect_s=effect)


SENT: list[Row] = [
    (109.9, 110, "acknowledged", "a", False),
    (110, 111, "acknowledged", "a", False),
    (111, 120, "acknowledged_locally", "a", False),  # answered at the end: no more within it
    (112, 113, "failed", None, False),
    (113, 114, "acknowledged_locally", "a", False),
    (None, 114, "failed", None, False),
    (119.9, 121, "unknown", None, False),
    (120, 121, "acknowledged", "b", False),
]


def routes() -> Routes:
    rows = [
        (109.0, 109.5, True, "a"), (110.0, 110.1, True, "a"), (112.0, 112.1, True, "a"),
        (113.0, 113.1, False, "a"), (114.0, 114.1, True, "b"),
        (119.0, 120.0, True, "a"), (119.0, 119.9, True, "a"),
    ]  # fmt: skip
    return Routes(
        ints([r[0] for r in rows]),
        ints([r[1] for r in rows]),
        np.array([r[2] for r in rows]),
        words([r[3] for r in rows]),
    )


def seen(
    *faults: Injected,
    old: str | None = "a",
    new: str | None = "b",
    promoted: float | None = 120,
    until: float = 140,
) -> Any:
    writes, _ = ledger(SENT)
    at = None if promoted is None else round(promoted * NS)
    return exposure(faults, writes, routes(), old, new, at, round(until * NS), 100 * NS, 5)


def test_what_a_partition_of_the_primary_exposed() -> None:
    found = seen(cut())
    assert (found.attempted, found.acknowledged, found.reached) == (5, 2, 3)
    assert (found.primary_cut, found.took_over, found.unreplicated, found.seconds) == (True, True, 5, 10)
    assert found.proof == "proves"


def test_exposure_lasts_from_the_first_cut_to_the_promotion_or_the_window_s_end() -> None:
    assert seen(cut(effect=13), cut("other", effect=11)).seconds == 9
    assert seen(cut(), promoted=None).seconds == 30
    assert seen(cut(), promoted=110).seconds == 30
    assert seen(cut(), promoted=110).attempted == 6


def test_only_a_partition_of_the_primary_that_took_effect_exposes() -> None:
    for fault in (cut(kind="kill"), cut(effect=None), cut(nodes=("b",))):
        found = seen(fault)
        assert (found.primary_cut, found.attempted, found.kinds) == (False, 0, (fault.kind,))
    assert not seen(cut(), old=None).primary_cut
    assert seen(cut(), new=None).took_over is False
    assert seen(cut(), new="a").took_over is False
    assert seen(cut(), cut("kill-node", "kill"), cut()).kinds == ("partition", "kill")


@pytest.mark.parametrize(
    ("name", "told", "kind"),
    [("kill-x", None, "kill"), ("kill-x", "", "kill"), ("kill-x", 7, "kill"), ("kill-x", "pause", "pause"),
     ("isolate", None, "partition"), ("cut-from-etcd", None, "partition"), ("partition-x", None, "partition"),
     ("pause-node", None, "pause"), ("", None, "unknown")],
)  # fmt: skip
def test_a_kind_is_told_or_named(name: str, told: Any, kind: str) -> None:
    assert kind_of(name, told) == kind


def event(kind: str, t: float, node: str | None = None, /, **detail: Any) -> dict[str, Any]:
    return {"kind": kind, "t": round(t * NS), "node": node, "detail": detail}


def test_effects_belong_to_their_injections() -> None:
    events = [
        event("fault-begin", 10, fault="isolate", resolved="a, b", target="az:a", step=1, kind="partition"),
        event("fault-effect", 9.5, "a", fault="isolate", step=1),
        event("fault-effect", 11, "b", fault="isolate", step=1),
        event("fault-begin", 20, "c", fault="kill-node", step=2),
        event("fault-effect", 21, "c", fault="kill-node", step=2),
        event("fault-begin", 30, fault="isolate", resolved=["a"], target=3, step=3),
    ]
    first, second, third = injected(events, None, 0)
    assert (first.nodes, first.effect_s, first.kind, first.target) == (("a", "b"), 9.5, "partition", "az:a")
    assert (second.nodes, second.effect_s, second.kind) == (("c",), 21, "kill")
    assert (third.nodes, third.effect_s, third.target) == (("a",), None, None)


def test_effects_of_older_records_belong_by_name_node_and_time() -> None:
    events = [
        event("fault-begin", 10, "a"),
        event("fault-effect", 8.9, "a"),  # more than a second before it was asked for
        event("fault-effect", 9, "a"),
        event("fault-effect", 12, "a"),
        event("fault-begin", 20, "b"),
        event("fault-effect", 21, "a", fault="other"),
        event("fault-effect", 22, None),
        event("fault-begin", 30),
    ]
    first, second, third = injected(events, "kill-node", 5 * NS)
    assert (first.fault, first.begin_s, first.effect_s) == ("kill-node", 5, 4)
    # The name that an effect tells must be the fault's; without one any node may be meant.
    assert second.effect_s == 17
    assert (third.nodes, third.effect_s) == ((), None)
    assert injected([event("fault-begin", 1)], None, 0)[0].fault == "unknown"
    wrong = [
        event("fault-begin", 10, "a", fault="x", step=1),
        event("fault-effect", 11, "a", fault="x", step=2),
    ]
    assert injected(wrong, None, 0)[0].effect_s is None
    # Where only one of them tells a step, the name decides.
    half = [event("fault-begin", 10, "a", fault="x", step=1), event("fault-effect", 11, "a", fault="x")]
    assert injected(half, None, 0)[0].effect_s == 11
    half = [event("fault-begin", 10, "a", fault="x"), event("fault-effect", 11, "a", fault="x", step=2)]
    assert injected(half, None, 0)[0].effect_s == 11
    other = [event("fault-begin", 10, "a"), event("fault-effect", 11, "b")]
    assert injected(other, "x", 0)[0].effect_s is None
