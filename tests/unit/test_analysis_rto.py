"""RTO and the fate of open sessions, on histories with a known answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.record.schema import NS
from reports.analysis.columns import MISSING
from reports.analysis.rto import Operations, new_sessions, open_sessions, outage

settings.register_profile("lab", deadline=None)  # a shared machine has slow moments
settings.load_profile("lab")

MS = 1_000_000
EFFECT = 100 * NS
END = EFFECT + 40 * NS
T = NS


def operations(rows: list[dict[str, Any]]) -> Operations:
    """Rows with intended and done in ms after the effect; outcome a, l (locally), f, u."""

    def at(value: int | None) -> int:
        return MISSING if value is None else EFFECT + value * MS

    def mask(outcome: str) -> Any:
        return np.array([row.get("outcome", "a") == outcome for row in rows], dtype=bool)

    return Operations(
        np.array([at(row["intended"]) for row in rows], dtype=np.int64),
        np.array([at(row["done"]) for row in rows], dtype=np.int64),
        mask("a"),
        mask("f"),
        mask("u"),
        mask("l"),
        np.array([row.get("lost", False) for row in rows], dtype=bool),
        np.array([row.get("session", 1) for row in rows], dtype=np.int64),
        np.array([at(row.get("opened", -60_000)) for row in rows], dtype=np.int64),
        np.array([row.get("fresh", False) for row in rows], dtype=bool),
        np.array([row.get("gave_up", False) for row in rows], dtype=bool),
    )


def history(down_ms: int, *, until: int = 40_000, step: int = 10, took: int = 3) -> list[dict[str, Any]]:
    """Writes every 10 ms; those intended in the first ``down_ms`` fail."""
    return [
        {"intended": t, "done": t + took, "outcome": "f" if 0 <= t < down_ms else "a"}
        for t in range(-1000, until, step)
    ]


def test_a_plain_outage_ends_with_the_first_good_write() -> None:
    found = outage(operations(history(20_000)), EFFECT, END, T)
    assert found.state == "recovered"
    assert found.seconds == pytest.approx(20.003)
    assert found.failed == 2000
    assert found.hold_s == pytest.approx(40 - 20.003)


def test_no_bad_write_is_no_outage_and_not_zero() -> None:
    found = outage(operations(history(0)), EFFECT, END, T)
    assert found.state == "no outage"
    assert found.seconds is None


def test_an_outage_that_begins_late_counts() -> None:
    rows = history(0)
    for row in rows:
        if 15_000 <= row["intended"] < 25_000:
            row["outcome"] = "f"
    assert outage(operations(rows), EFFECT, END, T).seconds == pytest.approx(25.003)


def test_writes_that_an_isolated_primary_acknowledged_and_lost_are_no_recovery() -> None:
    rows = history(0)
    for row in rows:
        if 0 <= row["intended"] < 12_000:
            row["lost"] = True
    found = outage(operations(rows), EFFECT, END, T)
    assert found.seconds == pytest.approx(12.003)
    assert found.lost == 1200


@pytest.mark.parametrize("outcome", ["u", "l", "f"])
def test_only_a_full_acknowledgement_recovers(outcome: str) -> None:
    rows = history(5000)
    for row in rows:
        if 5000 <= row["intended"] < 6000:
            row["outcome"] = outcome
    assert outage(operations(rows), EFFECT, END, T).seconds == pytest.approx(6.003)


def test_one_slow_write_moves_the_recovery_and_one_at_the_limit_does_not() -> None:
    rows = history(5000)
    at = next(i for i, row in enumerate(rows) if row["intended"] == 9000)
    rows[at]["done"] = 10_000
    assert outage(operations(rows), EFFECT, END, T).seconds == pytest.approx(5.003)
    rows[at]["done"] = 10_001
    found = outage(operations(rows), EFFECT, END, T)
    assert found.slow == 1
    assert found.seconds == pytest.approx(9.013)


def test_writes_that_a_pooler_held_and_released_end_at_the_release() -> None:
    rows = [{"intended": t, "done": max(t + 3, 8000) if t >= 0 else t + 3} for t in range(-1000, 40_000, 10)]
    assert outage(operations(rows), EFFECT, END, T).seconds == pytest.approx(8.0)


def test_a_failure_in_flight_at_the_effect_is_an_outage() -> None:
    rows = history(0)
    at = next(i for i, row in enumerate(rows) if row["intended"] == -10)
    rows[at] |= {"done": 5, "outcome": "u"}
    found = outage(operations(rows), EFFECT, END, T)
    assert found.state == "recovered"
    assert found.seconds == pytest.approx(0.003)
    assert found.first_bad_s == pytest.approx(-0.010)


def test_a_failure_within_the_uncertainty_of_the_effect_is_an_outage() -> None:
    rows = history(0)
    at = next(i for i, row in enumerate(rows) if row["intended"] == -100)
    rows[at] |= {"done": -90, "outcome": "u"}
    assert outage(operations(rows), EFFECT, END, T, 50 * MS).state == "no outage"
    found = outage(operations(rows), EFFECT, END, T, 95 * MS)
    assert found.state == "recovered"
    assert found.seconds == 0


def test_a_failure_before_the_effect_is_not_the_faults() -> None:
    rows = history(0)
    rows[10]["outcome"] = "f"
    assert outage(operations(rows), EFFECT, END, T).state == "no outage"


def test_never_recovered_says_at_least() -> None:
    found = outage(operations(history(50_000)), EFFECT, END, T)
    assert found.state == "not recovered"
    assert found.seconds is None
    assert found.at_least == pytest.approx(39.99)


def test_a_recovery_just_before_the_window_ends_is_not_believed() -> None:
    found = outage(operations(history(39_500)), EFFECT, END, T)
    assert found.state == "not recovered"
    assert found.at_least == pytest.approx(39.503)


def test_a_probe_that_ended_early_proves_no_more_than_it_saw() -> None:
    found = outage(operations(history(50_000, until=7000)), EFFECT, END, T)
    assert found.state == "not recovered"
    assert found.at_least == pytest.approx(6.99)


def test_a_write_whose_answer_could_not_be_awaited_is_left_out() -> None:
    rows = history(5000)
    rows[-1] |= {"done": None, "outcome": "u"}
    assert outage(operations(rows), EFFECT, END, T).seconds == pytest.approx(5.003)
    rows[-150] |= {"done": None, "outcome": "u"}
    assert outage(operations(rows), EFFECT, END, T).state == "recovered"
    assert outage(operations(rows), EFFECT, END, T).unknown == 1


def test_nothing_recorded_is_no_data() -> None:
    assert outage(operations([]), EFFECT, END, T).state == "no data"
    assert outage(operations(history(0, until=-500)), EFFECT, END, T).state == "no data"


def test_a_stuck_open_session_moves_its_own_figure_and_not_the_headline() -> None:
    rows = history(5000)
    for row in rows:
        row["opened"] = 100 if row["intended"] >= 0 else -60_000
    rows.append({"intended": 50, "done": 31_000, "outcome": "u", "session": 9, "opened": -60_000})
    ops = operations(rows)
    assert outage(ops, EFFECT, END, T).seconds == pytest.approx(5.003)
    assert outage(new_sessions(ops, EFFECT), EFFECT, END, T).seconds == pytest.approx(5.003)
    found = open_sessions(ops, EFFECT, END, T)
    assert found.seconds == pytest.approx(31.0)
    assert (found.sessions, found.broken) == (1, 1)
    assert found.longest_write_s == pytest.approx(30.95)


@pytest.mark.parametrize("fate", [{"done": None}, {"done": 60_000}, {"done": 20_000, "gave_up": True}])
def test_a_session_that_nobody_told_is_stuck(fate: dict[str, Any]) -> None:
    rows = [{"intended": 50, "outcome": "u", "session": 9, **fate}]
    found = open_sessions(operations(rows), EFFECT, END, T)
    assert found.state == "not recovered"
    assert found.stuck == 1
    assert found.at_least == pytest.approx(40.0)


def test_sessions_that_survive_untouched_or_by_failing_for_a_while() -> None:
    rows = [{"intended": t, "done": t + 3, "session": 1} for t in range(0, 40_000, 100)]
    rows += [
        {"intended": t, "done": t + 3, "session": 2, "outcome": "f" if t < 4000 else "a"}
        for t in range(0, 40_000, 100)
    ]
    rows += [{"intended": 10, "done": 13, "session": 3, "outcome": "f", "fresh": True}]
    rows += [{"intended": 10, "done": 13, "session": 4, "outcome": "f", "opened": 5}]
    found = open_sessions(operations(rows), EFFECT, END, T)
    assert (found.sessions, found.untouched, found.survived, found.broken) == (2, 1, 1, 0)
    assert found.seconds == pytest.approx(4.003)


def test_new_sessions_do_not_hide_behind_old_ones() -> None:
    rows = [{**row, "session": 1} for row in history(0)]
    rows += [
        {"intended": t, "done": t + 3, "fresh": True, "opened": t, "outcome": "f" if t < 7000 else "a"}
        for t in range(0, 40_000, 100)
    ]
    rows += [{"intended": 7100, "done": 7150, "opened": None, "fresh": True, "outcome": "f"}]
    ops = operations(rows)
    assert outage(new_sessions(ops, EFFECT), EFFECT, END, T).seconds == pytest.approx(7.203)
    assert open_sessions(ops, EFFECT, END, T).state == "no outage"


# --- properties -----------------------------------------------------------------------------------

rows_of_history = st.lists(
    st.fixed_dictionaries(
        {
            "intended": st.integers(-2000, 41_000),
            "took": st.one_of(st.integers(1, 900), st.integers(900, 20_000), st.none()),
            "outcome": st.sampled_from("aaaaflu"),
            "lost": st.sampled_from([False] * 9 + [True]),
        }
    ),
    max_size=40,
)


def as_rows(drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for row in drawn:
        done = None if row["took"] is None else row["intended"] + row["took"]
        outcome = "u" if done is None else row["outcome"]
        rows.append({"intended": row["intended"], "done": done, "outcome": outcome, "lost": row["lost"]})
    return rows


def by_definition(
    rows: list[dict[str, Any]], window: int = 40_000, slow: int = 1000
) -> tuple[str, int | None]:
    """The definition, word by word, in ms: (state, recovery)."""
    seen = [
        r
        for r in rows
        if r["intended"] < window
        and (
            (r["done"] is None and -slow < r["intended"] <= window - slow)
            or (r["done"] is not None and (r["intended"] >= 0 or r["done"] > 0))
        )
    ]

    def bad(r: dict[str, Any]) -> bool:
        if r["outcome"] != "a" or r["done"] is None:
            return True
        return bool(r["lost"]) or r["done"] - r["intended"] > slow

    if not any(r["intended"] >= 0 for r in seen):
        return "no data", None
    if not any(bad(r) for r in seen):
        return "no outage", None
    points = [
        r["done"]
        for r in seen
        if not bad(r)
        and r["done"] <= window
        and not any(bad(other) for other in seen if other["intended"] >= r["intended"])
    ]
    if not points or window - min(points) < slow:
        return "not recovered", None
    return "recovered", min(points)


@given(rows_of_history)
def test_the_outage_is_what_the_definition_says(drawn: list[dict[str, Any]]) -> None:
    rows = as_rows(drawn)
    state, recovery = by_definition(rows)
    found = outage(operations(rows), EFFECT, END, T)
    assert found.state == state
    if recovery is not None:
        assert found.seconds == pytest.approx(recovery / 1000, abs=1e-9)
    else:
        assert found.seconds is None


@given(rows_of_history, st.integers(-(10**12), 10**14))
def test_shifting_every_time_changes_nothing(drawn: list[dict[str, Any]], shift: int) -> None:
    ops = operations(as_rows(drawn))
    shift = max(shift, -90 * NS)
    moved = Operations(
        ops.intended + shift,
        np.where(ops.done == MISSING, MISSING, ops.done + shift),
        *(ops.answered, ops.failed, ops.unknown, ops.locally, ops.lost, ops.session),
        ops.opened + shift,
        ops.fresh,
        ops.gave_up,
    )
    assert outage(ops, EFFECT, END, T) == outage(moved, EFFECT + shift, END + shift, T)
    assert open_sessions(ops, EFFECT, END, T) == open_sessions(moved, EFFECT + shift, END + shift, T)


@given(rows_of_history, st.integers(0, 38_000))
def test_one_more_failure_never_shortens_an_outage(drawn: list[dict[str, Any]], at: int) -> None:
    rows = as_rows(drawn)
    before = outage(operations(rows), EFFECT, END, T)
    after = outage(operations([*rows, {"intended": at, "done": at + 1, "outcome": "f"}]), EFFECT, END, T)
    assert after.state in ("recovered", "not recovered")
    if before.seconds is not None and after.seconds is not None:
        assert after.seconds >= before.seconds


@given(st.integers(1, 3000), st.integers(1, 900))
def test_an_outage_of_known_length_comes_out_as_that_length(down: int, took: int) -> None:
    found = outage(operations(history(down * 10, took=took)), EFFECT, END, T)
    assert found.state == "recovered"
    assert found.seconds == pytest.approx((down * 10 + took) / 1000)


def test_a_session_closed_while_idle_was_told_when_it_was_closed() -> None:
    used = {"intended": 1000, "done": 1003, "session": 1}
    ops = operations([used])
    told = open_sessions(ops, EFFECT, END, T, {1: EFFECT + 2 * NS, 7: EFFECT + 3 * NS, 8: EFFECT - 1})
    assert (told.state, told.seconds, told.sessions, told.broken) == ("recovered", 3.0, 2, 2)
    assert open_sessions(operations([]), EFFECT, END, T, {7: EFFECT + NS}).broken == 1
    assert open_sessions(ops, EFFECT, END, T).state == "no outage"
