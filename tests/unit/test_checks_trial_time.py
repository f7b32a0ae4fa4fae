"""Where the time of a trial goes: against trials made up by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.record.schema import NS
from reports.analysis import analyse
from reports.checks.trial_time import spent
from tests.synthetic import make_record

KILL = {
    "trial-start": 0.0, "fault-begin": 2.0, "fault-effect": 2.3, "fault-verified": 4.0, "window-end": 32.3,
    "heal-begin": 32.5, "heal-end": 33.5, "heal-verified": 35.0, "redundant": 38.0, "synchronous": 39.5,
    "trial-end": 40.0,
}  # fmt: skip


def events(moments: dict[str, float], *more: tuple[str, float]) -> list[dict[str, Any]]:
    rows = [{"kind": kind, "t": round(s * NS)} for kind, s in (*moments.items(), *more)]
    return sorted(rows, key=lambda row: row["t"])


def test_the_lab_is_what_is_not_waited_for() -> None:
    found = spent(events(KILL))
    assert found is not None
    # 0.3 s to inject, 0.2 + 1 s to heal, 0.5 s to notice.
    assert (found.total, found.window, found.database, found.own) == (38.0, 30.0, 6.0, 2.0)


def test_what_was_healed_within_the_window_costs_nothing_more() -> None:
    early = {**KILL, "heal-begin": 12.0, "heal-end": 13.0, "heal-verified": 13.5, "redundant": 15.0,
             "synchronous": 16.0, "trial-end": 32.7}  # fmt: skip
    found = spent(events(early))
    assert found is not None
    assert (found.total, found.window, found.database) == (30.7, 30.0, 0.0)
    assert found.own == pytest.approx(0.7)


def test_the_last_healing_counts() -> None:
    found = spent(events(KILL, ("heal-end", 36.0)))
    assert found is not None
    assert (found.database, found.own) == (3.5, 4.5)


@pytest.mark.parametrize("missing", ["fault-effect", "window-end", "heal-end", "redundant", "trial-end"])
def test_a_trial_that_was_cut_short_has_no_time(missing: str) -> None:
    assert spent(events({kind: at for kind, at in KILL.items() if kind != missing})) is None


def test_of_a_record(tmp_path: Path) -> None:
    analysis = analyse(make_record(tmp_path / "run", trials=2))
    total, own = analysis.finding("trial.seconds"), analysis.finding("trial.lab_seconds")
    assert total is not None
    assert own is not None
    assert total.detail["trials"] == len(own.samples) == 2
    assert total.value is not None
    assert own.value is not None
    assert 0 <= own.value < total.value
    calm = analyse(make_record(tmp_path / "calm", trials=0)).finding("trial.seconds")
    assert calm is not None
    assert calm.status == "not run"
