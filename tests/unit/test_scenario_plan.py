"""What a story is worked out to: targets, durations, predictions, and what the machine cannot do."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab import cli
from lab.deploy.allocate import sample_allocation
from lab.driver import Completed
from lab.errors import LabError, UsageError
from lab.faults import find
from lab.faults._base import arm, disarm, traits
from lab.record.reader import RecordReader
from lab.record.schema import NS
from lab.scenario import targets
from lab.scenario.conditions import look as condition
from lab.scenario.journal import Journal
from lab.scenario.live import LiveWrites
from lab.scenario.loader import load_scenario
from lab.scenario.models import Scenario
from lab.scenario.needs import unmet
from lab.scenario.outline import as_json
from lab.scenario.plan import Plan, make_plan
from lab.scenario.runner import cannot, run_scenario
from lab.scenario.story import effective_moves
from lab.topology.loader import load_topology
from reports.analysis import analyse
from reports.pipeline import judged
from reports.view import exit_code
from tests.fake_lab import FakeLab
from tests.unit.test_scenario_parts import look

TOPOLOGY = load_topology("risk-prod")


def story(folder: Path, steps: str, *settings: str) -> Scenario:
    file = folder / "story.yaml"
    file.write_text(f"name: story\ntitle: t\nclaim: c\nsteps:\n{textwrap.indent(steps, '  ')}\n")
    return load_scenario(file, settings)


def planned(folder: Path, steps: str, *settings: str) -> Plan:
    return make_plan(story(folder, steps, *settings), TOPOLOGY, sample_allocation("t", TOPOLOGY), 1)


# Targets


@pytest.mark.parametrize(
    ("target", "nodes"),
    [
        ("pooler:session", "pool-session"),
        ("router", "router"),
        ("etcd-all", "etcd1 etcd2 etcd3"),
        ("sentinel-minority", "sentinel1"),
        ("node:pg4", "pg4"),
        ("az:b", "pg2 pg3 etcd2 pool-session redis2 sentinel2"),
        # Clients, observer and proxy stand in no zone that can be lost, whatever the topology says.
        ("az:a", "pg1 etcd1 router pool-transaction redis1 sentinel1"),
        ("az-data:a", "pg1 etcd1"),
        # These take a look at the lab.
        ("primary", ""),
        ("etcd-leader", ""),
        ("az:primary", ""),
    ],
)
def test_targets_that_the_topology_decides(target: str, nodes: str) -> None:
    assert targets.fixed(target, TOPOLOGY) == tuple(nodes.split())


@pytest.mark.parametrize("target", ["node:pg9", "node:observer", "az:z"])
def test_a_target_that_can_never_be_there(target: str) -> None:
    with pytest.raises(UsageError, match=f"target {target}: topology risk-prod has no"):
        targets.fixed(target, TOPOLOGY)


def test_roles_are_found_in_the_lab(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    cluster = look(1, "pg2", "pg1 pg3 pg4", "pg1")
    assert targets.find("primary", lab, cluster) == ("pg2",)
    assert targets.find("sync-replica", lab, cluster) == ("pg1",)
    assert targets.find("az-data:primary", lab, cluster) == ("pg2", "pg3", "etcd2")
    with pytest.raises(LabError, match="no standby is synchronous"):
        targets.find("sync-replica", lab, look(1, "pg2", "pg3 pg4", ""))
    with pytest.raises(LabError, match="no leader"):
        targets.find("az:primary", lab, look(1, None))

    def etcd(argv: Sequence[str]) -> Completed:
        urls = argv[3:]
        said = {url: {"me": str(i), "leader": "1"} for i, url in enumerate(urls)}
        return Completed(0, json.dumps({**said, urls[2]: None}), "")

    lab.nodes["observer"].answers[targets.PYTHON] = etcd
    assert targets.find("etcd-leader", lab, cluster) == ("etcd2",)
    assert targets.find("etcd-follower", lab, cluster) == ("etcd1",)
    assert targets.find("etcd-majority", lab, cluster) == ("etcd1", "etcd2")
    lab.nodes["observer"].answers[targets.PYTHON] = lambda argv: Completed(0, json.dumps({argv[3]: None}), "")
    with pytest.raises(LabError, match="no leader now"):
        targets.find("etcd-leader", lab, cluster)

    for name, role in (("redis1", "slave\n"), ("redis2", "master\n")):
        lab.nodes[name].answers["bash"] = lambda _, role=role: Completed(0, role, "")  # type: ignore[misc]
    assert targets.find("redis-primary", lab, cluster) == ("redis2",)
    assert targets.find("redis-replica", lab, cluster) == ("redis1",)


def test_a_fault_that_cannot_hit_a_target_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="step 1: kill-postmaster cannot hit etcd1, which is a etcd node"):
        planned(tmp_path, "- {fault: kill-postmaster, target: etcd-all}")


# Durations and predictions


def test_the_window_holds_every_fault_and_every_healing(tmp_path: Path) -> None:
    worst = planned(tmp_path, "- {fault: kill-node}").predicted["worst"]
    two = planned(tmp_path, "- {fault: none}\n- {at: 10, fault: kill-node}\n- {at: 12, fault: none, for: 60}")
    assert two.window_s == pytest.approx(12 + 60 + 5)
    assert planned(tmp_path, "- {at: 3, fault: none}\n- {at: 10, fault: kill-node}").window_s == (
        pytest.approx(7 + worst + 5)
    )
    # Elsewhere it moves no leader, so nothing has to expire.
    assert planned(tmp_path, "- {fault: kill-node, target: any-replica}").window_s == 15
    long = planned(tmp_path, "- {fault: none}\n- {assert: synchronous, throughout: 90}")
    assert long.window_s == 90
    waits = planned(tmp_path, "- {fault: none}\n- {until: synchronous, within: 33}")
    assert waits.longest_s >= waits.window_s + 33
    with pytest.raises(UsageError, match="10 s have passed before step 2 begins"):
        planned(tmp_path, "- {fault: none}\n- {at: 10, fault: none}", "recovery.window=10")


def test_only_what_is_sure_is_predicted(tmp_path: Path) -> None:
    alone = planned(tmp_path, "- {fault: kill-node}").predicted
    assert alone["detect_best"] == 19
    assert planned(tmp_path, "- {at: 4, fault: kill-node}").predicted == alone
    assert planned(tmp_path, "- {fault: kill-node, target: standby}").predicted == {}
    assert planned(tmp_path, "- {fault: kill-node, target: 'az:a'}").predicted == {}
    # Healed before anything could happen; after a wait whose end is not known; after another fault.
    assert planned(tmp_path, "- {fault: kill-node, for: 5}").predicted == {}
    assert planned(tmp_path, "- {fault: none}\n- {until: synchronous}\n- {fault: kill-node}").predicted == {}
    assert planned(tmp_path, "- {fault: none}\n- {at: 5, fault: kill-node}").predicted == {}
    both = planned(tmp_path, "- {fault: kill-postmaster}\n- {at: 30, fault: kill-node}").predicted
    assert set(both) == {"best", "worst"}
    assert both["worst"] == pytest.approx(30 + alone["worst"])


def test_the_outline_says_what_is_known(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "- {fault: kill-node, target: 'az-data:b', for: 9}\n"
        "- {when: writes failing, within: 7, fault: none}\n"
        "- {until: synchronous, within: 20}\n- {assert: writes healthy, throughout: window}",
    )
    lines = as_json(plan)["steps"]
    assert [line["earliest_s"] for line in lines] == [0, 0, 0, 0]
    assert [line["latest_s"] for line in lines] == [0, 7, 27, 27]
    assert (lines[0]["nodes"], lines[0]["certain"]) == (("pg2", "pg3", "etcd2"), True)
    assert (lines[1]["nodes"], lines[1]["certain"]) == (("pg1", "pg2"), False)
    assert lines[0]["healed"] == "after 9 s"
    assert "wait until synchronous, at most 20 s" in lines[2]["does"]


def test_dry_run_needs_no_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / ".lab"))
    assert cli.run(["run", "kill-primary", "--dry-run", "--topology", "risk-prod", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["steps"][0]["target"] == "primary"
    assert document["window_s"] == pytest.approx(document["predicted"]["worst"] + 5)
    words = [
        "run",
        "kill-primary",
        "--dry-run",
        "--topology",
        "risk-prod",
        "--set",
        "postgres.patroni.ttl=40",
    ]
    assert cli.run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["window_s"] == document["window_s"] + 20
    assert cli.run(words) == 0
    assert "fault kill-node" in capsys.readouterr().out
    assert cli.run(["run", "kill-primary", "--dry-run"]) == 3
    assert not (tmp_path / ".lab").exists()


# Conditions and leaders


def test_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveWrites(1.0)
    why = ""
    monkeypatch.setattr(live, "unhealthy", lambda _: why)
    whole, t = look(100 * NS, "pg1"), 101 * NS

    def holds(word: str, cluster: Any = whole, now: int = t) -> bool | None:
        return condition(word, cluster, live, "pg1", now).holds

    assert holds("writes healthy")
    assert not holds("writes failing")
    why = "a write failed"
    assert (holds("writes healthy"), holds("writes failing")) == (False, True)
    assert holds("replicas streaming")
    assert not holds("replicas streaming", look(t, "pg1", "pg2 pg3"))
    assert holds("synchronous")
    assert not holds("synchronous", look(t, "pg1", sync=""))
    assert (holds("leader unchanged"), holds("leader changed")) == (True, False)
    moved, nobody = look(t, "pg2", "pg1 pg3 pg4"), look(t, None)
    assert (holds("leader unchanged", moved), holds("leader changed", moved)) == (False, True)
    assert (holds("leader unchanged", nobody), holds("leader changed", nobody)) == (True, False)
    # An old look says nothing of now; writes are looked at by themselves.
    for word in ("replicas streaming", "synchronous", "leader changed", "leader unchanged"):
        assert holds(word, whole, 104 * NS) is None
        assert holds(word, None) is None
    with pytest.raises(ValueError, match="unknown condition"):
        holds("all is well")


def test_where_a_fault_moves_the_leader() -> None:
    kill, nothing = find("kill-node"), find("none")
    assert effective_moves(kill, ["pg1"], TOPOLOGY, "pg1") == "yes"
    assert effective_moves(kill, ["pg3"], TOPOLOGY, "pg1") == "no"
    assert effective_moves(kill, ["pg3", "etcd2"], TOPOLOGY, "pg1") == "maybe"
    assert effective_moves(kill, ["router"], TOPOLOGY, "pg1") == "no"
    # Nobody knows who leads, so that it may be the one.
    assert effective_moves(kill, ["pg3"], TOPOLOGY, None) == "yes"
    assert effective_moves(nothing, ["pg1"], TOPOLOGY, "pg1") == "no"


def test_traits_have_defaults() -> None:
    assert traits(find("kill-postmaster")).chain == "release"
    assert traits(find("none")).kind == "none"
    for name in ("kill-node", "kill-postmaster"):
        assert traits(find(name)).kind == "kill"


# What the machine cannot do


class Picky:
    """A fault that needs something."""

    name, summary, colour = "picky", "", "#000000"

    def __init__(self, *needs: str, own: str = "") -> None:
        self.needs = needs
        self.lacks: Callable[[Any, str], str] = lambda _lab, _node: own


def test_what_a_fault_needs_is_asked_of_the_node(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    lab.nodes["pg1"].answers["sh"] = lambda _: Completed(1, "", "iptables: Permission denied\n")
    lab.nodes["pg2"].answers["sh"] = lambda _: Completed(0, "", "")
    fault: Any = Picky("iptables")
    assert unmet(lab, fault, ["pg2"]) == ""
    assert "packets cannot be filtered in pg1: iptables: Permission denied" in unmet(
        lab, fault, ["pg2", "pg1"]
    )
    lab.nodes["pg1"].broken = True
    assert unmet(lab, fault, ["pg1"])
    assert "does not know" in unmet(lab, Picky("magic"), ["pg2"])  # type: ignore[arg-type]
    assert "no disk to fill" in unmet(lab, Picky(own="no disk to fill"), ["pg2"])  # type: ignore[arg-type]


def test_a_scenario_that_cannot_be_performed_leaves_a_record_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = FakeLab(tmp_path)
    assert cannot(lab, load_scenario("kill-primary")) == ""
    why = "step 1: kill-node: the kernel has no netem"
    monkeypatch.setattr("lab.scenario.runner.unmet", lambda *_: why.removeprefix("step 1: "))
    done = run_scenario(lab, load_scenario("kill-primary"), seed=1, runs_dir=tmp_path / "runs")
    record = RecordReader(done.path)
    assert (done.trials, record.manifest.state, record.manifest.not_run) == (0, "closed", why)
    verdicts, _ = judged(record, analyse(record))
    assert verdicts
    assert {verdict.status for verdict in verdicts} == {"not run"}
    assert all(why in verdict.why for verdict in verdicts)
    assert exit_code(verdicts) == 2
    # Nothing was begun, and nothing is left to undo.
    assert not lab.nodes["observer"].calls
    assert not Journal(lab.state_dir).pending()


# Deadlines inside the node


def test_a_deadline_undoes_a_fault_by_itself_unless_disarmed(tmp_path: Path) -> None:
    """The scripts are real ones; run here, below a folder of the test's own."""
    import subprocess
    import time

    lab = FakeLab(tmp_path)
    node = lab.nodes["pg1"]
    started: list[subprocess.Popen[bytes]] = []

    def here(words: Sequence[str]) -> list[str]:
        return [word.replace("/run/pglab", f"{tmp_path}/pglab") for word in words]

    def bash(argv: Sequence[str]) -> Completed:
        done = subprocess.run(here(argv), capture_output=True, text=True, check=False)
        return Completed(done.returncode, done.stdout, done.stderr)

    def spawn(argv: Sequence[str], **_: Any) -> None:
        started.append(subprocess.Popen(here(argv)))

    node.answers["bash"] = bash
    node.spawn = spawn  # type: ignore[method-assign]
    undone = tmp_path / "undone"
    try:
        arm(lab, "pg1", "test", f"touch {undone}", 0.3)
        time.sleep(0.1)
        assert not undone.exists()
        started[0].wait(5)
        assert undone.exists()
        undone.unlink()
        arm(lab, "pg1", "test", f"touch {undone}", 0.6)
        disarm(lab, "pg1", "test")
        disarm(lab, "pg1", "test")
        started[1].wait(5)
        time.sleep(0.8)
        assert not undone.exists()
        arm(lab, "pg1", "test", f"touch {undone}", None)
        assert len(started) == 2
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_later_fault_that_may_move_the_leader_leaves_no_prediction(tmp_path: Path) -> None:
    first = "- {fault: kill-node, target: primary}\n"
    assert planned(tmp_path, first).predicted["worst"] > 20
    for later in ("- {at: 45, when: synchronous, fault: switchover, target: primary}",
                  "- {at: 45, fault: isolate, target: etcd-leader}"):  # fmt: skip
        assert planned(tmp_path, first + later).predicted == {}
    # What cannot move it, or hits others, changes nothing.
    for later in ("- {at: 5, fault: kill-node, target: any-replica}",
                  "- {at: 5, fault: abandoned-slot, target: primary}"):  # fmt: skip
        assert planned(tmp_path, first + later).predicted == planned(tmp_path, first).predicted


def test_probes_leave_room_in_a_session_pool(tmp_path: Path) -> None:
    steps = "- fault: kill-postmaster"
    lasting = {
        pool: planned(tmp_path, steps, f"load.pool={pool}").probes.sessions
        for pool in ("transaction", "session", "pool-session", "statement")
    }
    # 50 connections are 30 for writers and 20 for readers: the probes of each take 5.
    assert lasting == {"transaction": 20, "session": 5, "pool-session": 5, "statement": 20}
