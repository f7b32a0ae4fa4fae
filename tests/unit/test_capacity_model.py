"""The model against a lab whose truth is known: what is read, what is asked, what is refused."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from lab.cli import run as lab_cli
from lab.errors import Exit, RecordError, UsageError
from lab.experiment.slo import parse_slo
from lab.record.reader import RecordReader
from reports.capacity.answer import at, ceiling, failover, knee
from reports.capacity.calibrate import Calibration, calibrate
from reports.capacity.constraint import binding
from reports.capacity.cost import cheapest, configurations, monthly
from reports.capacity.growth import stated
from reports.capacity.loads import _machine as cores_used
from reports.capacity.loads import loads
from reports.capacity.machine import sharing
from reports.capacity.options import acu, units
from reports.capacity.sections import capacity_units, scale
from reports.capacity.steps import Run, read_run, threshold
from reports.capacity.system import FOREVER, Demand, Pool, System
from reports.capacity.validate import _at_pace, validate
from reports.capacity.whatif import as_measured, ask, on_paper
from tests.unit.capacity_record import IDLE, SLO, TOPOLOGY, TRUTH, capacity_record, demands


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return capacity_record(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def run(path: Path) -> Run:
    return read_run(RecordReader(path))


@pytest.fixture(scope="module")
def calibration(path: Path) -> Calibration:
    return calibrate(RecordReader(path))


def demand(cpu: float = 0.5, service: float = 0.01) -> tuple[Demand, ...]:
    rng = np.random.default_rng(1)
    return (Demand("x", 1.0, True, rng.exponential(service, 5000), held=1.0, cpu=cpu),)


# --- the cores that the nodes share


def test_a_pinned_lab_has_fewer_cores_for_its_databases() -> None:
    used = {"client": 0.9, "observer": 0.1, "pg1": 1.6}

    def per_second(metric: str, node: str | None = None) -> float | None:
        return 3.0 if metric == "machine_cpu_seconds" else used[str(node)]

    step: Any = SimpleNamespace(most=lambda _: 4.0, per_second=per_second)
    paper = {"clients": [{"name": "client"}], "observer": {"name": "observer"}}
    together: Any = SimpleNamespace(topology=paper)
    apart: Any = SimpleNamespace(topology={**paper, "pinned": True})
    assert cores_used(together, step, list(used)) == pytest.approx(3.0 / 4)
    # Three cores for what is neither client nor observer; the kernel's own 0.4 counts with it.
    assert cores_used(apart, step, list(used)) == pytest.approx((3.0 - 1.0) / 3)
    assert sharing(together.topology, used) == list(used)
    assert sharing(apart.topology, used) == ["pg1"]


def test_the_model_of_a_pinned_lab_has_its_cores(path: Path, tmp_path: Path) -> None:
    pinned = tmp_path / "pinned"
    shutil.copytree(path, pinned)
    (pinned / "topology.yaml").write_text(yaml.safe_dump({**TOPOLOGY, "pinned": True}))
    free = calibrate(RecordReader(path)).system.machine
    assert calibrate(RecordReader(pinned)).system.machine == pytest.approx(free - 2, abs=1e-3)


def test_what_the_nodes_use_when_idle_is_not_there_for_requests(path: Path) -> None:
    """Of 8 cores 3.5 are used by others; three nodes idle at 0.03 each, a fourth of no node is none of it."""
    system = calibrate(RecordReader(path)).system

    assert 8 - 3.5 - 4 * IDLE - 0.05 < system.machine < 8 - 3.5 - 2 * IDLE


# --- calibration


@pytest.mark.parametrize(
    ("points", "where"),
    [
        ([(1.0, True), (4.0, False)], 2.0),
        ([(4.0, False), (1.0, True), (2.0, True), (8.0, False)], 8**0.5),
        # One stalled step below, one lucky one above: the most are right.
        ([(1.0, True), (2.0, False), (3.0, True), (4.0, True), (9.0, False), (16.0, False)], 6.0),
        ([(1.0, True), (2.0, True), (4.0, False), (8.0, False), (9.0, True), (10.0, False)], 8**0.5),
        # Either place is as right: the middle of them.
        ([(1.0, True), (2.0, False), (8.0, True), (16.0, False)], 4.0),
        ([(1.0, True), (2.0, True)], None),
        ([(1.0, False), (2.0, False)], None),
        ([(1.0, True)], None),
        ([], None),
    ],
)
def test_the_knee_is_where_the_fewest_steps_contradict_it(
    points: list[tuple[float, bool]], where: float | None
) -> None:
    assert threshold(points) == (None if where is None else pytest.approx(where))


def test_runs_are_normalised_by_the_pace_of_their_time(run: Run) -> None:
    """The machine loses a quarter of its pace on the way: 100/s of 1000 are as bad as 75/s of 750."""

    def step(rate: float, pace: float | None, good: bool) -> Any:
        return SimpleNamespace(loop="open", rate=rate, pace=pace, good=good, cell=1, span=(0, 1))

    assert run.normalised is None
    steps = [step(90, 1000, True), step(100, 1000, False), step(75, 750, False), step(67.5, 750, True)]
    moved = dataclasses.replace(run, steps=tuple(steps))
    assert moved.knee[0] == 67.5
    assert moved.normalised == pytest.approx((0.09 * 0.1) ** 0.5)
    assert dataclasses.replace(run, steps=(step(90, None, True), step(100, None, False))).normalised is None


def test_the_report_tells_the_pace_and_whether_it_held(run: Run, tmp_path: Path) -> None:
    assert run.pace == []
    assert "pace" not in " ".join(scale(run, None).text)
    known = read_run(RecordReader(capacity_record(tmp_path, rates=(20.0, 40.0), pace=1500.0)))
    assert known.pace == pytest.approx([1500.0, 1500.0], rel=1e-6)
    said = " ".join(scale(known, None).text)
    assert "1,500 (median of the steps" in said
    assert "changed by" not in said
    first, second = known.open[:2]
    slower = dataclasses.replace(known, steps=(first, dataclasses.replace(second, pace=1000.0)))
    # The 90th percentile of two is 1450, the 10th 1050.
    assert "changed by 38 %" in " ".join(scale(slower, None).text)


def test_the_model_is_asked_at_the_pace_of_the_step(calibration: Calibration) -> None:
    known = dataclasses.replace(
        calibration, pace=400.0, system=dataclasses.replace(calibration.system, machine_cpu=0.002)
    )
    system, demands = _at_pace(known, 200.0)

    assert system.machine_cpu == pytest.approx(0.004)
    assert [float(d.service.mean()) for d in demands] == pytest.approx(
        [2 * float(d.service.mean()) for d in known.demands]
    )
    assert _at_pace(known, None) == (known.system, known.demands)
    assert _at_pace(calibration, 200.0) == (calibration.system, calibration.demands)


def test_calibration_finds_the_truth_that_made_the_record(calibration: Calibration) -> None:
    truth = {d.name: d for d in demands()}
    assert {d.name for d in calibration.demands} == set(truth)
    for found in calibration.demands:
        true = truth[found.name]
        assert found.share == pytest.approx(true.share, rel=0.1)
        assert found.writes == true.writes
        assert float(found.service.mean()) == pytest.approx(float(true.service.mean()), rel=0.15)
        assert found.held == pytest.approx(true.held, rel=0.1)
        assert found.queried == pytest.approx(true.queried, rel=0.02)
        # CPU seconds a request: what the nodes use when idle is not charged to requests.
        assert found.cpu * found.service.mean() == pytest.approx(true.cpu * true.service.mean(), rel=0.15)
    system = calibration.system
    assert (system.instances, system.primary, system.replicas) == (60, 1.0, (0.5, 0.5))
    assert (system.pool.mode, system.pool.writer, system.pool.reader) == ("transaction", 60, 40)
    assert calibration.classes["primary"] == "db.r5.xlarge"


def test_a_machine_that_was_used_by_others_is_told(calibration: Calibration) -> None:
    assert any("Something else used" in note for note in calibration.notes)


def test_a_record_without_steps_cannot_calibrate(tmp_path: Path) -> None:
    empty = capacity_record(tmp_path, rates=())
    with pytest.raises(RecordError, match="no step kept the objective"):
        calibrate(RecordReader(empty))


# --- validation


def test_the_model_is_shown_to_hold_where_it_is_the_truth(run: Run, calibration: Calibration) -> None:
    found = validate(run, calibration)

    assert len(found.points) >= 6
    assert found.shown_to is not None
    assert found.shown_to >= 60
    assert found.knee_error is not None
    # One step of 2,500 requests near saturation is one draw: it may pass where the long run does not.
    assert abs(found.knee_error) <= 0.2


def test_a_model_that_is_wrong_is_not_shown(run: Run, calibration: Calibration) -> None:
    slow = tuple(dataclasses.replace(d, service=d.service * 1.5) for d in calibration.demands)
    found = validate(run, dataclasses.replace(calibration, demands=slow))

    assert found.shown_to is None
    assert not any(point.shown for point in found.points)


def test_fewer_than_six_loads_prove_nothing(tmp_path: Path, calibration: Calibration) -> None:
    few = read_run(RecordReader(capacity_record(tmp_path, rates=(20.0, 40.0))))
    with pytest.raises(UsageError, match="at least 6 loads"):
        validate(few, calibration)


# --- what binds


def test_the_replicas_bind_where_the_replicas_are_small(run: Run) -> None:
    assert binding(loads(run)).name == "replica CPU"


def test_a_pool_of_two_binds(tmp_path: Path) -> None:
    small = dataclasses.replace(TRUTH, pool=Pool("transaction", 1, 1), primary=4.0, replicas=(4.0, 4.0))
    found = binding(loads(read_run(RecordReader(capacity_record(tmp_path, small)))))

    assert found.name == "pool"
    assert "waited" in found.evidence


def test_clients_bind_where_they_are_few(tmp_path: Path) -> None:
    few = dataclasses.replace(TRUTH, instances=2, primary=8.0, replicas=(8.0, 8.0))
    found = binding(loads(read_run(RecordReader(capacity_record(tmp_path, few)))))

    assert found.name == "clients"
    assert found.lower_bound


# --- questions


def test_what_if_changes_what_it_names(calibration: Calibration) -> None:
    words = "instances=2000, pool.transaction=400, replicas=5, class=db.r5.4xlarge, cache.hit=0.9"
    found = ask(on_paper(calibration), words, calibration)

    assert found.system.instances == 2000
    assert found.system.pool.writer + found.system.pool.reader == 400
    assert found.system.replicas == (2.0,) * 5
    assert found.system.primary == 16.0
    assert found.system.cache_hit == 0.9
    assert found.system.machine == FOREVER
    assert any("2000 instances" in text for text in found.far)


def test_the_lab_as_it_was_measured_is_not_extrapolated(calibration: Calibration) -> None:
    assert ask(as_measured(calibration), "", calibration).far == ()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("instances", "expected one of"),
        ("colour=red", "expected one of"),
        ("instances=many", "no whole number"),
        ("instances=0", "at least 1"),
        ("cache.hit=2", "from 0 to 1"),
        ("class=db.r9.huge", "unknown instance class"),
        ("pool=magic", "transaction, session or statement"),
        ("instances=1000000", "more than 128 times"),
        ("rate=99999", "more than 50 times"),
    ],
)
def test_what_cannot_be_asked_is_refused(calibration: Calibration, words: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        ask(on_paper(calibration), words, calibration)


def test_a_pool_is_changed_where_its_mode_is(calibration: Calibration) -> None:
    base = on_paper(calibration)
    several = dataclasses.replace(
        base, system=dataclasses.replace(base.system, more=(Pool("session", 30, 20),))
    )
    measured = dataclasses.replace(calibration, system=several.system)
    found = ask(several, "pool.session=100", measured).system

    assert found.pool == base.system.pool
    assert (found.more[0].mode, found.more[0].writer, found.more[0].reader) == ("session", 60, 40)


def test_hits_that_were_measured_are_not_counted_twice(calibration: Calibration) -> None:
    base = dataclasses.replace(on_paper(calibration), cached=0.8)

    assert ask(base, "cache.hit=0.9", calibration).system.cache_hit == pytest.approx(0.5)
    with pytest.raises(UsageError, match="80% were hits already"):
        ask(base, "cache.hit=0.5", calibration)


def test_the_knee_of_a_cpu_lies_below_its_ceiling() -> None:
    system = System(instances=500, pool=Pool(writer=500, reader=500), primary=2.0)
    top = ceiling(system, demand())
    found, point = knee(system, demand(), parse_slo("p99<100ms"), requests=10_000)

    assert top == pytest.approx(2 / (0.5 * float(demand()[0].service.mean())), rel=1e-6)
    assert found is not None
    assert point is not None
    assert 0.6 * top < found < top
    assert point.utilisation["primary CPU"] == pytest.approx(found / top, rel=0.1)


def test_an_objective_that_nothing_or_everything_meets_has_a_clear_answer() -> None:
    system = System(instances=500, pool=Pool(writer=500, reader=500), primary=2.0)

    assert knee(system, demand(), parse_slo("p50<1us"), requests=5000)[0] is None
    found, _ = knee(system, demand(), parse_slo("p99<1000s, errors<=100%, dropped<=100%"), requests=5000)
    assert found == pytest.approx(1.05 * ceiling(system, demand()), rel=0.03)


def test_more_of_everything_never_carries_less(calibration: Calibration) -> None:
    slo = parse_slo(SLO)
    base = on_paper(calibration)
    now, _ = knee(base.system, calibration.demands, slo, requests=8000)
    assert now is not None
    for words in ("class=db.r5.2xlarge", "replicas=4", "cache.hit=0.5", "instances=120"):
        more, _ = knee(ask(base, words, calibration).system, calibration.demands, slo, requests=8000)
        assert more is not None
        assert more >= now * 0.97


def test_a_failover_of_a_longer_outage_takes_longer(calibration: Calibration) -> None:
    short, long = (
        failover(on_paper(calibration).system, calibration.demands, 60.0, seconds, 0.005, 250.0)
        for seconds in (5.0, 20.0)
    )

    assert short.recovered is not None
    assert long.recovered is not None
    assert 5 <= short.recovered < long.recovered
    assert short.backlog < long.backlog


# --- cost


def test_the_cheapest_configuration_holds_and_everything_cheaper_does_not(calibration: Calibration) -> None:
    slo, base = parse_slo(SLO), on_paper(calibration)
    found = cheapest(base.system, base.classes, calibration.demands, slo, 500.0)
    assert found is not None
    one, point = found

    assert not slo.broken(point.shares())
    assert one.cost == monthly({**base.classes, "primary": one.primary, "replica": one.replica}, one.replicas)
    cheaper = [c for c in configurations(base.system, base.classes) if c.cost < one.cost]
    assert cheaper
    for other in cheaper[-3:]:
        carried = ceiling(other.system, calibration.demands)
        assert carried <= 500 or slo.broken(at(other.system, calibration.demands, 500.0).shares())


def test_what_bursts_and_what_has_too_little_memory_is_not_searched(calibration: Calibration) -> None:
    base = on_paper(calibration)
    every, large = (
        {c.primary for c in configurations(base.system, base.classes, least)} for least in (0.0, 30.0)
    )

    assert not any(name.startswith("db.t") for name in every)
    assert "db.r5.large" in every - large  # 16 GiB
    assert "db.r5.xlarge" in large  # 32 GiB


def test_a_report_that_is_long_at_any_time_is_no_consequence_of_an_outage() -> None:
    """Every hundredth request takes 2 s by itself, and 22 s without a primary are over in seconds."""
    demands = (
        Demand("page", 0.99, True, np.asarray([0.004]), cpu=0.5),
        Demand("report", 0.01, True, np.asarray([2.0]), cpu=0.01, background=True),
    )
    system = System(instances=200, pool=Pool("transaction", 100, 10), primary=4.0)
    found = failover(system, demands, 100.0, 22.0, 0.005, 100.0)

    assert found.recovered is not None
    assert 22.0 <= found.recovered < 35.0


def test_costs_add_up() -> None:
    # 0.50 $/h primary and standby, 2 × 0.25 $/h replicas, 730 h.
    classes = {"primary": "db.r5.xlarge", "replica": "db.r5.large", "standbys": "1"}

    assert monthly(classes, 2) == pytest.approx(730 * (2 * 0.5 + 2 * 0.25))


def test_capacity_units_follow_the_cpu() -> None:
    mean = float(demand()[0].service.mean())
    # rate · 0.5 · mean cores, at 70 %, of 0.25 vCPU a unit, in steps of 0.5.
    expected = np.ceil(2 * 100 * 0.5 * mean / 0.7 / 0.25) / 2

    assert acu(demand(), 100.0) == pytest.approx(expected)
    assert acu(demand(), 0.01) == 0.5
    with pytest.raises(UsageError, match="128 at most"):
        acu(demand(), 1e6)


def test_a_serverless_topology_is_answered_in_capacity_units(tmp_path: Path) -> None:
    path = capacity_record(tmp_path)
    nodes = [
        {"name": name, "role": role, "instance_class": "db.serverless", "acu": {"minimum": 1, "maximum": 16}}
        for name, role in (("pg1", "primary"), ("pg3", "reader"), ("pg4", "reader"))
    ]
    (path / "topology.yaml").write_text(yaml.safe_dump({**TOPOLOGY, "postgres": {"nodes": nodes}}))
    found = calibrate(RecordReader(path))
    paper = on_paper(found)

    assert paper.system.primary == 16 * 0.25
    assert paper.system.replicas == (4.0, 4.0)
    assert monthly(paper.classes, 2) is None
    growth = stated(100.0, 0.10)
    now, *later = units(found, growth)
    assert [(name, count) for name, count, _ in now.each] == [("writer", 1), ("reader", 2)]
    # 100/s, a fifth of them writes of 15 ms CPU: 0.3 cores, at 70 % of 0.25 a unit.
    assert now.each[0][2] == pytest.approx(0.3 / 0.7 / 0.25, rel=0.3)
    needed = [one.each[0][2] for one in (now, *later)]
    assert needed == sorted(needed, key=lambda units: math.inf if units is None else units)
    assert now.cost == pytest.approx(730 * 0.12 * sum(count * (each or 0) for _, count, each in now.each))
    section = capacity_units(found, growth)
    assert section is not None
    assert "beyond 16" in section.tables[0].rows[-1][-1]


# --- the commands


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--from", "nowhere"], "nowhere"),
        (["--what-if", "colour=red"], "expected one of"),
        (["--slo", "p98<1ms"], "no term"),
        (["--search", "5", "--what-if", "rate=5"], "has its rate already"),
    ],
)
def test_simulate_refuses_bad_input(
    path: Path, words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = words if words[0] == "--from" else ["--from", str(path), *words]

    assert lab_cli(["simulate", *start]) == Exit.USAGE
    assert what in " ".join(capsys.readouterr().err.split())


def test_a_search_that_finds_nothing_says_so(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = lab_cli(["simulate", "--from", str(path), "--search", "300", "--slo", "p50<1us"])

    assert code == Exit.NOT_MET
    said = " ".join(capsys.readouterr().out.split())
    assert "No configuration of the price table holds p50<1us" in said
    assert "at the most" not in said


def test_a_search_for_more_than_the_users_can_ask_names_the_users(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 60 instances that are answered in some 26 ms: some 2,300/s.
    assert lab_cli(["simulate", "--from", str(path), "--search", "5000"]) == Exit.NOT_MET
    assert "60 requests under way are 2" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--growth", "-100%", "--now", "60"], "leaves nothing"),
        (["--growth", "-101%", "--now", "60"], "leaves nothing"),
        (["--growth", "4%"], "needs the rate that is carried now"),
        (["--growth", "nothing.csv"], "cannot be read"),
        (["--workload", "nonsense"], "no workload"),
        (["--slo", "p99<0ms"], "nothing can meet"),
        (["--topology", "no-such"], "no-such"),
        (["--levels", "one,two"], "no list of concurrencies"),
        (["--step", "soon"], "not a duration"),
        (["--resume", "nowhere"], "nowhere"),
    ],
)
def test_capacity_says_what_is_wrong_before_a_lab_comes_up(
    words: list[str], what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a lab was brought up")

    monkeypatch.setattr("lab.labs.Labs.get", never)

    assert lab_cli(["capacity", *words]) == Exit.USAGE
    assert what in " ".join(capsys.readouterr().err.split())


def test_a_history_with_gaps_or_one_row_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps = tmp_path / "gaps.csv"
    gaps.write_text("date,requests_per_second\n2026-01-01,10\n2026-02-01,11\n2026-04-01,12\n")
    single = tmp_path / "one.csv"
    single.write_text("date,requests_per_second\n2026-01-01,10\n")

    for path, what in ((gaps, "nothing for 2026-03"), (single, "a history of 1 month")):
        assert lab_cli(["capacity", "--growth", str(path)]) == Exit.USAGE
        assert what in " ".join(capsys.readouterr().err.split())
