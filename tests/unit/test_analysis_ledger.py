"""The account of every write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.record.schema import NS
from reports.analysis.columns import MISSING, Nodes, Reads, Text, Writes
from reports.analysis.ledger import Audited, account, summed, wal_beyond_fork

settings.register_profile("lab", deadline=None)  # a shared machine has slow moments
settings.load_profile("lab")

KINDS = ("acknowledged", "acknowledged_locally", "failed", "unknown")
EFFECT = 1000 * NS
WINDOW_END = 2000 * NS


def writes(outcomes: Sequence[str], numbers: Sequence[int] | None = None, step: int = NS) -> Writes:
    """Write n is intended at second n and done 1 ms later."""
    n = np.array(numbers if numbers is not None else range(1, len(outcomes) + 1), dtype=np.int64)
    codes = np.array([KINDS.index(o) for o in outcomes], dtype=np.int32)
    zeros = np.zeros(len(n), dtype=np.int64)
    nothing = Text(np.full(len(n), -1, dtype=np.int32), ())
    return Writes(
        n,
        zeros,
        zeros,
        zeros,
        zeros.astype(bool),
        n * step,
        n * step,
        n * step + 1_000_000,
        Text(codes, KINDS),
        nothing,
        nothing,
    )


def reads(newest: Sequence[int] = ()) -> Reads:
    values = np.array(newest, dtype=np.int64)
    zeros = np.zeros(len(values), dtype=np.int64)
    nothing = Text(np.full(len(values), -1, dtype=np.int32), ())
    yes = np.ones(len(values), dtype=bool)
    return Reads(zeros, zeros, zeros, yes, zeros, zeros, zeros, yes, values, nothing, nothing, nothing)


def audited(numbers: Sequence[int], copies: dict[int, int] | None = None, caught_up: bool = True) -> Audited:
    n = np.array(sorted(numbers), dtype=np.int64)
    return Audited(n, np.array([(copies or {}).get(int(i), 1) for i in n], dtype=np.int64), caught_up)


def look(w: Writes, audits: dict[str, Audited], r: Reads | None = None, **rest: Any) -> Any:
    options = {"expected": sorted(audits), "primary": "pg2", "known_until": WINDOW_END, "effect": EFFECT}
    return account(w, r or reads(), audits, **(options | rest))


def test_a_clean_history_is_complete_and_lost_nothing() -> None:
    found = look(writes(["acknowledged"] * 5), {"pg2": audited(range(1, 6)), "pg3": audited(range(1, 6))})
    ledger = found.ledger
    assert ledger.complete
    assert (ledger.lost, ledger.phantom, ledger.duplicate, ledger.dirty, ledger.divergent) == (0,) * 5
    assert ledger.rpo_seconds is None


def test_every_class_is_told_apart() -> None:
    w = writes([*["acknowledged"] * 3, "failed", "failed", "unknown", "unknown", "acknowledged_locally"])
    ledger = look(w, {"pg2": audited([1, 3, 4, 6], {3: 2})}, reads([2, 2, 3])).ledger
    assert (ledger.lost, ledger.lost_numbers) == (1, (2,))
    assert (ledger.phantom, ledger.phantom_numbers) == (1, (4,))
    assert (ledger.duplicate, ledger.duplicate_numbers) == (1, (3,))
    assert (ledger.unknown_present, ledger.lost_locally, ledger.dirty) == (1, 1, 1)
    assert (ledger.acknowledged, ledger.failed, ledger.unknown, ledger.acknowledged_locally) == (3, 2, 2, 1)


def test_what_only_another_node_has_is_lost_but_not_dirty() -> None:
    w = writes(["acknowledged"] * 3)
    ledger = look(w, {"pg1": audited([1, 2, 3]), "pg2": audited([1, 3])}, reads([2])).ledger
    assert ledger.lost == 1
    assert ledger.dirty == 0


def test_a_node_that_lacks_what_the_primary_has_is_divergent_only_when_caught_up() -> None:
    w = writes(["acknowledged"] * 3)
    ledger = look(w, {"pg2": audited([1, 2, 3]), "pg3": audited([1])}).ledger
    assert ledger.divergent == 2
    assert next(n for n in ledger.nodes if n.node == "pg3").missing == 2
    behind = look(w, {"pg2": audited([1, 2, 3]), "pg3": audited([1], caught_up=False)}).ledger
    assert behind.divergent == 0
    assert not behind.complete
    assert "pg3" in behind.why


def test_an_audit_that_is_not_of_every_node_is_incomplete() -> None:
    w = writes(["acknowledged"] * 3)
    missing = look(w, {"pg2": audited([1, 2, 3])}, expected=["pg2", "pg4"]).ledger
    assert not missing.complete
    assert "pg4" in missing.why
    assert not look(w, {"pg3": audited([1])}, primary=None).ledger.complete
    assert not look(w, {}, expected=[]).ledger.complete


def test_rpo_in_seconds_is_what_was_torn_out() -> None:
    w = writes(["acknowledged"] * 4, numbers=[990, 995, 1005, 1010])
    ledger = look(w, {"pg2": audited([1010])}).ledger
    assert ledger.rpo_seconds == pytest.approx(1005 - 990)
    assert ledger.rpo_age_seconds == pytest.approx(1000 - 990.001)
    before = look(writes(["acknowledged"] * 2, numbers=[990, 995]), {"pg2": audited([])}).ledger
    assert before.rpo_seconds == pytest.approx(1000 - 990.001)


def test_writes_after_the_audit_read_are_not_held_against_it() -> None:
    # 2001 and 2002 came back after the window; the audit found 2003, which was sent after 2001 came back.
    w = writes(["acknowledged"] * 4, numbers=[1500, 2001, 2003, 2004])
    assert look(w, {"pg2": audited([1500, 2003])}).ledger.lost_numbers == (2001,)
    assert look(w, {"pg2": audited([1500, 2001])}).ledger.lost == 0
    # Sent before, answered after: it may have been in flight when the audit read.
    flying = writes(["acknowledged"] * 2, numbers=[2001, 2003], step=NS)
    late = Writes(*[getattr(flying, f) for f in flying.__dataclass_fields__])
    late.done[0] = 2004 * NS
    assert look(late, {"pg2": audited([2003])}).ledger.lost == 0


def nodes(rows: list[tuple[str, int, bool, int, int]]) -> Nodes:
    """(node, second, accepts, timeline, lsn)"""
    names = tuple(sorted({row[0] for row in rows}))
    accepts = np.array([row[2] for row in rows], dtype=bool)
    t = np.array([row[1] * NS for row in rows], dtype=np.int64)
    return Nodes(
        t,
        t + 1,
        Text(np.array([names.index(row[0]) for row in rows], dtype=np.int32), names),
        np.ones(len(rows), dtype=bool),
        accepts,
        ~accepts,
        np.array([row[3] for row in rows], dtype=np.int64),
        np.array([row[4] for row in rows], dtype=np.int64),
    )


def test_wal_beyond_the_fork_is_the_old_primarys_surplus() -> None:
    history = nodes(
        [
            ("old", 10, True, 1, 1000),
            ("new", 10, False, 1, 900),
            ("old", 12, True, 1, 5000),
            ("new", 12, False, 1, 1200),
            ("new", 20, True, 2, 1300),
        ]
    )
    assert wal_beyond_fork(history, "old", "new", 11 * NS, 15 * NS) == 3800
    assert wal_beyond_fork(history, "old", "old", 11 * NS, 15 * NS) is None
    assert wal_beyond_fork(history, "old", "new", 11 * NS, None) is None
    assert wal_beyond_fork(history, "old", "new", 5 * NS, 15 * NS) is None


def test_a_run_takes_the_worst_rpo_of_its_trials() -> None:
    w = writes(["acknowledged"] * 2, numbers=[990, 995])
    whole = look(w, {"pg2": audited([])}, effect=None).ledger
    assert whole.rpo_seconds is None
    trials = [look(w, {"pg2": audited(found)}).ledger for found in ([990, 995], [990], [])]
    assert summed(whole, trials).rpo_seconds == pytest.approx(1000 - 990.001)
    assert summed(whole, []).rpo_seconds is None


# --- properties -----------------------------------------------------------------------------------

outcomes = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2)), min_size=1, max_size=30)


@given(outcomes)
def test_counts_are_what_the_words_say(rows: list[tuple[str, int]]) -> None:
    w = writes([kind for kind, _ in rows])
    held = {i: copies for i, (_, copies) in enumerate(rows, 1) if copies}
    ledger = look(w, {"pg2": audited(list(held), held)}).ledger
    by_kind = {kind: [copies for k, copies in rows if k == kind] for kind in KINDS}
    assert ledger.lost == by_kind["acknowledged"].count(0)
    assert ledger.phantom == sum(c > 0 for c in by_kind["failed"])
    assert ledger.unknown_present == sum(c > 0 for c in by_kind["unknown"])
    assert ledger.duplicate == sum(copies > 1 for _, copies in rows)
    assert ledger.lost_locally == by_kind["acknowledged_locally"].count(0)


@given(outcomes)
def test_a_write_that_is_acknowledged_and_present_never_makes_a_loss(rows: list[tuple[str, int]]) -> None:
    kinds = [kind for kind, _ in rows]
    held = [i for i, (_, copies) in enumerate(rows, 1) if copies]
    before = look(writes(kinds), {"pg2": audited(held)}).ledger
    more = look(writes([*kinds, "acknowledged"]), {"pg2": audited([*held, len(kinds) + 1])}).ledger
    assert (more.lost, more.phantom, more.duplicate, more.dirty) == (
        before.lost,
        before.phantom,
        before.duplicate,
        before.dirty,
    )
    assert more.acknowledged == before.acknowledged + 1


def test_an_unanswered_write_is_never_lost() -> None:
    w = writes(["unknown"])
    w.done[0] = MISSING
    assert look(w, {"pg2": audited([])}).ledger.lost == 0
