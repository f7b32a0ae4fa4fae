"""Experiments with the pools on a real lab: ended from outside, and what needs a real pooler's clock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.deploy.docker_driver import DockerLab
from lab.experiment.pooling import IDLE_CLIENTS, run_pooling
from lab.load import LoadSpec, start_load
from lab.record.reader import RecordReader
from lab.scenario.journal import Journal
from reports.experiments.pooling import analyse
from reports.pipeline import analyse_and_report

CELLS_WITHIN_S = 180.0


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lab.cli", *words]


def started(lab: DockerLab, runs: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """``lab pooling``, with further poolers beside the lab's own, in the middle of its cells; its record."""
    words = command(
        "pooling", "--name", lab.name, "--clients", "5", "--repeats", "90", "--seconds", "1",
        "--group", "authentication", "--seed", "3", "--runs", str(runs),
    )  # fmt: skip
    runner = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + CELLS_WITHIN_S
    while time.monotonic() < until and runner.poll() is None:
        found = sorted(runs.glob("*-pooling/manifest.json"))
        if found and len(RecordReader(found[0].parent).cells()) >= 4:
            return runner, found[0].parent
        time.sleep(0.3)
    runner.kill()
    runner.wait()
    pytest.fail("the experiment measured nothing")


def programs(lab: DockerLab) -> dict[str, int]:
    """What an experiment may leave behind on its nodes, beyond what belongs there."""
    python = ["sh", "-c", "ps -e -o args | grep -c '[/]opt/venv/bin/python'"]
    poolers = ["sh", "-c", "ps -e -o comm | grep -c '^pgbouncer$'"]
    found = {
        node: int(lab.nodes[node].run(python, check=False).stdout.strip()) for node in ("client", "observer")
    }
    return {**found, "pool-transaction": int(lab.nodes["pool-transaction"].run(poolers).stdout.strip()) - 1}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_experiment_that_is_ended_leaves_a_record_and_a_whole_lab(
    lab_risk_prod: DockerLab, tmp_path: Path, how: signal.Signals
) -> None:
    runner, path = started(lab_risk_prod, tmp_path / "runs")
    os.kill(runner.pid, how)
    killed = how == signal.SIGKILL
    assert runner.wait(timeout=120) == (-signal.SIGKILL if killed else 130)
    pending = bool(Journal(lab_risk_prod.state_dir).pending())
    assert pending == killed
    # The next command, whatever it is, succeeds, and says what it undid.
    words = command("status", "--name", lab_risk_prod.name, "--json")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert ("left behind" in " ".join(done.stderr.split())) == killed, done.stderr
    assert not Journal(lab_risk_prod.state_dir).pending()
    assert programs(lab_risk_prod) == {"client": 0, "observer": 0, "pool-transaction": 0}
    record = RecordReader(path)
    assert record.manifest.state == "interrupted"
    assert len(record.cells()) >= 4
    page = analyse_and_report(path, quiet=True).paths["html"].read_text(encoding="utf-8")
    assert "the run was interrupted" in page


def test_more_clients_than_a_session_pool_has_room_for(lab_risk_prod: DockerLab) -> None:
    # 100 that come and go, 30 server connections: they take turns, at the start of the load too.
    spec = LoadSpec(
        workload="limit-check", users=100, duration_s=3, arrivals="closed", pool="session",
        connections="per-request",
    )  # fmt: skip
    handle = start_load(lab_risk_prod, spec, "crowd")
    try:
        result = handle.wait(90)
    finally:
        handle.stop()
    assert result.detail["served"] > 50, result.detail
    assert result.detail["proof"][0]["sessions"] == 30


def test_idle_clients_cost_less_memory_through_a_pool(lab_risk_prod: DockerLab, tmp_path: Path) -> None:
    # The pooler has had clients before: what it keeps for them must not hide what new ones cost.
    path = run_pooling(
        lab_risk_prod, repeats=1, seconds=1, groups=("memory",), seed=4, runs_dir=tmp_path / "runs"
    )
    record = RecordReader(path)
    grown: dict[str, dict[str, tuple[int, int]]] = {}
    for cell in record.cells():
        if cell["name"].startswith("idle-memory/"):
            before, after = cell["result"]["before"], cell["result"]["after"]
            grown[cell["name"].partition("/")[2]] = {
                kind: tuple(after[kind][what] - before[kind][what] for what in ("count", "pss_bytes"))  # type: ignore[misc]
                for kind in ("backends", "pooler")
            }
    direct, pooled = grown["direct"], grown["pooled"]
    assert direct["backends"][0] == IDLE_CLIENTS
    assert direct["pooler"] == (0, pytest.approx(0, abs=200_000))
    assert pooled["backends"][0] < IDLE_CLIENTS / 2
    assert pooled["pooler"][0] == 0
    assert pooled["pooler"][1] > 100_000, "fifty clients with TLS are not free"
    assert sum(size for _, size in pooled.values()) < sum(size for _, size in direct.values()) / 3
    page = analyse_and_report(path, quiet=True).paths["html"].read_text(encoding="utf-8")
    assert "KiB an idle client" in page


@pytest.mark.slow
def test_timeouts_and_the_control_of_the_efficiency(lab_risk_prod: DockerLab, tmp_path: Path) -> None:
    groups = ("control", "timeouts")
    path = run_pooling(lab_risk_prod, repeats=1, seconds=1, groups=groups, seed=4, runs_dir=tmp_path / "runs")
    found = {one.metric: one for one in analyse(RecordReader(path)).findings}
    control, idle, wait = (
        found[name] for name in ("pool.efficiency_control", "pool.idle_timeout", "pool.query_wait")
    )
    assert control.value is not None
    assert control.value < 90 < control.detail["as_designed"]
    # 300 s, divided by 60; a busy machine looks late.
    assert idle.value is not None
    assert 240 < idle.value <= 300, idle
    assert wait.value is not None
    assert 2 <= wait.value < 6, wait
