"""Scenarios: reading them, planning them, what they predict."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.deploy.allocate import sample_allocation
from lab.deploy.differences import stand_ins, substitutions
from lab.errors import UsageError
from lab.observe.config import Config
from lab.scenario.loader import (
    check_overrides,
    list_scenarios,
    load_scenario,
    scenario_path,
    split_overrides,
)
from lab.scenario.plan import make_plan, observer_config
from lab.scenario.predict import PARTS, predict
from lab.topology.loader import load_topology

TOPOLOGY = load_topology("risk-prod")
ALLOCATION = sample_allocation("t", TOPOLOGY)
GOOD = """\
name: x
title: t
claim: c
steps:
  - fault: kill-node
"""


def test_every_scenario_of_the_repository_loads_and_fits() -> None:
    assert {"kill-primary", "kill-postmaster", "steady"} <= set(list_scenarios())
    for name in list_scenarios():
        scenario = load_scenario(name)
        assert scenario.name == name
        make_plan(scenario, TOPOLOGY, ALLOCATION, 1)


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("name: x\ntitle: t\nclaim: c\ntrials: 0\n", ":4:", "trials"),
        ("name: x\ntitle: t\nclaim: c\nload:\n  rate: fast\n", ":5:", "load.rate"),
        ("name: x\ntitle: t\nclaim: c\nload:\n  rat: 5\n", ":5:", "did you mean 'rate'"),
        ("name: x\ntitle: t\n", ":", "claim"),
        (GOOD + "    target: moon\n", ":6:", "steps.0.target"),
        (
            GOOD + "  - until: leader changed\n    target: primary\n",
            ":6:",
            "target belongs to a step with",
        ),
        (
            GOOD + "    until: leader changed\n",
            ":5:",
            "found fault and until",
        ),
        (GOOD + "  - within: 5\n", ":6:", "found none of them"),
        (GOOD + "    at: 5\n  - fault: none\n    at: 4\n", ":4:", "before the step above it"),
        (GOOD + "    for: 0\n", ":6:", "steps.0.for"),
        (GOOD + "    duration: 3\n", ":6:", "unknown field"),
        (GOOD + "    form: 3\n", ":6:", "did you mean 'for'"),
        (GOOD + "  - assert: writes healthy\n", ":6:", "assert needs throughout"),
        (GOOD + "  - assert: all well\n    throughout: 3\n", ":6:", "steps.1.assert"),
        (GOOD + "    target: az:1\n", ":6:", "az:<zone>"),
        ("name: x\ntitle: t\nclaim: c\nsteps:\n  - until: synchronous\n", ":4:", "needs a step with a fault"),
        (GOOD + "overrides: {'rm -rf': 1}\n", "", "no field of a topology"),
        (GOOD + "recovery: {window: never}\n", ":6:", "recovery.window"),
        ("steps: [\n", ":", "not valid YAML"),
        ("", "", "mapping"),
    ],
)
def test_mistakes_name_file_line_and_field(tmp_path: Path, text: str, place: str, expected: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_scenario(file)
    assert f"{file}{place}" in str(caught.value)
    assert expected in str(caught.value)


def test_durations_may_carry_a_unit(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    text = "name: x\ntitle: t\nclaim: c\nsettle: 1m\nslow_after: 250ms\nsteps:\n"
    text += "  - {fault: kill-node, at: 10s, for: 2.5}\n  - {assert: synchronous, throughout: window}\n"
    file.write_text(text + "recovery: {window: 0.5h}\n")
    scenario = load_scenario(str(file), ["steps.1.at=12 s"])
    assert (scenario.settle, scenario.slow_after, scenario.recovery.window) == (60.0, 0.25, 1800.0)
    assert [(step.at, step.duration) for step in scenario.steps] == [(10.0, 2.5), (12.0, None)]


def test_a_field_of_two_kinds_is_one_mistake(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(GOOD + "recovery: {window: later}\n")
    with pytest.raises(UsageError) as caught:
        load_scenario(str(file))
    (line,) = str(caught.value).splitlines()
    assert ":6:" in line
    assert line.endswith(
        "recovery.window: a duration is a number of seconds, or such as 10s, 5m or 200ms; "
        "or input should be 'auto', found 'later'"
    )


def test_unknown_fault_scenario_and_pool(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(GOOD.replace("kill-node", "kil-node"))
    with pytest.raises(UsageError, match="no fault") as caught:
        load_scenario(file)
    assert "kill-node" in str(caught.value.hint)
    with pytest.raises(UsageError, match="no scenario") as caught:
        scenario_path("kill-primry")
    assert "'kill-primary'" in str(caught.value.hint)
    scenario = load_scenario("kill-primary", ["load.pool=pool-nonsense"])
    with pytest.raises(UsageError, match="pool-nonsense"):
        make_plan(scenario, TOPOLOGY, ALLOCATION, 1)


def test_overrides_of_the_scenario_and_of_the_topology() -> None:
    mine, theirs = split_overrides(["load.rate=50", "postgres.patroni.ttl=30", "trials=2"])
    assert (mine, theirs) == (["load.rate=50", "trials=2"], ["postgres.patroni.ttl=30"])
    scenario = load_scenario("kill-primary", mine)
    assert (scenario.load.rate, scenario.trials) == (50, 2)
    check_overrides(TOPOLOGY, {"postgres.patroni.ttl": 20, "postgres.synchronous": "on"}, "x")
    with pytest.raises(UsageError, match=r"does not run with postgres\.patroni\.ttl=30") as caught:
        check_overrides(TOPOLOGY, {"postgres.patroni.ttl": 30, "postgres.patroni.loop_wait": 1}, "x")
    assert "lab up risk-prod --name x --set postgres.patroni.ttl=30" in str(caught.value.hint)
    with pytest.raises(UsageError):
        check_overrides(TOPOLOGY, {"postgres.patroni.tttl": 30}, "x")


def test_plan_is_the_same_for_the_same_seed_and_random_over_the_loop() -> None:
    scenario = load_scenario("kill-primary", ["trials=200"])
    one, two, other = (make_plan(scenario, TOPOLOGY, ALLOCATION, seed) for seed in (5, 5, 6))
    assert one.phases_s == two.phases_s != other.phases_s
    assert all(1 <= phase <= 2 for phase in one.phases_s)
    assert max(one.phases_s) - min(one.phases_s) > 0.9
    assert one.window_s == pytest.approx(one.predicted["worst"] + 5)
    assert (one.writer, one.reader) == ("pool-transaction.writer", "pool-transaction.reader")
    fixed = make_plan(load_scenario("kill-primary", ["recovery.window=7"]), TOPOLOGY, ALLOCATION, 1)
    assert fixed.window_s == 7
    steady = make_plan(load_scenario("steady"), TOPOLOGY, ALLOCATION, 1)
    assert (steady.trials, steady.phases_s) == (0, ())
    assert one.deadline_s > 200 * one.window_s


def test_prediction_adds_up_and_brackets_what_was_measured() -> None:
    for fault in ("kill-node", "kill-postmaster"):
        found = predict(TOPOLOGY, fault)
        for end in ("best", "worst"):
            assert found[end] == pytest.approx(sum(found[f"{part}_{end}"] for part in PARTS), abs=0.01)
        assert all(found[f"{part}_best"] <= found[f"{part}_worst"] for part in PARTS)
    fast = predict(TOPOLOGY, "kill-node")
    assert fast["best"] <= 21.5
    assert 24 <= fast["worst"] <= 30
    quick = predict(TOPOLOGY, "kill-postmaster")
    assert quick["best"] <= 1
    assert 3 <= quick["worst"] <= 6


def test_prediction_at_patronis_defaults() -> None:
    slow = load_topology(
        "risk-prod",
        ["postgres.patroni.ttl=30", "postgres.patroni.loop_wait=10", "postgres.patroni.retry_timeout=10",
         "postgres.patroni.primary_start_timeout=300"],
    )  # fmt: skip
    found = predict(slow, "kill-node")
    assert 22 <= found["best"] <= 25
    assert 42 <= found["worst"] <= 50
    assert predict(slow, "kill-postmaster")["worst"] > 300
    assert predict(slow, "none") == {}


def test_who_elects_waits_for_an_old_leader_that_is_mute() -> None:
    silent, refused = predict(TOPOLOGY, "isolate"), predict(TOPOLOGY, "reject")
    assert (silent["elect_best"], refused["elect_best"]) == (2, 0)
    assert silent["elect_worst"] == refused["elect_worst"] == 3
    # The old leader's Patroni answers its peers, or its port is closed.
    assert (
        predict(TOPOLOGY, "cut-from-etcd")["elect_best"]
        == predict(TOPOLOGY, "lose-patroni")["elect_best"]
        == 0
    )


def test_a_renewal_that_arrives_without_an_answer_prolongs_the_lease() -> None:
    both, inbound = predict(TOPOLOGY, "isolate"), predict(TOPOLOGY, "isolate-inbound")
    loop = TOPOLOGY.postgres.patroni.loop_wait
    assert inbound["detect_best"] == both["detect_best"]
    assert inbound["detect_worst"] == both["detect_worst"] + loop
    assert inbound["worst"] == both["worst"] + loop


def test_what_stands_in_and_what_is_substituted() -> None:
    assert stand_ins(TOPOLOGY)["failover"] == "Patroni for RDS Multi-AZ"
    assert substitutions(TOPOLOGY, ALLOCATION.model_copy(update={"postgres_version": "15"})) == [
        "PostgreSQL 14 → 15"
    ]
    assert substitutions(TOPOLOGY, ALLOCATION.model_copy(update={"postgres_version": "14"})) == []


def test_observer_configuration_is_complete_and_holds_no_secret() -> None:
    plan = make_plan(load_scenario("kill-primary"), TOPOLOGY, ALLOCATION, 1)
    files = {role: f"/run/lab/r/password_{role}" for role in ("lab_probe", "lab_monitor", "redis")}
    config = observer_config(
        plan, ALLOCATION, run="r", out="/run/lab/r/observe", token="abc", passwords=files,
        scope="risk-prod", namespace="/service",
    )  # fmt: skip
    assert [node.name for node in config.nodes] == ["pg1.direct", "pg2.direct", "pg3.direct", "pg4.direct"]
    assert config.writer is not None
    assert config.writer.database == "risk"
    assert config.reader is not None
    assert config.reader.database == "risk_ro"
    assert len(config.patroni) == 4
    assert len(config.etcd) == 3
    assert len(config.poolers) == 3
    assert {p.database for p in config.poolers} == {"pgbouncer"}
    assert config.agent_address == ALLOCATION.addresses["observer"]["control"]
    assert set(config.addresses.values()) == {m.name for m in TOPOLOGY.members()}
    assert Config.from_json(config.to_json()) == config
