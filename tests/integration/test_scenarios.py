"""Scenarios on a real lab: what a run leaves on disk, and that nothing stays broken whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.deploy.docker_driver import DockerLab
from lab.deploy.readiness import wait_ready
from lab.record.reader import RecordReader, find_run
from lab.record.schema import NS
from lab.scenario.journal import Journal, heal_pending
from lab.scenario.loader import load_scenario
from lab.scenario.runner import run_scenario

START_WITHIN_S = 120.0

# The engine's client leaves sockets to the garbage collector, in whatever test is running then.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def lab(lab_risk_prod: DockerLab) -> DockerLab:
    return lab_risk_prod


def lab_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lab.cli", *words]


def run_here(lab: DockerLab, scenario: str, runs: Path, *settings: str) -> RecordReader:
    wait_ready(lab)
    story = load_scenario(scenario, ["settle=3", "trials=1", *settings])
    return RecordReader(run_scenario(lab, story, seed=11, runs_dir=runs).path)


def kinds_of(record: RecordReader) -> dict[str, dict[str, Any]]:
    """The last event of each kind of the first trial, and of those outside of any."""
    return {event["kind"]: event for event in record.events() if event["trial"] in (0, 1)}


def check_whole(record: RecordReader, lab: DockerLab) -> None:
    """What every finished run with one trial must hold."""
    manifest = record.manifest
    assert manifest.state == "closed"
    assert (manifest.trials_done, manifest.trials_asked) == (1, 1)
    assert manifest.anchor is not None
    assert {o.clock for o in manifest.offsets} >= {"runner", "engine", "load:0"}
    assert {"postgresql", "patroni", "pgbouncer", "haproxy", "etcd", "locust"} <= manifest.versions.keys()
    assert manifest.machine["cores"]
    tables = set(record.tables())
    assert {"events", "writes", "reads", "nodes", "routes", "requests", "metrics"} <= tables
    assert not list(record.path.glob("*.jsonl")) + list(record.path.glob("*.bin"))
    assert set(record.logs) == set(lab.nodes)
    # Every node reports its control group, also the one that was killed and came back.
    metrics = record.frame("metrics", ["node", "metric"])
    assert set(metrics[metrics.metric == "cpu_seconds"].node.astype(str)) == set(lab.nodes)
    # No secret is in the record, in whatever file.
    secrets = {lab.secret(f"password_{role}").encode() for role in ("lab_probe", "app_readwrite", "postgres")}
    for file in record.path.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert not any(secret in data for secret in secrets), file


def acknowledged_is_present(record: RecordReader) -> None:
    """Every acknowledged write is on every node: what a kill of one node must not change."""
    writes = record.frame("writes", ["n", "trial", "outcome"])
    acknowledged = writes[writes.outcome == "acknowledged"]
    assert len(acknowledged) > 100
    for trial, node in record.audits():
        mine = set(acknowledged[acknowledged.trial == trial].n)
        table = record.audit(trial, node)
        found = set(table.column("n").to_pylist())
        assert not mine - found, f"trial {trial}, {node}: {len(mine - found)} lost"
        assert set(table.column("copies").to_pylist()) <= {1}
    assert len(record.audits()) == 8  # trials 0 and 1, four nodes


def outage_s(record: RecordReader) -> float:
    """From the effect to the first acknowledged write after the leader was elected, seconds."""
    events = kinds_of(record)
    effect, elected = events["fault-effect"]["t"], events["leader-elected"]["t"]
    writes = record.frame("writes", ["done", "outcome"])
    good = writes[(writes.outcome == "acknowledged") & (writes.done >= elected)].done.min()
    return float((good - effect) / NS)


def test_kill_postmaster(lab: DockerLab, tmp_path: Path) -> None:
    record = run_here(lab, "kill-postmaster", tmp_path / "runs")
    check_whole(record, lab)
    acknowledged_is_present(record)
    events = kinds_of(record)
    assert "fault-verified" in events
    assert events["fault-effect"]["uncertainty"] < 0.1 * NS
    assert events["redundant"]["t"] > events["fault-effect"]["t"]
    assert 0.05 < outage_s(record) < 15
    assert (tmp_path / "runs/latest").resolve() == record.path.resolve()


@pytest.mark.slow  # by day test_controls.py kills the primary
def test_kill_primary(lab: DockerLab, tmp_path: Path) -> None:
    record = run_here(lab, "kill-primary", tmp_path / "runs")
    check_whole(record, lab)
    acknowledged_is_present(record)
    events = kinds_of(record)
    killed = events["fault-begin"]["detail"]["resolved"]
    assert events["leader-elected"]["detail"]["leader"] != killed
    predicted = record.manifest.predicted
    # A busy machine may be later than predicted, and never earlier: the leader key has to expire.
    assert predicted["best"] - 1 < outage_s(record) < predicted["worst"] + 10
    assert (events["window-end"]["t"] - events["fault-effect"]["t"]) / NS >= predicted["worst"] + 4.9
    assert events["heal-verified"]["node"] == killed


TWO_FAULTS = """\
name: two-faults
title: A replica is lost while another hangs
claim: two faults overlap on nodes that do not lead, and nobody notices
load: {rate: 30}
steps:
  - {assert: leader unchanged, throughout: window}
  - {fault: pause-node, target: "node:%s", for: 8}
  - {at: 3, fault: kill-node, target: "node:%s", for: 3}
  - {until: replicas streaming, within: 90}
recovery: {redundant_within: 240}
"""


def replicas(lab: DockerLab) -> tuple[str, str]:
    """Two nodes that are never promoted."""
    names = [node.name for node in lab.topology.postgres.nodes if node.role == "replica"]
    return names[0], names[1]


def test_faults_overlap_and_heal_within_the_window(lab: DockerLab, tmp_path: Path) -> None:
    file = tmp_path / "two-faults.yaml"
    file.write_text(TWO_FAULTS % replicas(lab))
    record = run_here(lab, str(file), tmp_path / "runs")
    assert record.manifest.faults == ["pause-node", "kill-node"]
    events = record.events()
    effect = {e["detail"]["step"]: e for e in events if e["kind"] == "fault-effect"}
    healing = {e["detail"]["step"]: e for e in events if e["kind"] == "heal-begin"}
    ended = next(e["t"] for e in events if e["kind"] == "window-end")
    assert (effect[2]["node"], effect[3]["node"]) == replicas(lab)
    # The later one was healed first, and both in their own time.
    assert effect[2]["t"] < effect[3]["t"] < healing[2]["t"] < ended
    assert 0 <= (healing[2]["t"] - effect[2]["t"]) / NS - 8 < 6
    assert 0 <= (healing[3]["t"] - effect[3]["t"]) / NS - 3 < 6
    assert len([e for e in events if e["kind"] == "heal-verified"]) == 2
    (told,) = [e["detail"] for e in events if e["kind"] == "assert-end"]
    assert (told["condition"], told["held"]) == ("leader unchanged", True)
    assert {e["detail"]["moves_leader"] for e in events if e["kind"] == "fault-begin"} == {"no"}
    assert [e["detail"]["condition"] for e in events if e["kind"] == "condition"] == ["replicas streaming"]
    assert not Journal(lab.state_dir).pending()


@pytest.mark.slow  # by day one fault's runner is killed, below
def test_several_faults_of_a_killed_runner_are_healed(lab: DockerLab, tmp_path: Path) -> None:
    wait_ready(lab)
    file = tmp_path / "two-faults.yaml"
    file.write_text(TWO_FAULTS.replace("for: 8", "for: 60").replace("for: 3", "for: 60") % replicas(lab))
    runs = tmp_path / "runs"
    words = lab_command("run", str(file), "--name", lab.name, "--set", "settle=1", "--runs", str(runs))
    runner = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_WITHIN_S
        while len([e for e in Journal(lab.state_dir).pending() if e.do == "heal"]) < 2:
            assert runner.poll() is None, "the runner ended before its faults"
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(1)
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert heal_pending(lab)[:2] == [f"healed kill-node on {replicas(lab)[1]}", "healed pause-node on "
                                     f"{replicas(lab)[0]}"]  # fmt: skip
    states = [node.state() for node in lab.nodes.values()]
    assert all(state.running and not state.paused for state in states)
    wait_ready(lab)


def test_a_killed_runner_is_healed_by_the_next_command(lab: DockerLab, tmp_path: Path) -> None:
    wait_ready(lab)
    runs = tmp_path / "runs"
    words = lab_command(
        "run", "kill-primary", "--name", lab.name, "--trials", "1", "--set", "settle=1", "--runs", str(runs)
    )
    runner = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_WITHIN_S
        while all(node.state().running for node in lab.nodes.values()):
            assert runner.poll() is None, "the runner ended before its fault"
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # A second runner is refused while the first one lives, and heals nothing of it.
        second = subprocess.run(
            lab_command("run", "steady", "--name", lab.name, "--runs", str(tmp_path / "other")),
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 4
        assert "in use by another run" in second.stderr
        assert not all(node.state().running for node in lab.nodes.values())
        assert heal_pending(lab) == []
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert Journal(lab.state_dir).pending()

    done = subprocess.run(
        lab_command("status", "--name", lab.name, "--json"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "healed kill-node" in done.stderr
    json.loads(done.stdout)
    assert all(node.state().running for node in lab.nodes.values())
    assert not Journal(lab.state_dir).pending()
    record = RecordReader(find_run("latest", runs))
    assert record.manifest.state == "interrupted"
    assert record.table("writes").num_rows > 100
    for node in ("observer", "client"):
        left = lab.nodes[node].run(
            ["sh", "-c", "ps -e -o args | grep -c '[/]opt/venv/bin/python'"], check=False
        )
        assert left.stdout.strip() == "0", f"{node} still runs something"
    wait_ready(lab)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_heals_and_closes(lab: DockerLab, tmp_path: Path, number: signal.Signals) -> None:
    wait_ready(lab)
    runs = tmp_path / "runs"
    words = lab_command(
        "run", "kill-postmaster", "--name", lab.name, "--set", "settle=1", "--runs", str(runs), "--json"
    )
    err = (tmp_path / "err.txt").open("w+")
    with err, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=err, text=True) as runner:
        deadline = time.monotonic() + START_WITHIN_S
        while "clients are watched" not in Path(err.name).read_text():
            assert runner.poll() is None, Path(err.name).read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(runner.pid, number)
        out, _ = runner.communicate(timeout=60)
    assert runner.returncode == 130
    assert json.loads(out)["error"]["message"] == "interrupted"
    assert not Journal(lab.state_dir).pending()
    record = RecordReader(find_run("latest", runs))
    assert record.manifest.state == "interrupted"
    assert "interrupted" in kinds_of(record)
