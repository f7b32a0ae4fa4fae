"""Faults on processes, poolers, Redis and resources, and what operators do, on nodes that are tables."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lab.driver import Completed
from lab.errors import LabError
from lab.faults import find
from lab.faults._base import lacks, traits
from lab.faults._services import service_of
from lab.faults._shell import FIND_POSTMASTER
from lab.faults.pause_replay import _STOP
from lab.scenario.loader import list_scenarios, load_scenario
from lab.topology.loader import load_topology
from tests.fake_lab import FakeLab, FakeNode

MINE = [
    "abandoned-slot",
    "change-configuration",
    "disk-full",
    "exhaust-pool",
    "flush-redis",
    "kill-backend",
    "kill-patroni",
    "long-transaction",
    "lose-patroni",
    "oom-kill",
    "pause-both",
    "pause-node",
    "pause-patroni",
    "pause-pool",
    "pause-postmaster",
    "pause-replay",
    "reconnect-storm",
    "reload-pooler",
    "restart-postgres",
    "rolling-restart",
    "runaway-queries",
    "squeeze-memory",
    "stop-fast",
    "stop-immediate",
    "switchover",
    "throttle-cpu",
]


@pytest.fixture
def lab(tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


def answering(node: FakeNode, word: str, *table: tuple[str, str | Callable[[], str], int]) -> None:
    """Commands that begin with ``word`` answer by the first row whose text stands anywhere in them."""

    def answer(argv: Sequence[str]) -> Completed:
        line = " ".join(argv)
        for part, text, code in table:
            if part in line:
                return Completed(code, text() if callable(text) else text, "")
        return Completed(0, "", "")

    node.answers[word] = answer


STAMP = ("EPOCHREALTIME", "12.500000 12.500100\n", 0)


@pytest.mark.parametrize("name", MINE)
def test_what_every_one_says_of_itself(name: str) -> None:
    fault, said = find(name), traits(find(name))
    assert len(fault.summary) > 15
    assert said.kind in ("kill", "pause", "resource", "operator")
    assert said.on or name == "pause-node"
    # What stays in force is undone by a deadline on the node, or by a program's own, where anything can.
    if not said.ends_itself and name not in ("pause-node", "throttle-cpu", "exhaust-pool"):
        assert getattr(fault, "undo", "") or name in ("abandoned-slot", "change-configuration")


@pytest.mark.parametrize("name", [n for n in MINE if getattr(find(n), "undo", "")])
def test_the_deadline_is_armed_before_the_strike(name: str, lab: FakeLab) -> None:
    node = lab.nodes["pg1" if "database" in traits(find(name)).on else "pool-transaction"]
    replays = ('startup" || true', "102\n", 0)
    answering(node, "bash", ("/proc/[0-9]*", "100 5000\n", 0), ("supervise", "101 5000\n", 0), replays, STAMP)
    fault = find(name)
    plan = {"node": node.name, "table": "risk.position", "deadline_s": 60.0}
    try:
        fault.inject(lab, node.name, plan)
    except LabError:
        assert name in ("squeeze-memory", "long-transaction")
    armed = [i for i, call in enumerate(node.calls) if "pglab-deadline" in call and "60.0" in call]
    struck = [i for i, call in enumerate(node.calls) if "EPOCHREALTIME" in " ".join(call)]
    assert armed
    assert all(armed[0] < i for i in struck)
    # The commands that undo it are the same in healing, which works twice and where nothing was done.
    before = len(node.calls)
    fault.heal(lab, plan)
    fault.heal(lab, plan)
    undo = getattr(fault, "undo", "")
    assert len([call for call in node.calls[before:] if undo in call]) == 2
    # A node that does not run is started, which undoes it too.
    node.running = False
    fault.heal(lab, plan)
    assert node.started == 1


def test_pause_postmaster(lab: FakeLab) -> None:
    fault, node, observer = find("pause-postmaster"), lab.nodes["pg1"], lab.nodes["observer"]
    answering(node, "bash", ("/proc/[0-9]*", "100 5000\n", 0), STAMP)
    effect = fault.inject(lab, "pg1", fault.plan(lab, "pg1"))
    assert (effect.wall_earliest, effect.wall_latest) == (12.5, 12.5001)
    answering(node, "cat", ("/proc/100/stat", "100 (post gres) T 1\n", 0))
    answering(observer, "timeout", ("5432", "", 124))
    assert fault.verify(lab, effect).found
    # Negative controls: it answers; it runs.
    answering(observer, "timeout", ("5432", "", 0))
    assert not fault.verify(lab, effect).found
    answering(observer, "timeout", ("5432", "", 124))
    answering(node, "cat", ("/proc/100/stat", "100 (postgres) S 1\n", 0))
    assert not fault.verify(lab, effect).found
    answering(node, "bash", ("/proc/[0-9]*", "", 0), STAMP)
    with pytest.raises(LabError, match="no postmaster runs on pg1"):
        fault.inject(lab, "pg1", {"node": "pg1"})


def test_kill_patroni(lab: FakeLab) -> None:
    fault, node = find("kill-patroni"), lab.nodes["pg1"]
    now = "33 700\n"
    answering(node, "bash", STAMP, ("supervise", lambda: now, 0), ("/proc/[0-9]*", "100 5000\n", 0))
    effect = fault.inject(lab, "pg1", fault.plan(lab, "pg1"))
    assert not fault.verify(lab, effect).found
    now = "90 800\n"
    assert fault.verify(lab, effect).found
    now = ""
    assert fault.verify(lab, effect).found
    with pytest.raises(LabError, match="no Patroni"):
        fault.inject(lab, "pg1", {"node": "pg1"})


def test_kill_backend_needs_a_client(lab: FakeLab) -> None:
    fault, node = find("kill-backend"), lab.nodes["pg1"]
    checkpointer = "71\n"
    answering(
        node, "bash", STAMP, ("walsender", lambda: f"558\n{checkpointer}", 0),
        ("checkpointer", lambda: checkpointer, 0), ("/proc/[0-9]*", "100 5000\n", 0),
    )  # fmt: skip
    effect = fault.inject(lab, "pg1", fault.plan(lab, "pg1"))
    assert effect.seen == {"postmaster": 100, "backend": 558, "checkpointer": 71}
    checkpointer = "769\n"
    assert fault.verify(lab, effect).found
    answering(node, "bash", ("walsender", "71\n", 0), ("/proc/[0-9]*", "100 5000\n", 0))
    with pytest.raises(LabError, match="no client is connected"):
        fault.inject(lab, "pg1", {"node": "pg1"})


def test_pause_node(lab: FakeLab) -> None:
    fault, node, observer = find("pause-node"), lab.nodes["etcd1"], lab.nodes["observer"]
    assert service_of(lab, "etcd1") == (2379, "http")
    assert service_of(lab, "client") is None
    effect = fault.inject(lab, "etcd1", fault.plan(lab, "etcd1"))
    assert effect.wall_latest > effect.wall_earliest
    answering(observer, "timeout", ("2379", "", 124))
    assert fault.verify(lab, effect).found
    answering(observer, "timeout", ("2379", "", 0))
    assert not fault.verify(lab, effect).found
    assert not fault.verify_healed(lab, effect.heal).found
    fault.heal(lab, effect.heal)
    fault.heal(lab, effect.heal)
    assert not node.paused
    assert fault.verify_healed(lab, effect.heal).found
    with pytest.raises(LabError, match="nobody would see"):
        fault.plan(lab, "observer")


def test_kill_node_knows_the_service_of_every_node(lab: FakeLab) -> None:
    fault, observer = find("kill-node"), lab.nodes["observer"]
    effect = fault.inject(lab, "router", fault.plan(lab, "router"))
    answering(observer, "bash", ("7000", "", 0))
    assert fault.verify(lab, effect).found
    fault.heal(lab, effect.heal)
    answering(observer, "bash", ("7000", "7000\n", 0))
    assert fault.verify_healed(lab, effect.heal).found


def test_throttle_cpu(lab: FakeLab) -> None:
    fault, node = find("throttle-cpu"), lab.nodes["pg1"]
    waited = iter((10, 60, 60, 60))
    granted = "0.1"
    answering(node, "bash", ("cfs_quota", lambda: f"{granted}\n{next(waited)}\n", 0))
    plan = fault.plan(lab, "pg1")
    effect = fault.inject(lab, "pg1", plan)
    assert node.cpus == plan["cpus"] >= 0.1
    granted = str(plan["cpus"])
    assert fault.verify(lab, effect).found
    # Negative control: it never had to wait.
    assert not fault.verify(lab, effect).found
    fault.heal(lab, effect.heal)
    assert node.cpus is None


def test_disks_and_memory_of_the_machine_are_spared(lab: FakeLab) -> None:
    node = lab.nodes["pg1"]
    gib = 1024**3
    answering(node, "bash", ("stat -f", "overlayfs 47 65024 4096 66000000 1000\n", 0))
    assert "never filled" in lacks(find("disk-full"), lab, "pg1")
    # A directory of the engine's disk is none of the node's own either.
    answering(node, "bash", ("stat -f", "ext2/ext3 65024 65024 4096 1000 1000\n", 0))
    assert "never filled" in lacks(find("disk-full"), lab, "pg1")
    answering(node, "bash", ("stat -f", "tmpfs 50 65024 4096 260000 1000\n", 0))
    assert lacks(find("disk-full"), lab, "pg1") == ""

    for free, why in ((40 * gib, ""), (5 * gib, "of the machine")):
        answering(node, "bash", ("memory", f"{8 * gib}\n{gib}\n0\n{free}\n", 0))
        for name in ("oom-kill", "squeeze-memory"):
            said = lacks(find(name), lab, "pg1")
            assert (why in said) if why else said == ""
    answering(node, "bash", ("memory", f"max\n{gib}\n0\n{gib}\n", 0))
    assert "no memory limit" in lacks(find("oom-kill"), lab, "pg1")
    assert "statements" in lacks(find("exhaust-pool"), lab, "pool-statement")
    assert lacks(find("exhaust-pool"), lab, "pool-transaction") == ""


def patroni(lab: FakeLab, **members: str) -> None:
    """Patroni answers the observer: member=role."""
    listed = [{"name": name, "role": role, "state": "running"} for name, role in members.items()]

    def answer(argv: Sequence[str]) -> Completed:
        body = json.dumps({"members": listed}) if argv[-3] == "/cluster" else "{}"
        status = 412 if argv[-3] == "/restart" else 200
        return Completed(0, json.dumps([5.0, 5.1, status, body]), "")

    lab.nodes["observer"].answers["/opt/venv/bin/python"] = answer


def test_switchover(lab: FakeLab) -> None:
    fault = find("switchover")
    patroni(lab, pg1="leader", pg2="sync_standby")
    effect = fault.inject(lab, "pg1", fault.plan(lab, "pg1"))
    assert (effect.wall_earliest, effect.wall_latest) == (5.0, 5.1)
    patroni(lab, pg1="replica", pg2="leader")
    assert fault.verify(lab, effect).found
    with pytest.raises(LabError, match="pg1 does not lead"):
        fault.inject(lab, "pg1", {"node": "pg1"})


def test_a_refusal_of_patroni_is_told(lab: FakeLab) -> None:
    patroni(lab, pg1="leader")
    answering(lab.nodes["pg1"], "bash", ("/proc/[0-9]*", "100 5000\n", 0))
    with pytest.raises(LabError, match="with 412"):
        find("restart-postgres").inject(lab, "pg1", {"node": "pg1"})


def test_reconnect_storm(lab: FakeLab) -> None:
    fault, observer = find("reconnect-storm"), lab.nodes["observer"]
    seen = "2026-01-01 10:00:00 UTC"
    answering(
        observer,
        "psql",
        ("SHOW CLIENTS", lambda: f"database,connect_time\nrisk,{seen}\npgbouncer,{seen}\n", 0),
    )
    answering(observer, "bash", ("KILL risk_ro", "1767261700.0 1767261700.1\n", 0))
    effect = fault.inject(lab, "pool-transaction", fault.plan(lab, "pool-transaction"))
    assert effect.seen == {"clients": 1}
    # Negative control: the client is one of before.
    assert not fault.verify(lab, effect).found
    seen = "2026-01-01 10:01:41 UTC"
    assert fault.verify(lab, effect).found
    answering(observer, "psql", ("SHOW CLIENTS", "database,connect_time\n", 0))
    with pytest.raises(LabError, match="no client"):
        fault.inject(lab, "pool-transaction", {"node": "pool-transaction"})


def test_flush_redis(lab: FakeLab) -> None:
    fault, node = find("flush-redis"), lab.nodes["redis1"]
    calls = 2
    answering(
        node, "bash", STAMP, ("INFO replication", "role:master\n", 0),
        ("INFO commandstats", lambda: f"cmdstat_get:calls=9\ncmdstat_flushall:calls={calls},usec=3\n", 0),
    )  # fmt: skip
    effect = fault.inject(lab, "redis1", fault.plan(lab, "redis1"))
    assert not fault.verify(lab, effect).found
    calls = 3
    assert fault.verify(lab, effect).found
    answering(node, "bash", ("INFO replication", "role:slave\n", 0))
    with pytest.raises(LabError, match="no Redis primary"):
        fault.inject(lab, "redis1", {"node": "redis1"})


@pytest.mark.parametrize("name", list_scenarios())
def test_every_scenario_fits_the_topology(name: str) -> None:
    """Its faults can hit what its targets mean in risk-prod."""
    from lab.faults._base import sort_of
    from lab.scenario.targets import candidates

    topology, story = load_topology("risk-prod"), load_scenario(name)
    assert story.name == name
    assert len(story.claim) > 80
    for _, step in story.faults:
        on = traits(find(str(step.fault))).on
        hit = candidates(step.target, topology)
        assert hit
        if on:
            assert {sort_of(topology, node) for node in hit} <= set(on), f"{step.fault} on {step.target}"


def test_the_postmaster_is_told_from_a_child_that_has_no_title_yet(tmp_path: Path) -> None:
    """A child just forked has its parent's command line; its number may well sort before it."""
    server = b"/usr/lib/postgresql/15/bin/postgres\0-D\0/data\0"
    processes = [
        (1, "docker-init", b"/sbin/docker-init\0", 0),
        (30, "patroni", b"patroni\0", 1),
        (4016, "postgres", server, 30),
        (4018, "postgres", b"postgres: checkpointer \0", 4016),
        (10012, "postgres", server, 4016),
        (20, "postgres", b"", 4016),
    ]
    for pid, name, line, parent in processes:
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "comm").write_text(f"{name}\n")
        (folder / "cmdline").write_bytes(line)
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} " + " ".join(str(n) for n in range(5, 30)))
    script = FIND_POSTMASTER.replace("/proc", str(tmp_path))

    def found() -> list[str]:
        out = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
        return out.replace(f"{tmp_path}/", "").split()

    assert found() == ["4016", "22"]
    (tmp_path / "4016" / "comm").write_text("bash\n")
    (tmp_path / "10012" / "comm").write_text("bash\n")
    assert found() == []


def test_pausing_replay_needs_a_process_that_replays(lab: FakeLab) -> None:
    """A primary has none."""
    answering(lab.nodes["pg1"], "bash", ("/proc/[0-9]*", "100 5000\n", 0))
    with pytest.raises(LabError, match="no replica"):
        find("pause-replay").inject(lab, "pg1", {"node": "pg1"})


@pytest.mark.parametrize(
    ("state", "code", "last"), [("RecoveryWalStream", 0, "STOP"), ("BufferPin", 1, "CONT")]
)
def test_replay_is_stopped_only_where_it_waits_for_wal(
    tmp_path: Path, state: str, code: int, last: str
) -> None:
    """Elsewhere it could hold the lock of a page; then it goes on, and the fault says why."""
    calls = tmp_path / "calls"
    stand_ins = f'kill() {{ echo "$1" >>{calls}; }}; chpst() {{ echo {state}; }}\n'
    done = subprocess.run(
        ["bash", "-c", stand_ins + _STOP, "bash", "", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert ("never waited for WAL" in done.stderr) == bool(code)
    assert calls.read_text().split()[-1] == f"-{last}"
