"""``kill -9`` of the runner at a random moment: the next ``lab`` command heals, ``lab down`` leaves nothing.

Slow (about 30 s a round), so it runs only where it is asked for::

    LAB_KILL_ROUNDS=50 pytest tests/integration/test_kill_nine.py -s
    pytest tests/integration -m slow            # 3 rounds

``LAB_KILL_TOPOLOGY`` says where: by default the smallest that has Patroni, etcd, a synchronous standby, a
router and a pooler. ``LAB_KILL_SEED`` chooses the moments and scenarios (default 1); ``LAB_KILL_REPORT``
names a file that gets one JSON line a round: when it was killed, in which phase, what the next command said,
and how long until the lab was whole again. After the last round the runner is killed once more, and ``lab
down`` comes at once, without anything that heals in between. ``lab up`` and ``lab down`` are killed too.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.deploy import state
from lab.deploy.docker_driver import LABEL_LAB, DockerLab
from lab.deploy.down import down
from lab.deploy.engine import api
from lab.deploy.readiness import wait_ready
from lab.deploy.up import up
from lab.record.reader import RecordReader
from lab.scenario.journal import Journal
from lab.topology.loader import load_topology
from tests.integration.conftest import Silent

WITHIN_S = 20.0
"""Every other runner is killed so long after its start at most: start-up, load, settling, or the fault."""
AFTER_S = 12.0
"""The others so long at most after their fault was announced: injection, window, healing, audit."""
SCENARIOS = ("kill-postmaster", "kill-primary")
TOPOLOGY = os.environ.get("LAB_KILL_TOPOLOGY", "clinical-prod")
SETTINGS = ("--set", "settle=1", "--set", "load.workload=bank", "--set", "load.rate=40")
UP_WITHIN_S = 60.0
DOWN_WITHIN_S = 6.0
WHOLE_WITHIN_S = 120.0

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def rounds(pytestconfig: pytest.Config) -> int:
    given = os.environ.get("LAB_KILL_ROUNDS")
    if not given and "slow" not in str(pytestconfig.getoption("markexpr")):
        pytest.skip("slow: set LAB_KILL_ROUNDS, or choose it with -m slow")
    return max(1, int(given or 3))


@pytest.fixture(scope="module")
def lab(rounds: int, state_dir: Path) -> Iterator[DockerLab]:
    assert rounds
    assert state_dir
    name = f"it-kill-{os.getpid()}"
    try:
        yield up(name, load_topology(TOPOLOGY), Silent(), timeout_s=300).lab
    finally:
        down(name)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lab.cli", *words]


def announced(lab: DockerLab) -> bool:
    return any(entry.do == "heal" for entry in Journal(lab.state_dir).pending())


def kill_a_runner(
    lab: DockerLab, scenario: str, after_s: float, runs: Path, seed: int, fault: bool
) -> tuple[float, bool]:
    """Start ``lab run`` and kill it with SIGKILL; seconds that it lived, and whether it lived until then.

    Args:
        after_s: when, from its start, or with ``fault`` from the moment its fault was announced.
    """
    words = command(
        "run", scenario, "--name", lab.name, "--trials", "1", "--seed", str(seed), "--no-report",
        *SETTINGS, "--runs", str(runs),
    )  # fmt: skip
    began = time.monotonic()
    runner = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # On a machine too busy for the lab to settle it is killed all the same.
        patience = began + WHOLE_WITHIN_S
        while fault and not announced(lab) and runner.poll() is None and time.monotonic() < patience:
            time.sleep(0.02)
        since = time.monotonic() if fault else began
        while (left := since + after_s - time.monotonic()) > 0 and runner.poll() is None:
            time.sleep(min(0.05, left))
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    return time.monotonic() - began, runner.returncode == -signal.SIGKILL


def newest(runs: Path) -> RecordReader | None:
    found = sorted(runs.glob("*/manifest.json"))
    return RecordReader(found[-1].parent) if found else None


def left_running(lab: DockerLab) -> list[str]:
    """Nodes on which a program of a run is still there."""
    look = ["sh", "-c", "ps -e -o args | grep -c '[/]opt/venv/bin/python'"]
    return [
        node
        for node in ("observer", "client")
        if lab.nodes[node].run(look, check=False).stdout.strip() != "0"
    ]


def in_engine(name: str) -> int:
    """Containers, networks and volumes that carry the lab's label."""
    label = {"label": [f"{LABEL_LAB}={name}"]}
    return (
        len(api().containers(all=True, filters=label))
        + len(api().networks(filters=label))
        + len(api().volumes(filters=label)["Volumes"] or ())
    )


def one_round(lab: DockerLab, number: int, draw: random.Random, folder: Path) -> dict[str, Any]:
    scenario = draw.choice(SCENARIOS)
    fault = number % 2 == 0
    after_s = round(draw.uniform(0.0, AFTER_S if fault else WITHIN_S), 3)
    runs = folder / f"round-{number}"
    lived, killed = kill_a_runner(lab, scenario, after_s, runs, number, fault)
    pending = [entry.do for entry in Journal(lab.state_dir).pending()]
    dead = [node.name for node in lab.nodes.values() if not node.state().running]
    began = time.monotonic()
    done = subprocess.run(
        command("status", "--name", lab.name, "--json"), capture_output=True, text=True, check=False
    )
    healed_s = time.monotonic() - began
    # Lines are wrapped at the width of a terminal.
    told = re.findall(r"lab \S+: ([^(]*) \(left behind", " ".join(done.stderr.split()))
    facts: dict[str, Any] = {
        "round": number, "scenario": scenario, "killed": killed, "after_s": round(lived, 2),
        "pending": pending, "dead": dead, "told": told, "heal_command_s": round(healed_s, 2),
    }  # fmt: skip

    # The next command succeeds, and says what it undid wherever there was anything to undo.
    assert done.returncode == 0, (facts, done.stderr)
    json.loads(done.stdout)
    assert bool(told) == bool(pending), (facts, done.stderr)
    assert not Journal(lab.state_dir).pending(), facts
    assert [n.name for n in lab.nodes.values() if not n.state().running] == [], facts
    assert left_running(lab) == [], facts
    record = newest(runs)
    if record is not None:
        events = record.events()
        facts["phase"] = str(events[-2]["kind"] if len(events) > 1 else "start") if events else "start"
        facts["record"] = record.manifest.state
        # Killed after its record was begun and before it was announced: nothing ran yet in the lab.
        unannounced = not pending and not events
        assert record.manifest.state == "interrupted" or unannounced or not killed, facts
    elif pending:
        pytest.fail(f"a run was announced and left no record: {facts}")
    # Writes through every pool, every standby streaming, a synchronous one among them.
    wait_ready(lab, timeout_s=WHOLE_WITHIN_S)
    facts["whole_again_s"] = round(time.monotonic() - began, 2)
    return facts


def test_a_killed_runner_leaves_nothing_broken(
    lab: DockerLab, rounds: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seed = int(os.environ.get("LAB_KILL_SEED", "1"))
    draw = random.Random(seed)
    wait_ready(lab)
    seen = []
    for number in range(1, rounds + 1):
        facts = one_round(lab, number, draw, tmp_path)
        seen.append(facts)
        print(json.dumps(facts), flush=True)
        if report := os.environ.get("LAB_KILL_REPORT"):
            with Path(report).open("a", encoding="utf-8") as file:
                file.write(json.dumps(facts) + "\n")
    broken = sum("heal" in facts["pending"] for facts in seen)
    request.node.user_properties += [
        ("rounds", len(seen)),
        ("killed", sum(facts["killed"] for facts in seen)),
        ("killed_with_a_fault_in_effect", broken),
        ("killed_in_phase", json.dumps(Counter(facts.get("phase", "before") for facts in seen))),
        ("seed", seed),
    ]
    # On a machine too busy for the lab to settle a runner gives up by itself: that is no kill.
    assert sum(facts["killed"] for facts in seen) > 0.7 * rounds
    if rounds >= 20:
        assert broken >= rounds // 10, "too few kills fell into a fault: the figure would say little"

    # Killed while its fault is in effect, and then no command that heals, but `lab down` at once.
    runs = tmp_path / "last"
    words = command(
        "run", "kill-primary", "--name", lab.name, "--trials", "1", "--no-report", *SETTINGS,
        "--runs", str(runs),
    )  # fmt: skip
    runner = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while all(node.state().running for node in lab.nodes.values()):
            assert runner.poll() is None, "the runner ended before its fault"
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert in_engine(lab.name) > 0
    gone = subprocess.run(command("down", "--name", lab.name), capture_output=True, text=True, check=False)
    assert gone.returncode == 0, gone.stderr
    assert in_engine(lab.name) == 0
    assert not state.lab_dir(lab.name).exists()


def kill_at(words: list[str], name: str, made: int) -> bool:
    """Kill a command with SIGKILL once so many things of a lab are there; whether it lived until then."""
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + UP_WITHIN_S
        while in_engine(name) < made and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    return running.returncode == -signal.SIGKILL


def kill_after(words: list[str], after_s: float) -> bool:
    """Start a command and kill it with SIGKILL; whether it lived until then."""
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(after_s)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    return running.returncode == -signal.SIGKILL


@pytest.mark.parametrize("again", ["down", "up"])
def test_a_killed_up_is_brought_up_or_taken_down(rounds: int, state_dir: Path, again: str) -> None:
    """Whatever ``lab up`` had made when it was killed, the next command takes over or takes away."""
    assert state_dir
    draw = random.Random(f"{os.environ.get('LAB_KILL_SEED', '1')} up {again}")
    name = f"it-killup-{os.getpid()}"
    for number in range(1, max(1, rounds // 10) + 1):
        try:
            print(json.dumps({"up_round": number, "again": again, **one_up(name, draw, again)}), flush=True)
        finally:
            down(name)


def one_up(name: str, draw: random.Random, again: str) -> dict[str, Any]:
    # All are made before any of it is ready, so that it is never too late.
    wanted = draw.randint(1, len(load_topology("risk-dev").members()))
    killed = kill_at(command("up", "risk-dev", "--name", name), name, wanted)
    facts: dict[str, Any] = {"wanted": wanted, "killed": killed, "made": in_engine(name)}
    assert killed, facts
    if again == "up":
        done = subprocess.run(
            command("up", "risk-dev", "--name", name), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (facts, done.stderr)
        wait_ready(DockerLab.open(name), timeout_s=WHOLE_WITHIN_S)
        # And a `lab down` that is killed on its way is finished by the next one.
        facts["down_after_s"] = round(draw.uniform(0.3, DOWN_WITHIN_S), 2)
        facts["down_killed"] = kill_after(command("down", "--name", name), facts["down_after_s"])
        facts["left_by_it"] = in_engine(name)
    known = state.lab_dir(name).exists() or in_engine(name) > 0
    gone = subprocess.run(command("down", "--name", name), capture_output=True, text=True, check=False)
    assert gone.returncode == 0 or not known, (facts, gone.stderr)
    assert in_engine(name) == 0, (facts, gone.stderr)
    assert not state.lab_dir(name).exists(), (facts, gone.stderr)
    return facts
