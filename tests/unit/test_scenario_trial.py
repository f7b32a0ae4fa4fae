"""The order of a trial: announced before injected, verified, healed whatever happens, whole again."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.driver import Lab
from lab.errors import LabError
from lab.faults import Effect, Evidence, Instructions
from lab.record.reader import RecordReader
from lab.record.schema import NS
from lab.record.writer import RecordWriter
from lab.scenario.journal import Journal, heal_all
from lab.scenario.live import LiveWrites
from lab.scenario.loader import load_scenario
from lab.scenario.plan import make_plan
from lab.scenario.progress import Progress
from lab.scenario.trial import Outcome, run_trial, settle
from tests.fake_lab import FakeLab
from tests.unit.test_scenario_parts import look


class TestFault:
    """Writes down what is done with it."""

    __test__ = False
    summary, needs, colour = "", (), "#000000"

    def __init__(self, journal: Path, name: str = "test", calls: list[str] | None = None) -> None:
        self.journal = journal
        self.name = name
        self.calls: list[str] = [] if calls is None else calls
        self.found = True
        self.fails = False
        self.announced: list[dict[str, Any]] = []

    def plan(self, lab: Lab, node: str) -> Instructions:  # noqa: ARG002
        return {"node": node}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:  # noqa: ARG002
        self.announced = [json.loads(line) for line in self.journal.read_text().splitlines()]
        self.calls.append(f"inject {node}")
        if self.fails:
            raise LabError("injection failed")
        return Effect(node, 5.0, 5.2, plan, {})

    def verify(self, lab: Lab, effect: Effect) -> Evidence:  # noqa: ARG002
        self.calls.append("verify")
        return Evidence(self.found, "looked")

    def heal(self, lab: Lab, instructions: Instructions) -> None:  # noqa: ARG002
        self.calls.append(f"heal {instructions['node']}")

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:  # noqa: ARG002
        self.calls.append("verify healed")
        return Evidence(True, "healed")


class Clock:
    """Moves when somebody sleeps, so that a window of 30 s passes in no time; and a little on its own."""

    uncertainty = 10
    wall_uncertainty = 20

    def __init__(self) -> None:
        self.t = 100 * NS
        self.then: tuple[int, Callable[[], None]] | None = None
        """At a moment, something happens."""

    def now(self) -> int:
        self.t += 1000
        return self.t

    def sleep(self, seconds: float) -> None:
        self.t += round(seconds * NS)
        time.sleep(0)  # a worker, where there is one, gets its turn
        if self.then is not None and self.t >= self.then[0]:
            self.then[1]()

    def refresh(self) -> None: ...

    def from_wall(self, wall_s: float) -> int:
        return self.t + round(wall_s * 1e6)


class Looks:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.whole = True
        self.leader = "pg1"
        self.seen: list[Any] = []

    def latest(self, fresher_than: int = 0, timeout_s: float = 1) -> Any:  # noqa: ARG002
        streaming = [
            n for n in ("pg1", "pg2", "pg3", "pg4") if n != self.leader and (self.whole or n != "pg4")
        ]
        cluster = look(max(fresher_than + 1, self.clock.t), self.leader, " ".join(streaming), streaming[0])
        self.seen.append(cluster)
        return cluster

    newest = latest

    def history(self) -> list[Any]:
        return self.seen


class AtOnce(Executor):
    """Does everything at once and in the caller's thread: time stands still meanwhile."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except LabError as error:
            future.set_exception(error)
        return future


class World:
    """A lab of fakes, and a story that is played on it."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = tmp_path
        self.lab = FakeLab(tmp_path)
        self.record = RecordWriter.create(
            tmp_path / "runs", "s", topology="t", lab="l", seed=1, trials_asked=3
        )
        self.calls: list[str] = []
        journal = self.lab.state_dir / "journal.jsonl"
        self.faults = {name: TestFault(journal, name, self.calls) for name in ("test", "other")}
        self.fault = self.faults["test"]
        self.journal = Journal(self.lab.state_dir)
        sizes = iter(range(10**9))
        self.live = LiveWrites(1.0)
        self.unhealthy: Callable[[int], str] = lambda _: ""
        monkeypatch.setattr(self.live, "unhealthy", lambda now: self.unhealthy(now))
        self.clock = Clock()
        self.watch = Looks(self.clock)
        self.session: Any = SimpleNamespace(
            lab=self.lab, record=self.record, clock=self.clock, live=self.live, watch=self.watch, faulty=[],
            told=[], agents=[], check=lambda: None, requests_bytes=lambda: next(sizes),
        )  # fmt: skip
        self.session.tell_trial = self.session.told.append
        self.session.start_agents = self.session.agents.extend
        for module in ("story", "journal", "plan", "loader", "predict"):
            monkeypatch.setattr(f"lab.scenario.{module}.find", self.find, raising=False)
        monkeypatch.setattr("lab.faults.find", self.find)
        monkeypatch.setattr("lab.scenario.story.ThreadPoolExecutor", AtOnce)
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=self.clock.sleep)
        for module in ("story", "trial"):
            monkeypatch.setattr(f"lab.scenario.{module}.time", clock)
        self.tell("- {fault: test}")

    def find(self, name: str) -> Any:
        return self.faults[name]

    def tell(self, steps: str, *settings: str) -> None:
        """The story, as YAML."""
        file = self.folder / "story.yaml"
        file.write_text(f"name: story\ntitle: t\nclaim: c\nsteps:\n{textwrap.indent(steps, '  ')}\n")
        story = load_scenario(file, ["settle_within=0.5", "recovery.redundant_within=0.5", *settings])
        self.session.plan = make_plan(story, self.lab.topology, self.lab.allocation, 1)

    def play(self, number: int = 1) -> Outcome:
        return run_trial(self.session, self.journal, number, Progress())

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in RecordReader(self.record.path).events() if event["kind"] == kind]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.record.release()


def kinds(world: World) -> list[str]:
    return [event["kind"] for event in RecordReader(world.record.path).events()]


def test_a_trial_in_order(world: World) -> None:
    done = world.play(2)
    assert (done.effective, done.redundant, done.complete) == (True, True, True)
    assert world.fault.calls == ["inject pg1", "verify", "heal pg1", "verify healed"]
    assert [line["do"] for line in world.fault.announced] == ["heal"]
    longest = world.session.plan.longest_s
    instructions = world.fault.announced[0]["instructions"]
    assert instructions == {"node": "pg1", "deadline_s": round(longest + 60, 1)}
    assert not world.journal.pending()
    assert world.session.told == [2, 0]
    assert world.session.agents == ["pg1"]
    record = RecordReader(world.record.path)
    events = {event["kind"]: event for event in record.events()}
    assert set(kinds(world)) == {
        "trial-start", "fault-begin", "fault-effect", "fault-verified", "window-end", "heal-begin",
        "heal-end", "heal-verified", "redundant", "trial-end"}  # fmt: skip
    assert {event["trial"] for event in record.events()} == {2}
    assert events["fault-effect"]["uncertainty"] == 100_000_000 + 20
    assert events["fault-begin"]["detail"] == {
        "fault": "test", "target": "primary", "resolved": "pg1", "targets": ["pg1"], "kind": "resource",
        "moves_leader": "maybe", "step": 1, "for": None}  # fmt: skip
    window = events["window-end"]["t"] - events["fault-effect"]["t"]
    assert window >= world.session.plan.window_s * NS
    (begin, end) = world.session.faulty[0]
    assert begin <= events["fault-begin"]["t"] < events["fault-effect"]["t"]
    assert end == events["trial-end"]["t"]


def test_a_fault_that_is_not_in_effect_is_said_and_healed(world: World) -> None:
    world.fault.found = False
    done = world.play()
    assert not done.effective
    assert "fault-absent" in kinds(world)
    assert "window-end" not in kinds(world)
    assert "heal pg1" in world.fault.calls
    assert "did not take effect" in RecordReader(world.record.path).manifest.notes[0]


def test_an_injection_that_fails_is_healed_by_the_journal(world: World) -> None:
    world.fault.fails = True
    with pytest.raises(LabError, match="injection failed"):
        world.play()
    assert len(world.journal.pending()) == 1
    assert heal_all(world.lab, world.journal, "injection failed") == ["healed test on pg1"]
    assert world.fault.calls[-1] == "heal pg1"


def test_an_interrupted_window_leaves_the_journal_pending(world: World) -> None:
    def interrupted() -> None:
        if "verify" in world.fault.calls:
            raise KeyboardInterrupt

    world.session.check = interrupted
    with pytest.raises(KeyboardInterrupt):
        world.play()
    assert [entry.data["instructions"]["node"] for entry in world.journal.pending()] == ["pg1"]


def test_a_lab_that_is_not_whole_again_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    heal = world.fault.heal

    def half(lab: Lab, instructions: Instructions) -> None:
        heal(lab, instructions)
        world.session.watch.whole = False

    monkeypatch.setattr(world.fault, "heal", half)
    done = world.play()
    assert not done.redundant
    assert "redundant" not in kinds(world)
    assert "pg4 does not stream" in RecordReader(world.record.path).manifest.notes[0]


def test_settling_names_what_is_missing(world: World) -> None:
    world.session.watch.whole = False
    with pytest.raises(LabError, match=r"did not settle within 0.5 s: pg4 does not stream"):
        settle(world.session, Progress())
    world.session.watch.whole = True
    world.session.requests_bytes = lambda: 7
    with pytest.raises(LabError, match="requests do not come in"):
        settle(world.session, Progress())
    world.unhealthy = lambda _: "no write was acknowledged yet"
    with pytest.raises(LabError, match="no write was acknowledged"):
        settle(world.session, Progress())


# Stories


def test_faults_overlap_and_each_is_healed_in_its_own_time(world: World) -> None:
    world.tell("- {fault: test, for: 20}\n- {at: 5, fault: other, target: any-replica, for: 5}")
    done = world.play()
    assert (done.effective, done.complete) == (True, True)
    assert [call for call in world.calls if call.startswith(("inject", "heal"))] == [
        "inject pg1", "inject pg3", "heal pg3", "heal pg1"]  # fmt: skip
    first, second = (event["t"] for event in world.events("fault-effect"))
    began = {event["detail"]["step"]: event["t"] for event in world.events("heal-begin")}
    assert second - first == pytest.approx(5 * NS, abs=0.3 * NS)
    assert began[2] - second == pytest.approx(5 * NS, abs=0.3 * NS)
    assert began[1] - first == pytest.approx(20 * NS, abs=0.3 * NS)
    assert began[1] < world.events("window-end")[0]["t"]
    assert not world.journal.pending()


def test_a_fault_is_not_healed_while_it_is_being_verified(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.scenario.story.ThreadPoolExecutor", ThreadPoolExecutor)
    world.tell("- {fault: test, for: 1}")
    verify = world.fault.verify

    def slow(lab: Lab, effect: Effect) -> Evidence:
        until = world.clock.t + 4 * NS
        while world.clock.t < until:
            time.sleep(0.001)
        return (
            Evidence("heal pg1" not in world.calls, "") if verify(lab, effect).found else verify(lab, effect)
        )

    monkeypatch.setattr(world.fault, "verify", slow)
    assert world.play().effective
    assert world.events("heal-begin")[0]["t"] - world.events("fault-effect")[0]["t"] >= 4 * NS


def test_what_stays_is_healed_after_the_window_newest_first(world: World) -> None:
    world.tell("- {fault: test}\n- {at: 3, fault: other, target: any-replica}")
    world.play()
    assert [call for call in world.calls if call.startswith("heal ")] == ["heal pg3", "heal pg1"]
    (end,) = world.events("window-end")
    assert all(event["t"] > end["t"] for event in world.events("heal-begin"))


def test_several_nodes_are_announced_together_and_hit_at_once(world: World) -> None:
    world.tell("- {fault: test, target: az-data:b}")
    world.play()
    assert sorted(call for call in world.calls if call.startswith("inject")) == [
        "inject etcd2", "inject pg2", "inject pg3"]  # fmt: skip
    # Whichever was hit first: all three were in the journal by then.
    assert [line["instructions"]["node"] for line in world.fault.announced] == ["pg2", "pg3", "etcd2"]
    (begin,) = world.events("fault-begin")
    assert (begin["node"], begin["detail"]["targets"]) == (None, ["pg2", "pg3", "etcd2"])
    assert {event["node"] for event in world.events("fault-verified")} == {"pg2", "pg3", "etcd2"}
    assert {event["node"] for event in world.events("heal-verified")} == {"pg2", "pg3", "etcd2"}


def test_a_fault_may_know_which_nodes_are_hit_together(world: World) -> None:
    together: list[tuple[str, ...]] = []

    def among(lab: Lab, node: str, nodes: tuple[str, ...]) -> Instructions:  # noqa: ARG001
        together.append(nodes)
        return {"node": node, "spared": list(nodes)}

    world.fault.plan_among = among  # type: ignore[attr-defined]
    world.tell("- {fault: test, target: etcd-all}")
    world.play()
    assert together == [("etcd1", "etcd2", "etcd3")] * 3
    assert world.fault.announced[0]["instructions"]["spared"] == ["etcd1", "etcd2", "etcd3"]


def test_until_waits_for_its_condition_and_when_holds_a_fault_back(world: World) -> None:
    world.tell("- {fault: test}\n- {until: leader changed}\n- {when: writes healthy, fault: other}")
    begin = world.clock.t

    world.clock.then = (begin + 8 * NS, lambda: setattr(world.watch, "leader", "pg2"))
    world.unhealthy = lambda now: "no write" if begin + 4 * NS < now < begin + 15 * NS else ""
    assert world.play().complete
    changed, healthy = world.events("condition")
    assert (changed["detail"]["condition"], healthy["detail"]["condition"]) == (
        "leader changed", "writes healthy")  # fmt: skip
    assert changed["t"] - begin == pytest.approx(8 * NS, abs=0.3 * NS)
    assert healthy["t"] - begin == pytest.approx(15 * NS, abs=0.3 * NS)
    # The second fault hits whoever leads by then.
    assert [call for call in world.calls if call.startswith("inject")] == ["inject pg1", "inject pg2"]
    assert world.events("window-end")[0]["t"] >= world.events("fault-effect")[1]["t"] + 15 * NS


def test_a_condition_that_does_not_come_ends_the_story_and_is_recorded(world: World) -> None:
    world.tell("- {fault: test}\n- {until: leader changed, within: 7}\n- {fault: other}")
    done = world.play()
    assert (done.effective, done.complete) == (True, False)
    assert not any(call == "inject pg1" for call in world.faults["other"].calls[1:])
    (failed,) = world.events("step-failed")
    assert failed["detail"]["step"] == 2
    assert "leader changed: not within 7 s (pg1 leads)" in failed["detail"]["why"]
    assert world.events("window-end")
    assert world.calls.count("heal pg1") == 1
    assert "step 2 did not come about" in RecordReader(world.record.path).manifest.notes[0]


def test_assertions_are_looked_at_throughout(world: World) -> None:
    world.tell(
        "- {assert: writes healthy, throughout: 6}\n- {assert: leader unchanged, throughout: window}\n"
        "- {at: 1, fault: test}"
    )
    begin = world.clock.t
    world.unhealthy = lambda now: "a write failed" if begin + 5 * NS < now < begin + 6 * NS else ""
    world.play()
    (failed,) = world.events("assert-failed")
    assert failed["detail"] == {"step": 1, "condition": "writes healthy", "why": "a write failed"}
    ends = {event["detail"]["step"]: event["detail"] for event in world.events("assert-end")}
    assert (ends[1]["held"], ends[2]["held"]) == (False, True)
    assert ends[2]["looks"] > 50
    begin += round(world.session.plan.phases_s[0] * NS)
    assert world.events("assert-end")[0]["t"] - begin == pytest.approx(6 * NS, abs=0.3 * NS)


def test_an_assertion_that_nobody_looked_at_is_not_held(world: World) -> None:
    world.tell("- {assert: leader unchanged, throughout: window}\n- {fault: test}")
    stale = world.watch.latest()

    def newest(fresher_than: int = 0, timeout_s: float = 1) -> Any:  # noqa: ARG001
        return stale if world.calls else world.watch.latest()

    world.watch.newest = newest  # type: ignore[method-assign]
    world.play()
    (end,) = world.events("assert-end")
    assert end["detail"]["held"] is None
    assert "not looked at" in end["detail"]["why"]


def test_a_later_injection_that_fails_is_recorded_and_the_rest_healed(world: World) -> None:
    world.tell("- {fault: test}\n- {at: 2, fault: other}")
    world.faults["other"].fails = True
    done = world.play()
    assert not done.complete
    assert "injection failed" in world.events("step-failed")[0]["detail"]["why"]
    assert not world.journal.pending()


def test_a_fault_elsewhere_explains_no_change_of_leader(world: World) -> None:
    world.tell("- {fault: test, target: any-replica}")
    world.play()
    assert world.session.faulty == []
    assert world.events("fault-begin")[0]["detail"]["moves_leader"] == "no"


def test_a_fault_that_cannot_be_healed_ends_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.tell("- {fault: test, for: 2}")
    monkeypatch.setattr(world.fault, "verify_healed", lambda *_: Evidence(False, "still there"))
    with pytest.raises(LabError, match="test on pg1 could not be healed: still there"):
        world.play()
    assert len(world.journal.pending()) == 1


def test_healing_one_fault_puts_back_another_on_the_same_node(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = world.calls

    def reapply(_lab: Any, effect: Effect) -> bool:
        calls.append(f"again {effect.node}")
        return True

    monkeypatch.setattr(world.faults["test"], "reapply", reapply, raising=False)
    world.tell("- {fault: test, target: 'node:pg1'}\n- {fault: other, target: 'node:pg1', for: 2}\n"
               "- {fault: other, target: 'node:pg3', for: 2}")  # fmt: skip
    world.play()
    assert calls.count("again pg1") == 1
    assert calls.index("again pg1") > calls.index("heal pg1")
    (event,) = world.events("fault-again")
    assert event["detail"] == {"fault": "test", "step": 1}
    assert "put back on pg1" in " ".join(world.record.manifest.notes)
