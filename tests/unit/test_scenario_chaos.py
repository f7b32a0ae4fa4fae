"""Random schedules: the same from the same seed, within their bounds, and replayable from the record."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.deploy.allocate import sample_allocation
from lab.errors import UsageError
from lab.faults import find
from lab.faults._base import traits
from lab.scenario.chaos import MOST_AT_ONCE, choices, schedule, story
from lab.scenario.loader import dump_scenario, list_scenarios, load_scenario, recorded_scenario
from lab.scenario.plan import make_plan
from lab.topology.loader import load_topology

TOPOLOGY = load_topology("risk-prod")


def test_every_choice_can_hit_its_target() -> None:
    pairs = choices(TOPOLOGY)
    assert ("kill-node", "primary") in pairs
    assert ("kill-node", "router") in pairs
    assert ("kill-postmaster", "etcd-leader") not in pairs
    assert not any(fault == "none" for fault, _ in pairs)
    with pytest.raises(UsageError, match="no fault 'nope'"):
        choices(TOPOLOGY, ["nope"])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), duration=st.floats(10, 600))
def test_a_schedule_is_bounded_and_the_same_from_the_same_seed(seed: int, duration: float) -> None:
    steps = schedule(TOPOLOGY, seed, duration)
    assert steps == schedule(TOPOLOGY, seed, duration)
    assert steps
    ends: list[tuple[str, float]] = []
    for step in steps:
        hold = step.get("for", 0.0)
        assert ("for" not in step) == traits(find(step["fault"])).ends_itself
        assert 0 <= step["at"] <= step["at"] + hold <= duration + 0.1
        in_force = [end for target, end in ends if end > step["at"]]
        assert len(in_force) < MOST_AT_ONCE
        assert step["target"] not in [target for target, end in ends if end > step["at"]]
        ends.append((step["target"], step["at"] + hold))
    assert [step["at"] for step in steps] == sorted(step["at"] for step in steps)


def test_what_cannot_be_performed_is_not_drawn() -> None:
    only = schedule(TOPOLOGY, 1, 300, possible=lambda fault, _: fault == "kill-node")
    assert {step["fault"] for step in only} == {"kill-node"}
    with pytest.raises(UsageError, match="no fault can be performed"):
        schedule(TOPOLOGY, 1, 300, possible=lambda *_: False)
    with pytest.raises(UsageError, match="too short"):
        schedule(TOPOLOGY, 1, 5)


def test_a_schedule_is_a_story_that_the_record_gives_back(tmp_path: Path) -> None:
    made = story(TOPOLOGY, 7, 120, rate=50, settle=3)
    plan = make_plan(made, TOPOLOGY, sample_allocation("t", TOPOLOGY), 7)
    assert (plan.trials, plan.window_s > 60) == (1, True)
    (tmp_path / "scenario.yaml").write_text(dump_scenario(made))
    assert recorded_scenario(tmp_path) == made


@pytest.mark.parametrize("name", ["clinical-prod", "dora-dev"])
def test_chaos_fits_a_topology_of_another_schema(name: str) -> None:
    topology = load_topology(name)
    made = story(topology, 7, 60, rate=50, settle=3)
    assert made.load.workload == "bank"
    plan = make_plan(made, topology, sample_allocation("t", topology), 7)
    assert (plan.trials, plan.not_run) == (1, "")
    assert story(topology, 7, 60, rate=50, settle=3, workload="tpcb").load.workload == "tpcb"


@pytest.mark.parametrize("name", list_scenarios())
def test_every_scenario_can_be_replayed(tmp_path: Path, name: str) -> None:
    given = load_scenario(name)
    (tmp_path / "scenario.yaml").write_text(dump_scenario(given))
    assert recorded_scenario(tmp_path) == given
