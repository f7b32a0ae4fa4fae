"""Delta debugging: what it ends with fails, and no single step of it can go."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.commands.shrink import _Job
from lab.errors import RecordError
from lab.scenario.loader import load_scenario
from lab.scenario.models import Scenario
from lab.scenario.runner import Done
from lab.scenario.shrink import Notes, Steps, Tried, keep, search


def run(every: Steps, fails: Callable[[Steps], bool]) -> tuple[Steps, dict[Steps, bool]]:
    known: dict[Steps, bool] = {}
    while True:
        found = search(every, known)
        if found.ask is None:
            return found.best, known
        assert found.ask not in known
        assert set(found.ask) < set(every)
        assert found.ask
        assert list(found.ask) == sorted(found.ask)
        known[found.ask] = fails(found.ask)


STEPS = st.integers(1, 14).map(lambda n: tuple(range(1, n + 1)))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), every=STEPS)
def test_steps_that_all_have_to_be_there_are_found(data: st.DataObject, every: Steps) -> None:
    needed = set(data.draw(st.sets(st.sampled_from(every), min_size=1)))
    best, known = run(every, lambda steps: needed <= set(steps))
    assert set(best) == needed
    # The paper's worst case: n² + 3n tests.
    assert len(known) <= len(every) ** 2 + 3 * len(every)


@settings(max_examples=300, deadline=None)
@given(salt=st.integers(), every=STEPS, share=st.sampled_from([0.1, 0.5, 0.9]))
def test_whatever_fails_the_result_fails_and_is_minimal(salt: int, every: Steps, share: float) -> None:
    def fails(steps: Steps) -> bool:
        return steps == every or hash((salt, steps)) % 1000 < share * 1000

    best, known = run(every, fails)
    assert best == every or known[best]
    if len(best) > 1:
        for left_out in best:
            rest = tuple(n for n in best if n != left_out)
            assert known[rest] is False


@settings(max_examples=100, deadline=None)
@given(data=st.data(), every=STEPS)
def test_a_search_goes_on_where_it_was_left(data: st.DataObject, every: Steps) -> None:
    needed = set(data.draw(st.sets(st.sampled_from(every), min_size=1)))
    best, known = run(every, lambda steps: needed <= set(steps))
    some = dict(list(known.items())[: data.draw(st.integers(0, len(known)))])
    found = search(every, some)
    assert found.ask not in some
    assert set(best) <= set(found.best)
    if len(some) < len(known):
        assert found.ask == list(known)[len(some)]


def test_the_course_of_a_search() -> None:
    best, known = run((1, 2, 3, 4), lambda steps: {2, 3} <= set(steps))
    assert best == (2, 3)
    assert list(known)[:2] == [(1, 2), (3, 4)]
    assert run((1,), lambda _: False) == ((1,), {})


STORY = Scenario.model_validate(
    {
        "name": "x",
        "title": "x",
        "claim": "x",
        "steps": [
            {"at": 0, "fault": "kill-node", "target": "primary", "for": 5},
            {"until": "writes healthy"},
            {"at": 10, "fault": "kill-node", "target": "router", "for": 5},
            {"at": 20, "fault": "pause-node", "target": "standby", "for": 5},
        ],
    }
)


def test_waits_and_moments_stay() -> None:
    kept = keep(STORY, (3,))
    assert [(step.at, step.fault or step.until) for step in kept.steps] == [
        (None, "writes healthy"),
        (10, "kill-node"),
    ]
    assert keep(STORY, (1, 3, 4)) == STORY


def test_notes_survive_and_belong_to_one_search(tmp_path: Path) -> None:
    path = tmp_path / "shrink-x.json"
    notes = Notes(path, frozenset({"ledger.lost"}))
    notes.add(Tried((1, 3), ("ledger.lost",), ("run-1",)))
    notes.add(Tried((1,), (), ("run-2", "run-3")))
    again = Notes(path, frozenset({"ledger.lost"}))
    assert again.tried == notes.tried
    assert again.known == {(1, 3): True, (1,): False}
    with pytest.raises(RecordError, match=r"search for ledger\.lost"):
        Notes(path, frozenset({"bank.total"}))
    path.write_text("{")
    with pytest.raises(RecordError, match="cannot be read"):
        Notes(path, frozenset({"ledger.lost"}))


def job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: set[int], tries: int = 1
) -> tuple[Any, list[Steps]]:
    """A search on a lab that fails exactly where all faults at these moments are in the story."""
    made: list[Steps] = []

    def pretend(_lab: object, story: Scenario, **_rest: object) -> Done:
        made.append(tuple(n for n, step in STORY.faults if step in story.steps))
        return Done(tmp_path / f"run-{len(made)}", 1)

    def unsound(path: Path) -> frozenset[str]:
        steps = made[int(path.name.removeprefix("run-")) - 1]
        return frozenset({"ledger.lost"} if needed <= set(steps) else {"reads.other"})

    monkeypatch.setattr("lab.scenario.runner.run_scenario", pretend)
    monkeypatch.setattr("lab.commands.shrink.unsound", unsound)
    wanted = frozenset({"ledger.lost"})
    notes = Notes(tmp_path / "shrink.json", wanted)
    lab: Any = None
    return _Job(lab, STORY, 1, wanted, tries, tmp_path, notes), made


def test_candidates_are_run_until_the_bound_and_then_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.monotonic() + 600
    first, made = job(tmp_path, monkeypatch, {3, 4})
    assert first.go(1, later) == search((1, 3, 4), {(1,): False})
    assert made == [(1,)]
    assert first.go(10, time.monotonic() - 1).ask == (3, 4)
    again, more = job(tmp_path, monkeypatch, {3, 4})
    result = again.go(10, later)
    assert (result.best, result.ask) == ((3, 4), None)
    assert (1,) not in more
    again.tell(result, tmp_path / "shrunk.yaml", as_json=True)
    assert load_scenario(tmp_path / "shrunk.yaml").steps == keep(STORY, (3, 4)).steps


def test_a_candidate_passes_only_after_every_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky, made = job(tmp_path, monkeypatch, {3, 4}, tries=2)
    assert flaky.go(2, time.monotonic() + 600).ask == (3, 4)
    assert made == [(1,), (1,)]
