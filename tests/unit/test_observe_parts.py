"""The observer's pure parts: clock, agents, figures, the story of the leader key, ledger lines."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from lab.observe import agents, clock, figures
from lab.observe.config import Config
from lab.observe.leader import Story
from lab.observe.rows import Rows, event

AGENT = Path(agents.__file__).with_name("agent.sh")


# --- clock


def test_clock_answers() -> None:
    assert clock.answer(b"clock", "t", lambda _n: None, lambda: 5, lambda: 7) == b"5 7"


def test_trial_needs_the_token() -> None:
    told: list[int] = []
    assert clock.answer(b"trial 3 secret", "secret", told.append, lambda: 9) == b"trial 3 9"
    assert told == [3]
    for datagram in (b"trial 4 wrong", b"trial 4", b"trial -1 secret", b"trial x secret", b"", b"\xff"):
        assert clock.answer(datagram, "secret", told.append) is None
    assert told == [3]


# --- agents


def test_agent_datagram() -> None:
    told = b"tok pg1 cpu_ns=2500000000 memory=7 agent_ns=500000000 bogus=1 io_read=x"
    rows = agents.parse(told, "tok", 11)
    assert [(row["t"], row["node"], row["metric"], row["value"]) for row in rows] == [
        (11, "pg1", "cpu_seconds", 2.5),
        (11, "pg1", "memory_bytes", 7.0),
        (11, "pg1", "collector_cpu_seconds", 0.5),
    ]


@pytest.mark.parametrize("datagram", [b"wrong pg1 memory=7", b"tok pg1", b"", b"\xff\xfe", b"tok"])
def test_agent_datagram_dropped(datagram: bytes) -> None:
    assert agents.parse(datagram, "tok", 1) == []


def test_agent_datagram_where_the_kernel_tells_ticks_alone() -> None:
    rows = agents.parse(b"tok pg1 agent_ticks=50", "tok", 11)
    assert [(row["metric"], row["value"]) for row in rows] == [("collector_cpu_seconds", 0.5)]


def agent_says(cgroup: str = "/sys/fs/cgroup") -> dict[str, float]:
    """Metric → value of an agent's first datagram; it has sent a second one, and ended by itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        port = str(sock.getsockname()[1])
        words = ["bash", str(AGENT), "127.0.0.1", port, "n1", "tok", "1", "0.2"]
        agent = subprocess.Popen(words, env=os.environ | {"LAB_CGROUP": cgroup})
        rows = agents.parse(sock.recv(2048), "tok", 1)
        sock.recv(2048)
        assert agent.wait(15) == 0
    return {row["metric"]: row["value"] for row in rows}


needs_bash = pytest.mark.skipif(
    shutil.which("bash") is None or not Path("/proc/self/stat").exists(), reason="needs bash on Linux"
)


@needs_bash
def test_agent_reports_and_ends_itself() -> None:
    found = agent_says()
    assert found["collector_cpu_seconds"] < 5
    assert found.get("cpu_seconds", 1) > 0


@needs_bash
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("counted", [True, False])
def test_agent_reads_block_devices_where_the_kernel_counts_them(
    version: int, counted: bool, tmp_path: Path
) -> None:
    if version == 2:
        (tmp_path / "cgroup.controllers").write_text("cpu io memory\n")
        (tmp_path / "io.stat").write_text(
            "8:0 rbytes=5 wbytes=7 rios=1\n8:16 rbytes=10 wbytes=20\n" * counted
        )
        (tmp_path / "memory.current").write_text("99\n")
    else:
        (tmp_path / "blkio").mkdir()
        lines = "8:0 Read 5\n8:0 Write 7\n8:16 Read 10\n8:16 Write 20\n8:0 Total 12\n" * counted
        (tmp_path / "blkio" / "blkio.throttle.io_service_bytes").write_text(f"{lines}Total 42\n")
        (tmp_path / "memory").mkdir()
        (tmp_path / "memory" / "memory.usage_in_bytes").write_text("99\n")
    found = agent_says(str(tmp_path))
    assert found["memory_bytes"] == 99
    bytes_ = (found.get("io_read_bytes"), found.get("io_write_bytes"))
    assert bytes_ == ((15, 27) if counted else (None, None))


def test_agent_without_arguments_says_how() -> None:
    done = subprocess.run(["bash", str(AGENT)], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "usage" in done.stderr


# --- figures


def test_pgbouncer_by_column_name() -> None:
    row = {"database": "risk", "total_xact_count": "10", "total_wait_time": "2500000", "avg_wait": "9"}
    old = figures.pgbouncer_stats([row, {"database": "pgbouncer", "total_xact_count": "1"}])
    assert old == [("pgb_xact", "risk", 10.0), ("pgb_wait_time", "risk", 2.5)]
    new = figures.pgbouncer_stats([row | {"total_server_assignment_count": "4"}])
    assert ("pgb_assignment", "risk", 4.0) in new


def test_pgbouncer_pools() -> None:
    row = {
        "database": "risk",
        "user": "app",
        "cl_active": "3",
        "cl_waiting": "1",
        "cl_cancel_req": "0",
        "sv_active": "2",
        "sv_idle": "5",
        "sv_used": "1",
        "sv_tested": "0",
        "sv_login": "1",
        "sv_active_cancel": "1",
        "maxwait": "2",
        "maxwait_us": "500000",
    }
    found = {metric: value for metric, label, value in figures.pgbouncer_pools([row]) if label == "risk/app"}
    assert found["pgb_sv_total"] == 10
    assert found["pgb_maxwait"] == 2.5
    assert found["pgb_cl_waiting"] == 1


def test_haproxy() -> None:
    text = (
        "# pxname,svname,scur,status,type\n"
        "write,FRONTEND,9,OPEN,0\n"
        "write,pg1,4,UP,2\n"
        "write,pg2,0,DOWN,2\n"
        "write,pg3,0,UP 1/2,2\n"
        "write,pg4,0,MAINT,2\n"
        "write,BACKEND,9,UP,1\n"
    )
    up = {label: value for metric, label, value in figures.haproxy_stats(text) if metric == "haproxy_up"}
    assert up == {"write/pg1": 1, "write/pg2": 0, "write/pg3": 1, "write/pg4": 0}


def test_redis() -> None:
    info = {"total_commands_processed": 5, "keyspace_hits": 2, "role": "slave"}
    assert figures.redis_info(info) == [
        ("redis_ops", None, 5.0),
        ("redis_hits", None, 2.0),
        ("redis_is_primary", None, 0.0),
    ]


def test_fsync_quantile() -> None:
    text = "\n".join(
        f'etcd_disk_wal_fsync_duration_seconds_bucket{{le="{bound}"}} {count}'
        for bound, count in (("0.001", 50), ("0.002", 90), ("0.004", 100), ("+Inf", 100))
    )
    now = figures.fsync_buckets(text)
    assert figures.quantile(now, {}, 0.5) == pytest.approx(0.001)
    assert figures.quantile(now, {}, 0.95) == pytest.approx(0.003)
    before = {0.001: 50.0, 0.002: 50.0, 0.004: 50.0, float("inf"): 50.0}
    assert figures.quantile(now, before, 0.4) == pytest.approx(0.0015)
    assert figures.quantile(now, now, 0.99) is None
    assert figures.quantile({0.001: 1.0, float("inf"): 1.0}, now, 0.99) is None


def test_quantile_beyond_the_last_bound() -> None:
    assert figures.quantile({0.001: 1.0, float("inf"): 10.0}, {}, 0.99) == 0.001


def test_postgres_leaves_unknowns_out() -> None:
    rows = [("pg_sessions", None, "5"), ("pg_replication_lag_bytes", "pg2", None)]
    assert figures.postgres(rows) == [("pg_sessions", None, 5.0)]


def test_machine_cpu_counts_all_but_idle_and_waiting() -> None:
    text = "cpu  100 10 50 1000 40 1 2 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nintr 5\n"
    assert figures.machine_cpu(text, 100) == [
        ("machine_cpu_seconds", None, pytest.approx(1.70)),
        ("machine_cores", None, 2.0),
    ]
    assert figures.machine_cpu("", 100) == []


# --- the leader key


def sync(leader: str, standby: str | None) -> str:
    return json.dumps({"leader": leader, "sync_standby": standby})


def test_story_of_a_failover() -> None:
    story = Story("/service/risk")
    leader, other = "/service/risk/leader", "/service/risk/sync"
    assert story.change(leader, "pg1", 10) == []
    assert story.change(other, sync("pg1", "pg2"), 11) == []
    assert story.change(leader, None, 20) == [("leader-expired", "pg1", {"leader": "pg1"})]
    assert story.change(leader, None, 20) == []  # another member tells the same
    assert story.change(leader, "pg2", 22)[0][:2] == ("leader-elected", "pg2")
    assert story.change(other, sync("pg2", None), 23) == []
    assert story.change(other, sync("pg2", "pg1"), 30)[0][:2] == ("synchronous", "pg1")
    assert story.change(leader, None, 20) == []  # a member that comes late


def test_story_ignores_other_keys_and_rewrites() -> None:
    story = Story("/service/risk")
    assert story.change("/service/risk/leader", "pg1", 1) == []
    assert story.change("/service/risk/leader", "pg1", 5) == []
    assert story.change("/service/risk/status", "x", 6) == []
    assert story.change("/service/risk/sync", "not JSON", 7) == []
    assert story.change("/service/risk/sync", "[]", 8) == []


def test_story_that_begins_without_a_leader() -> None:
    story = Story("/s/r")
    assert story.change("/s/r/leader", None, 3) == []
    assert story.change("/s/r/leader", None, 4) == []
    assert story.change("/s/r/leader", "pg1", 5)[0][0] == "leader-elected"


# --- rows


def test_rows_are_complete_lines(tmp_path: Path) -> None:
    rows = Rows(tmp_path, "writes", "lasting")
    rows.write({"k": "i", "n": 1})
    rows.write_all([{"n": 2}, {"n": 3}])
    rows.write_all([])
    rows.close()
    lines = (tmp_path / "writes.lasting.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 2, 3]


def test_event_detail_is_text() -> None:
    row = event(5, "leader-expired", 1, source="etcd", uncertainty=3, node="pg1", leader="pg1")
    assert json.loads(row["detail"]) == {"leader": "pg1"}


def test_nothing_configured_starts_the_collectors_alone() -> None:
    from lab.observe.__main__ import processes

    config = Config(run="r", out="o", deadline_s=1, token="t")
    assert list(processes(config)) == ["collectors"]
