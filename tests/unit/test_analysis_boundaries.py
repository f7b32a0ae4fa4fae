"""Known answers at the edges of the definitions: the cases that tell each condition from its neighbour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lab.record.schema import NS, Manifest
from reports.analysis.columns import MISSING, Bools, Reads, Text, Writes
from reports.analysis.ledger import wal_beyond_fork
from reports.analysis.model import Analysis, Exposure, Ledger, OpenSessions, Outage, SplitBrain, Trial
from reports.analysis.rto import (
    GAVE_UP,
    Operations,
    closed,
    looked_at,
    new_sessions,
    of_reads,
    of_writes,
    open_sessions,
    outage,
)
from reports.analysis.split_brain import split_brain
from reports.checks.ledger import run as check_ledger
from reports.findings import Finding, Target
from reports.judge import judge, judge_finding
from tests.unit.test_analysis_ledger import audited, look, reads, writes
from tests.unit.test_analysis_ledger import nodes as wal_samples
from tests.unit.test_analysis_rto import EFFECT, END, MS, T, history, operations
from tests.unit.test_analysis_split_brain import nodes as samples

# --- the ledger


def test_only_what_is_acknowledged_and_there_can_be_divergent() -> None:
    w = writes(["acknowledged", "acknowledged", "failed", "unknown"])
    found = look(w, {"pg2": audited([1, 4]), "pg3": audited([])}).ledger
    assert (found.lost, found.divergent) == (1, 1)
    missing = {one.node: one.missing for one in found.nodes}
    assert missing == {"pg2": 0, "pg3": 1}


def test_the_primary_is_not_held_against_itself() -> None:
    w = writes(["acknowledged"] * 3)
    # Write 3 is present and came back after everything that covers pg3.
    found = look(w, {"pg2": audited([1, 2, 3]), "pg3": audited([1])}, known_until=2 * NS + 1_000_000).ledger
    assert found.divergent == 1
    assert {one.node: one.missing for one in found.nodes} == {"pg2": 0, "pg3": 1}


def test_what_the_audit_cannot_know_is_neither_dirty_nor_lost_locally() -> None:
    w = writes(["acknowledged_locally", "acknowledged_locally", "unknown"])
    found = look(w, {"pg2": audited([])}, reads([2, 3]), known_until=NS + 1_000_000).ledger
    assert (found.lost_locally, found.dirty) == (1, 0)
    there = look(w, {"pg2": audited([1])}, reads([1])).ledger
    assert (there.lost_locally, there.dirty) == (1, 0)


def test_covered_is_what_came_back_at_the_last_known_moment_and_not_a_ns_later() -> None:
    w = writes(["acknowledged"] * 2)
    done = 2 * NS + 1_000_000
    assert look(w, {"pg2": audited([])}, known_until=done).ledger.lost == 2
    assert look(w, {"pg2": audited([])}, known_until=done - 1).ledger.lost == 1
    assert look(w, {"pg2": audited([])}, known_until=None).ledger.lost == 0


def test_a_write_without_an_answer_is_never_covered() -> None:
    w = writes(["acknowledged_locally"])
    w.done[0] = MISSING
    assert look(w, {"pg2": audited([])}).ledger.lost_locally == 0


def test_a_read_that_failed_showed_nothing() -> None:
    w, r = writes(["acknowledged"]), reads([1])
    assert look(w, {"pg2": audited([])}, r).ledger.dirty == 1
    r.ok[0] = False
    assert look(w, {"pg2": audited([])}, r).ledger.dirty == 0


def test_an_audit_of_nobody_says_so() -> None:
    assert look(writes(["acknowledged"]), {}, expected=[]).ledger.why == "no node was audited"
    some = look(writes(["acknowledged"]), {"pg3": audited([1])}, expected=[], primary=None).ledger
    assert some.why == "it is not known which node was primary at the audit"
    assert look(writes(["acknowledged"]), {}, expected=["pg1"]).ledger.why == "not audited: pg1"
    # A primary that was not audited: nothing is lost by that.
    other = look(writes(["acknowledged"]), {"pg3": audited([])}, expected=["pg2", "pg3"])
    assert (other.ledger.lost, other.ledger.complete) == (0, False)


def test_a_loss_acknowledged_at_the_effect_has_no_age() -> None:
    w = writes(["acknowledged"], numbers=[999])
    at = 999 * NS + 1_000_000
    found = look(w, {"pg2": audited([])}, effect=at).ledger
    assert (found.rpo_seconds, found.rpo_age_seconds) == (0, None)
    later = look(w, {"pg2": audited([])}, effect=at + NS).ledger
    assert (later.rpo_seconds, later.rpo_age_seconds) == (1, 1)


WAL = [
    ("old", 5, True, 1, 40),
    ("old", 9, False, 1, 9000),  # in recovery then: says nothing of what it wrote
    ("old", 10, True, 2, 100),
    ("new", 11, False, 2, 90),
    ("third", 12, True, 2, 8000),
    ("old", 13, True, 2, 500),
    ("old", 14, True, 3, 7000),  # another timeline
    ("old", 15, False, 2, 6000),
    ("new", 16, False, 2, 120),
    ("third", 17, False, 2, 300),
    ("new", 18, True, 3, 200),
    ("new", 20, False, 3, 260),  # at the promotion, and later: no position of before
    ("new", 21, False, 3, 270),
]


def test_wal_counts_the_old_primary_s_own_timeline_while_it_accepted_writes() -> None:
    assert wal_beyond_fork(wal_samples(WAL), "old", "new", 10 * NS, 20 * NS) == 500 - 120
    assert wal_beyond_fork(wal_samples(WAL), "old", "new", 10 * NS - 1, 20 * NS) == 0
    assert wal_beyond_fork(wal_samples(WAL), None, "new", 10 * NS, 20 * NS) is None
    assert wal_beyond_fork(wal_samples(WAL), "old", None, 10 * NS, 20 * NS) is None
    assert wal_beyond_fork(wal_samples(WAL), "old", "old", 10 * NS, 20 * NS) is None


def test_positions_that_were_not_told_are_left_out() -> None:
    unknown = [("old", 12, True, 2, MISSING), ("new", 17, False, 2, MISSING)]
    rows = sorted([*WAL, *unknown], key=lambda row: row[1])
    assert wal_beyond_fork(wal_samples(rows), "old", "new", 12 * NS, 20 * NS) == 500 - 120
    # Back on its timeline after an earlier reign: what it had then is no longer there.
    again = [("old", 1, True, 2, 99_000), *WAL]
    assert wal_beyond_fork(wal_samples(again), "old", "new", 10 * NS, 20 * NS) == 500 - 120
    assert wal_beyond_fork(wal_samples(WAL[:3]), "old", "new", 10 * NS, 20 * NS) is None
    silent = [("old", 10, True, 2, MISSING), ("new", 11, False, 2, 90)]
    assert wal_beyond_fork(wal_samples(silent), "old", "new", 10 * NS, 20 * NS) is None


# --- RTO


def table(kind: type[Any], count: int, **given: Any) -> Any:
    """A table of which only some columns matter."""
    empty = {
        "Ints": lambda: np.zeros(count, dtype=np.int64),
        "Bools": lambda: np.zeros(count, dtype=np.bool_),
        "Text": lambda: words([None] * count),
    }
    columns = kind.__dataclass_fields__
    return kind(**{name: given.get(name, empty[str(field.type)]()) for name, field in columns.items()})


def words(values: list[str | None]) -> Text:
    known = tuple(sorted({value for value in values if value is not None}))
    codes = [-1 if value is None else known.index(value) for value in values]
    return Text(np.array(codes, dtype=np.int32), known)


def flags(*values: int) -> Bools:
    return np.array(values, dtype=np.bool_)


def test_writes_become_operations() -> None:
    outcome = words(["acknowledged", "acknowledged", "acknowledged_locally", "failed", "unknown", "failed"])
    w: Writes = table(Writes, 6, outcome=outcome, message=words([None, None, None, None, GAVE_UP, "refused"]))
    ops = of_writes(w, flags(0, 1, 1, 1, 0, 0))
    assert ops.answered.tolist() == [True, True, False, False, False, False]
    assert ops.failed.tolist() == [False, False, False, True, False, True]
    assert ops.unknown.tolist() == [False, False, False, False, True, False]
    assert ops.locally.tolist() == [False, False, True, False, False, False]
    assert ops.lost.tolist() == [False, True, False, False, False, False]
    assert ops.gave_up.tolist() == [False, False, False, False, True, False]


def test_reads_become_operations() -> None:
    ops = of_reads(table(Reads, 2, ok=flags(1, 0), message=words([None, GAVE_UP])))
    assert ops.answered.tolist() == [True, False]
    assert ops.failed.tolist() == [False, True]
    assert ops.gave_up.tolist() == [False, True]
    assert not (ops.unknown | ops.locally | ops.lost).any()


def test_slow_is_an_answer_later_than_t() -> None:
    rows = [
        {"intended": 0, "done": 1000},
        {"intended": 0, "done": 1001},
        {"intended": 0, "done": 5000, "outcome": "f"},
        {"intended": -101_000, "done": None},
    ]
    ops = operations(rows)
    assert ops.slow(T).tolist() == [False, True, False, False]
    assert ops.bad(T).tolist() == [False, True, True, True]


def shown(rows: list[dict[str, Any]], window_ms: int = 40_000) -> list[int]:
    ops = looked_at(operations(rows), EFFECT, EFFECT + window_ms * MS, T)
    return [int((t - EFFECT) // MS) for t in ops.intended]


def test_what_is_looked_at_ends_where_the_definition_says() -> None:
    assert shown([{"intended": t, "done": t + 3} for t in (-4, -3, -2, -1, 0, 39_999, 40_000)]) == [
        -2, -1, 0, 39_999,
    ]  # fmt: skip
    never = [{"intended": t, "done": None, "outcome": "u"} for t in (-1001, -1000, -999, 0, 39_000, 39_001)]
    assert shown(never) == [-999, 0, 39_000]
    assert shown([{"intended": 0, "done": None, "outcome": "u"}]) == [0]
    # Back at the effect itself it had not been touched.
    assert shown([{"intended": -3, "done": 0}, {"intended": -3, "done": 1}]) == [-3]
    # A clock may be set back by its offset: intended at the effect counts, whenever it came back.
    assert shown([{"intended": 0, "done": -1}]) == [0]


def test_a_window_with_a_write_at_its_first_moment_has_data() -> None:
    assert outage(operations([{"intended": 0, "done": 3}]), EFFECT, END, T).state == "no outage"
    before = [{"intended": -1, "done": 3, "outcome": "f"}]
    assert outage(operations(before), EFFECT, END, T).state == "no data"
    assert outage(operations([]), EFFECT, END, T).why


def test_a_recovery_that_is_seen_for_exactly_t_is_believed() -> None:
    rows = [
        {"intended": 0, "done": 3, "outcome": "f"},
        {"intended": 10, "done": 13, "outcome": "f"},
        {"intended": 20, "done": 39_000},
        {"intended": 38_990, "done": 39_000},
    ]
    found = outage(operations(rows), EFFECT, END, T)
    # The third is slow, and bad; so the last recovers, at 39 s.
    assert (found.state, found.seconds, found.hold_s) == ("recovered", 39.0, 1.0)
    assert (found.first_bad_s, found.last_bad_s) == (0.0, pytest.approx(0.02))
    rows[3]["done"] = 39_001
    assert outage(operations(rows), EFFECT, END, T).state == "not recovered"


def test_a_good_answer_counts_up_to_the_window_s_last_moment() -> None:
    rows = [{"intended": 0, "done": 3, "outcome": "f"}, {"intended": 39_990, "done": 40_000}]
    found = outage(operations(rows), EFFECT, END, T)
    assert found.at_least == 40.0
    assert "too late to see" in found.why
    rows[1]["done"] = 40_001
    assert "no good operation" in outage(operations(rows), EFFECT, END, T).why


def test_an_answer_before_the_last_bad_one_was_intended_is_no_recovery() -> None:
    rows = [
        {"intended": 0, "done": 3, "outcome": "f"},
        {"intended": 100, "done": 103},
        {"intended": 100, "done": 110, "outcome": "f"},
        {"intended": 200, "done": 203},
    ]
    assert outage(operations(rows), EFFECT, END, T).seconds == pytest.approx(0.203)


def test_a_session_is_new_from_the_effect_on() -> None:
    rows = [
        {"intended": -1, "done": 3, "opened": None},
        {"intended": 0, "done": 3, "opened": 0},
        {"intended": 5, "done": 8, "opened": None},
        {"intended": 6, "done": 8, "opened": -1},
    ]
    ops = new_sessions(operations(rows), EFFECT)
    assert [int((t - EFFECT) // MS) for t in ops.intended] == [0, 5]


def fates(rows: list[dict[str, Any]], ended: dict[int, int] | None = None) -> OpenSessions:
    times = {session: EFFECT + at * MS for session, at in (ended or {}).items()}
    return open_sessions(operations(rows), EFFECT, END, T, times)


def counts(found: OpenSessions) -> tuple[int, int, int, int, int]:
    return found.sessions, found.survived, found.untouched, found.broken, found.stuck


def test_open_is_a_session_that_lasted_and_was_opened_before_the_effect() -> None:
    rows = [
        {"intended": 10, "done": 13, "outcome": "f", "session": 1, "opened": -1},
        {"intended": 10, "done": 13, "outcome": "f", "session": 2, "opened": 0},
        {"intended": 10, "done": 13, "outcome": "f", "session": 3, "opened": None},
        {"intended": 10, "done": 13, "outcome": "f", "session": 4, "opened": -1, "fresh": True},
    ]
    assert counts(fates(rows)) == (1, 0, 0, 1, 0)


def test_each_session_has_its_own_fate() -> None:
    rows = [
        {"intended": 10, "done": 20, "outcome": "u", "session": 1},
        {"intended": 10, "done": 30, "outcome": "f", "session": 2},
        {"intended": 20, "done": 40, "session": 2},
        {"intended": 10, "done": 13, "session": 3},
        {"intended": 10, "done": 2000, "session": 4},
        {"intended": 50, "done": 90, "outcome": "l", "session": 5},
    ]
    found = fates(rows)
    assert counts(found) == (5, 3, 1, 1, 0)
    assert found.seconds == 2.0
    assert found.longest_write_s == pytest.approx(1.99)


def test_an_answer_at_the_window_s_end_settles_and_one_after_it_does_not() -> None:
    assert counts(fates([{"intended": 10, "done": 40_000, "outcome": "f"}])) == (1, 0, 0, 1, 0)
    late = fates([{"intended": 10, "done": 40_001, "outcome": "f"}])
    assert (counts(late), late.at_least) == ((1, 0, 0, 0, 1), 40.0)


def test_the_longest_write_is_the_longest_that_was_bad_and_came_back() -> None:
    rows = [
        {"intended": 10, "done": 900},
        {"intended": 1000, "done": 1020, "outcome": "f"},
        {"intended": 1100, "done": 1500, "outcome": "f"},
        {"intended": 1600, "done": None, "outcome": "u"},
    ]
    assert fates(rows).longest_write_s == pytest.approx(0.4)
    assert fates(rows[-1:]).longest_write_s is None


@pytest.mark.parametrize(("at", "told"), [(-1, False), (0, True), (40_000, True), (40_001, False)])
def test_closed_in_the_window_is_told(at: int, told: bool) -> None:
    found = fates([{"intended": 10, "done": 13, "session": 1}], {1: at})
    assert counts(found) == ((1, 0, 0, 1, 0) if told else (1, 0, 1, 0, 0))
    assert found.seconds == (at / 1000 if told else None)


def test_a_session_that_lost_what_it_acknowledged_is_stuck_unless_it_was_closed() -> None:
    rows = [{"intended": 10, "done": 13, "lost": True, "session": 1}]
    assert counts(fates(rows)) == (1, 0, 0, 0, 1)
    assert counts(fates(rows, {1: 500})) == (1, 0, 0, 1, 0)
    assert fates(rows, {1: 500}).seconds == 0.5
    # Nobody told this one: a closing that another session had is none of its own.
    silent = [{"intended": 10, "done": None, "outcome": "u", "session": 1}]
    assert counts(fates(silent, {1: 500})) == (2, 0, 0, 1, 1)
    # It works again: that a later one closes it is no part of the outage.
    again = [
        {"intended": 10, "done": 13, "outcome": "f", "session": 1},
        {"intended": 20, "done": 23, "session": 1},
    ]
    assert counts(fates(again, {1: 500}))[1] == 1


def test_sessions_that_were_closed_while_idle_by_probe() -> None:
    def event(session: int, endpoint: str, opened: int, kind: str = "session-closed") -> dict[str, Any]:
        detail = {"session": session, "endpoint": endpoint, "session_opened": opened}
        return {"kind": kind, "t": 50 + session, "detail": detail}

    events = [
        event(1, "pool.writer", 9),
        event(2, "pool.writer", 10),
        event(3, "pool.reader", 9),
        event(4, "router.read", 9),
        event(5, "sentinel", 9),
        event(6, "pool.writer", 9, "other"),
    ]
    assert closed(events, 10, "writer") == {1: 51}
    assert closed(events, 10, "reader") == {3: 53, 4: 54}
    assert closed(events, 10, "redis") == {5: 55}


def test_an_outage_counts_what_was_bad_by_kind() -> None:
    rows = [*history(0, until=100), *({"intended": 200, "done": 203, "outcome": o} for o in "fful")]
    rows += [{"intended": 300, "done": 2300}, {"intended": 310, "done": 313, "lost": True}]
    found = outage(operations(rows), EFFECT, END, T)
    assert (found.failed, found.unknown, found.locally, found.slow, found.lost) == (2, 1, 1, 1, 1)
    assert found.operations == 10 + 6


def test_operations_are_taken_row_by_row() -> None:
    ops = operations([{"intended": 1, "done": 2}, {"intended": 3, "done": 4, "outcome": "f"}])
    assert isinstance(ops.take(ops.failed), Operations)
    assert ops.take(ops.failed).intended.tolist() == [EFFECT + 3 * MS]


# --- split brain


def test_samples_outside_the_trial_do_not_count() -> None:
    rows = [("a", 0, 1, True), ("a", 100, 101, True), ("b", 50, 51, True), ("b", 60, 61, True)]
    whole = split_brain(samples(*rows), 0, 200 * MS)
    assert (whole.moments, whole.samples, whole.certain_s) == (2, 4, pytest.approx(0.009))
    assert split_brain(samples(*rows), 0, 100 * MS).samples == 3
    assert split_brain(samples(*rows), 0, 100 * MS).moments == 0
    assert split_brain(samples(*rows), 0, 100 * MS + 1).moments == 2
    assert split_brain(samples(*rows), 1, 200 * MS).moments == 0


def test_a_moment_is_a_proof_even_where_it_has_no_length() -> None:
    found = split_brain(samples(("a", 0, 1, True), ("a", 100, 101, True), ("b", 50, 51, True)), 0, NS)
    assert (found.certain_s, found.moments, found.pairs) == (0, 1, (("a", "b"),))
    # And a certain overlap without a moment: neither's sample lies within the other's run.
    rows = [("a", 0, 10, True), ("a", 40, 50, True), ("b", 5, 20, True), ("b", 45, 60, True)]
    other = split_brain(samples(*rows), 0, NS)
    assert (other.moments, other.certain_s, other.pairs) == (0, pytest.approx(0.020), (("a", "b"),))


def test_a_sample_touching_the_ends_of_a_run_is_within_it() -> None:
    rows = [("a", 0, 10, True), ("a", 50, 60, True), ("b", 10, 50, True)]
    assert split_brain(samples(*rows), 0, NS).moments == 1
    earlier = [("a", 0, 10, True), ("a", 50, 60, True), ("b", 9, 50, True)]
    assert split_brain(samples(*earlier), 0, NS).moments == 0
    later = [("a", 0, 10, True), ("a", 50, 60, True), ("b", 10, 51, True)]
    assert split_brain(samples(*later), 0, NS).moments == 0


def test_a_reign_known_for_one_moment_holds_what_happened_in_it() -> None:
    rows = [("a", 0, 10, True), ("a", 10, 20, True), ("b", 10, 10, True)]
    assert split_brain(samples(*rows), 0, NS).moments == 1


def test_reigns_that_only_touch_are_no_pair() -> None:
    rows = [("a", 0, 8, True), ("a", 10, 12, True), ("b", 5, 10, True), ("b", 10, 30, True)]
    assert split_brain(samples(*rows), 0, NS).pairs == ()


def test_one_of_several_runs_is_enough() -> None:
    rows = [
        ("a", 0, 1, True),
        ("a", 20, 21, True),
        ("a", 30, 31, False),
        ("a", 40, 41, True),
        ("a", 60, 61, True),
    ]
    assert split_brain(samples(*rows, ("b", 50, 51, True)), 0, NS).moments == 1


def test_overlaps_of_several_pairs_are_counted_once() -> None:
    def reign(name: str, begin: int, end: int) -> list[tuple[str, int, int, bool]]:
        return [(name, t, t, True) for t in range(begin, end + 1, 10)]

    both = split_brain(samples(*reign("a", 0, 100), *reign("b", 20, 60), *reign("c", 40, 80)), 0, NS)
    assert both.certain_s == pytest.approx(0.060)
    inside = split_brain(samples(*reign("a", 0, 100), *reign("b", 0, 100), *reign("c", 40, 60)), 0, NS)
    assert inside.certain_s == pytest.approx(0.100)
    apart = split_brain(samples(*reign("a", 0, 100), *reign("b", 10, 30), *reign("c", 50, 70)), 0, NS)
    assert apart.certain_s == pytest.approx(0.040)


# --- verdicts

LIMIT = Target(
    id="x", quote="x", place="1", metric="rto.write", comparison="<=", limit=10, unit="s",
    scenarios=("kill-primary",),
)  # fmt: skip


def found(value: float | None, **changes: Any) -> Finding:
    fields: dict[str, Any] = {"metric": "rto.write", "unit": "s", "value": value, "detail": {"trials": 3}}
    return Finding(**(fields | changes))


def test_a_bound_at_the_limit_decides_by_the_comparison() -> None:
    def status(at_least: float, comparison: str) -> str:
        target = LIMIT.model_copy(update={"comparison": comparison})
        detail = {"trials": 3, "at_least": at_least}
        return judge_finding(target, found(None, status="inconclusive", detail=detail)).status

    assert status(10, "<") == "not met"
    assert status(10, "<=") == "inconclusive"
    assert status(10.1, "<=") == "not met"
    assert status(9.9, "<") == "inconclusive"
    assert status(1e9, ">=") == "inconclusive"
    assert status(1e9, ">") == "inconclusive"


def test_a_figure_counts_more_than_a_bound_beside_it() -> None:
    assert judge_finding(LIMIT, found(5, detail={"trials": 3, "at_least": 99})).status == "met"


def test_no_outage_takes_trials_that_all_had_none() -> None:
    def status(**detail: Any) -> str:
        return judge_finding(LIMIT, found(None, detail=detail)).status

    assert status(trials=3, no_outage=3) == "met"
    assert status(trials=3, no_outage=2) == "inconclusive"
    assert status(trials=2, no_outage=2) == "inconclusive"
    assert status(trials=0, no_outage=0) == "inconclusive"
    assert status(trials="3", no_outage="3") == "inconclusive"
    assert "there is no figure" in judge_finding(LIMIT, found(None, detail={"trials": 0, "no_outage": 0})).why
    assert judge_finding(LIMIT, found(None, why="a reason", detail={})).why == "a reason"


def test_a_verdict_always_has_a_reason() -> None:
    for status in ("invalid", "not run", "inconclusive"):
        assert judge_finding(LIMIT, found(None, status=status)).why == "no reason was given"


def manifest(**fields: Any) -> Manifest:
    return Manifest(
        run="r", state="closed", lab_version="0", scenario="kill-primary", topology="t", lab="l", seed=1,
        started_wall="", trials_asked=3, fault="kill-node", **fields,
    )  # fmt: skip


def test_a_run_answers_only_the_promises_that_its_scenario_tests() -> None:
    run = Analysis(run="r", manifest=manifest(), duration_s=1, findings=(found(5),))
    assert judge(run, LIMIT).status == "met"
    assert judge(run, LIMIT).why.startswith("5 s in the worst of 3 trials")
    one = run.model_copy(update={"findings": (found(50, detail={"trials": 1}),)})
    assert judge(one, LIMIT).why == "50 s in the worst of 1 trial, promised ≤ 10 s"
    assert judge(run, LIMIT.model_copy(update={"scenarios": ("steady",)})).status == "not run"
    assert "measured" not in judge(run, LIMIT).why
    paper = judge(run, LIMIT.model_copy(update={"method": "on paper"}))
    assert paper.why.endswith("(on paper)")
    calm = run.model_copy(update={"findings": (found(None, detail={"trials": 3, "no_outage": 3}),)})
    assert "no outage was seen in 3 trials" in judge(calm, LIMIT).why
    single = judge_finding(LIMIT, found(None, detail={"trials": 1, "no_outage": 1}))
    assert "no outage was seen in 1 trial with" in single.why
    bare = LIMIT.model_copy(update={"unit": "1"})
    assert judge_finding(bare, found(5, unit="1")).why.startswith("5 in")


# --- RPO


def trial(number: int, exposure: Exposure, invalid: tuple[str, ...] = (), **ledger: Any) -> Trial:
    none = Outage(state="no data")
    return Trial(
        trial=number, start_s=0, effect_s=1, uncertainty_s=0, window_end_s=2, end_s=3, target="a",
        new_primary="b", verified=True, write=none, write_new=none, write_open=OpenSessions(state="no data"),
        read=none, read_new=none, read_open=OpenSessions(state="no data"), breakdown=None,
        ledger=Ledger(**{"complete": True, "acknowledged": 10, **ledger}), split_brain=SplitBrain(),
        exposure=exposure, invalid=invalid, void=invalid,
    )  # fmt: skip


PROVES = Exposure(
    kinds=("partition",),
    primary_cut=True,
    took_over=True,
    attempted=5,
    acknowledged=2,
    reached=3,
    unreplicated=9,
)
VACUOUS = PROVES.model_copy(update={"attempted": 0})


def rpo(*trials: Trial, metric: str = "rpo.rows", whole_lost: int | None = None) -> Finding:
    lost = sum(t.ledger.lost for t in trials) if whole_lost is None else whole_lost
    run = Analysis(
        run="r", manifest=manifest(), duration_s=1, trials=trials, ledger=Ledger(lost=lost, complete=True)
    )
    every: Any = None
    return next(f for f in check_ledger(run, every) if f.metric == metric)


def test_the_worst_trial_is_the_figure_and_invalid_ones_are_left_out() -> None:
    trials = [trial(1, PROVES, lost=2, rpo_seconds=0.5), trial(2, PROVES, lost=7, rpo_seconds=0.25)]
    spoilt = trial(3, PROVES, ("why not",), lost=99, rpo_seconds=9)
    assert (rpo(*trials, spoilt).value, rpo(*trials, spoilt).samples) == (7, (2, 7))
    assert "trial 3: why not" in rpo(*trials, spoilt).why
    assert rpo(*trials, metric="rpo.seconds").value == 0.5
    assert rpo(*trials, metric="ledger.lost").detail["total"] == 9
    assert rpo(*trials).detail["acknowledged"] == 20
    # Seconds of a trial that lost nothing are none, whatever stands there.
    assert rpo(trial(1, PROVES, lost=0, rpo_seconds=3), metric="rpo.seconds").value == 0


def test_an_incomplete_audit_makes_every_figure_invalid() -> None:
    half = trial(2, PROVES, complete=False, why="pg3 was behind", lost=4)
    for metric in ("rpo.rows", "rpo.seconds", "ledger.phantom"):
        found = rpo(trial(1, PROVES), half, metric=metric)
        assert (found.value, found.status) == (None, "invalid")
        assert found.why == "the audit: trial 2: pg3 was behind"


def test_a_loss_that_no_trial_accounts_for_is_added() -> None:
    found = rpo(trial(1, PROVES, lost=1), trial(2, PROVES, lost=2), whole_lost=5)
    assert (found.value, found.why) == (4, "2 write(s) were lost outside the trials")
    none = rpo(trial(1, PROVES), whole_lost=1)
    assert (none.value, none.status) == (1, None)
    assert rpo(trial(1, PROVES, lost=1), whole_lost=1).value == 1
    # In seconds nothing is known of it: that stays with the trials.
    assert rpo(trial(1, PROVES), metric="rpo.seconds", whole_lost=3).value == 0
    assert rpo(trial(1, PROVES), metric="ledger.phantom", whole_lost=3).value == 0


def test_no_loss_is_proven_by_exposed_partitions_only() -> None:
    proven = rpo(trial(1, PROVES), trial(2, PROVES))
    assert (proven.value, proven.status, proven.samples) == (0, None, (0, 0))
    assert (proven.detail["exposed"], proven.detail["exposed_acknowledged"]) == (10, 4)
    assert proven.detail["trials"] == 2
    kill = Exposure(kinds=("kill",))
    mixed = rpo(trial(1, PROVES), trial(2, kill), trial(3, VACUOUS))
    assert (mixed.status, mixed.detail["trials"]) == (None, 1)
    assert "a kill cannot prove RPO 0" in mixed.why
    assert "exposed no write (trial 3)" in mixed.why
    weak = rpo(trial(1, kill), trial(2, VACUOUS))
    assert (weak.value, weak.status) == (0, "inconclusive")
    empty = rpo(trial(1, VACUOUS))
    assert (empty.value, empty.status) == (None, "invalid")
    assert rpo(trial(1, kill), metric="ledger.phantom").status is None
    assert (
        rpo(
            trial(
                1,
                VACUOUS,
            ),
            metric="ledger.lost",
        ).status
        == "invalid"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unreplicated": 0}, "the new primary had all that the old one wrote (trial 1)"),
        ({"reached": 0}, "clients had lost the old primary as well (trial 1)"),
        ({"took_over": False}, "no other node took over (trial 1)"),
        ({"primary_cut": False}, "the partition did not cut off the primary (trial 1)"),
        ({"primary_cut": False, "kinds": ("pause",)}, "a pause cannot prove RPO 0"),
        ({"primary_cut": False, "kinds": ("pause", "kill")}, "a kill and a pause cannot prove"),
        ({"primary_cut": False, "kinds": ()}, "a fault of unknown kind cannot prove"),
    ],
)
def test_why_a_partition_was_too_weak(changes: dict[str, Any], said: str) -> None:
    found = rpo(trial(1, PROVES.model_copy(update=changes)))
    assert found.status == "inconclusive"
    assert said in found.why


def test_a_loss_in_one_trial_is_not_excused_by_another() -> None:
    kill = Exposure(kinds=("kill",))
    found = rpo(trial(1, kill), trial(2, kill, lost=3))
    assert (found.value, found.status) == (3, None)


def test_why_several_trials_together_were_too_weak() -> None:
    def said(*changes: dict[str, Any]) -> str:
        return rpo(*(trial(n, PROVES.model_copy(update=c)) for n, c in enumerate(changes, 1))).why

    assert "no other node took over (trial 1, 2)" in said({"reached": 0}, {"took_over": False})
    assert "the new primary had all" in said({"reached": 0}, {"unreplicated": 0})
    other = {"primary_cut": False, "kinds": ("pause",)}
    assert "a pause cannot prove" in said({"took_over": False}, other)
