"""The parts of an RTO."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.record.schema import NS
from reports.analysis.breakdown import MILESTONES, breakdown, elections

settings.register_profile("lab", deadline=None)  # a shared machine has slow moments
settings.load_profile("lab")

EFFECT = 7 * NS


def seen(**seconds: float | None) -> dict[str, int | None]:
    return {k: None if v is None else EFFECT + round(v * NS) for k, v in seconds.items()}


def parts(found: Any) -> dict[str, float | None]:
    return {part.name: part.seconds for part in found.parts}


def test_parts_are_the_differences_of_milestones() -> None:
    found = breakdown(seen(expired=18, elected=18.5, promoted=19.5, routed=20, recovered=20.5), EFFECT)
    assert parts(found) == pytest.approx(
        {"detect": 18, "elect": 0.5, "promote": 1, "route": 0.5, "reconnect": 0.5}
    )
    assert found.unattributed == pytest.approx(0)
    assert found.total == pytest.approx(20.5)


def test_a_missing_milestone_gives_its_time_to_unattributed() -> None:
    found = breakdown(seen(expired=18, elected=None, promoted=19.5, routed=20, recovered=20.5), EFFECT)
    assert parts(found)["elect"] is None
    assert parts(found)["promote"] is None
    assert found.unattributed == pytest.approx(1.5)
    assert "elected" in found.why


def test_milestones_out_of_order_are_moved_and_none_is_negative() -> None:
    found = breakdown(seen(expired=18, elected=18.5, promoted=18.4, routed=22, recovered=20.5), EFFECT)
    assert parts(found)["promote"] == 0
    assert parts(found)["route"] == pytest.approx(2)
    assert parts(found)["reconnect"] == 0


def test_two_failovers_have_no_parts_in_common() -> None:
    events = [{"kind": "leader-elected", "t": EFFECT + at, "detail": {}} for at in (5, 9, 30)]
    assert elections(events, EFFECT, EFFECT + 20) == 2
    moments = seen(expired=18, elected=18.5, promoted=19.5, routed=20, recovered=20.5)
    found = breakdown(moments, EFFECT, times_elected=2)
    assert set(parts(found).values()) == {None}
    assert found.unattributed == found.total == pytest.approx(20.5)
    assert "2 times" in found.why
    assert parts(breakdown(moments, EFFECT, times_elected=1))["detect"] == 18


def test_without_a_recovery_there_is_nothing_to_break_down() -> None:
    with pytest.raises(ValueError, match="recovery"):
        breakdown(seen(recovered=None), EFFECT)


@given(
    st.fixed_dictionaries({m: st.one_of(st.none(), st.floats(-1, 60)) for m in MILESTONES[:-1]}),
    st.floats(0, 60),
)
def test_parts_and_remainder_always_add_up(moments: dict[str, float | None], total: float) -> None:
    found = breakdown(seen(**moments, recovered=total), EFFECT)
    known = [part.seconds for part in found.parts if part.seconds is not None]
    assert all(value >= 0 for value in known)
    assert found.unattributed >= 0
    assert sum(known) + found.unattributed == pytest.approx(found.total, abs=1e-6)
