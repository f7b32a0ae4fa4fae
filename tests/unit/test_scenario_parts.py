"""The runner's parts: clocks, the look at the cluster, live recovery, files brought in."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from lab.driver import Completed
from lab.errors import LabError
from lab.record.reader import RecordReader
from lab.record.schema import NS
from lab.record.writer import RecordWriter
from lab.scenario import clock
from lab.scenario.audit import parse_rows
from lab.scenario.cluster import Cluster, Member, Watch, parse, resolve
from lab.scenario.facts import first_version, scope_of
from lab.scenario.live import LiveWrites
from lab.scenario.remote import Follower, Program, fetch_rest, segment_of
from lab.scenario.trial import first_again
from lab.topology.loader import load_topology
from tests.fake_lab import FakeLab, FakeStream

# Clocks


def test_offset_is_within_half_the_round_trip() -> None:
    truth = 5_000_000_000_000

    def ask() -> tuple[int, int]:
        time.sleep(0.001)
        answer = time.monotonic_ns() + truth
        time.sleep(0.002)
        return answer, 77

    reading = clock.read(ask, 5)
    assert abs(reading.offset_ns - truth) <= reading.uncertainty_ns
    assert reading.uncertainty_ns < 20_000_000


def test_a_clock_that_is_busy_for_a_while_is_waited_for() -> None:
    asked = 0

    def busy() -> tuple[int, int]:
        nonlocal asked
        asked += 1
        if 5 < asked <= 5 + clock.PATIENCE - 1 or asked > 40:
            raise LabError("silent")
        return time.monotonic_ns() + 7_000, 1

    def slow() -> tuple[int, int]:
        return time.monotonic_ns() + 9_000, 2

    observer = clock.ObserverClock(busy, slow)
    # It had answered before: what it said counts, though the questions that followed were in vain.
    assert (asked, observer.reading.anchor.wall_ns) == (7, 1)
    assert observer.refresh().anchor.wall_ns == 1
    asked = 40
    assert observer.refresh().anchor.wall_ns == 2


def test_a_silent_clock_falls_back_and_wall_times_are_turned() -> None:
    def silent() -> tuple[int, int]:
        raise LabError("silent")

    def slow() -> tuple[int, int]:
        return time.monotonic_ns() + 1_000_000_000, 1_700_000_000_000_000_000

    with pytest.raises(LabError):
        clock.read(silent)
    observer = clock.ObserverClock(silent, slow)
    anchor = observer.reading.anchor
    assert observer.from_wall(1_700_000_002.5) == anchor.monotonic_ns + 2_500_000_000
    assert abs(observer.now() - time.monotonic_ns() - 1_000_000_000) < 50_000_000
    assert {(o.clock, o.when) for o in observer.offsets("end")} == {("runner", "end"), ("engine", "end")}
    assert clock.tell(("127.0.0.1", 1), "x", attempts=1) == ""


# The cluster


def look(
    t: int, leader: str | None, streaming: str = "pg2 pg3 pg4", sync: str = "pg2", **silent: None
) -> Cluster:
    members: dict[str, Member | None] = {}
    for name in ("pg1", "pg2", "pg3", "pg4"):
        if name == leader:
            feeds = tuple((n, "streaming", "sync" if n == sync else "async") for n in streaming.split())
            members[name] = Member("primary", "running", 2, feeds)
        else:
            members[name] = Member("replica", "streaming", 2)
    members.update(silent)
    return Cluster(t, 1, members, (sync,) if sync else ())


def test_whole_means_every_node_streams_on_one_timeline() -> None:
    assert look(1, "pg1").missing() == ""
    assert look(1, "pg1").synchronous == "pg2"
    assert "pg3 does not stream" in look(1, "pg1", "pg2 pg4").missing()
    assert "pg4 does not answer" in look(1, "pg1", pg4=None).missing()
    assert "no leader" in look(1, None).missing()
    assert look(1, "pg1", sync="").synchronous is None
    # PostgreSQL waits for it, but etcd does not know yet; and the other way round.
    assert Cluster(1, 1, look(1, "pg1").members, ()).synchronous is None
    assert Cluster(1, 1, look(1, "pg1", sync="").members, ("pg2",)).synchronous is None
    old = look(1, "pg1")
    behind = Cluster(1, 1, {**old.members, "pg3": Member("replica", "streaming", 1)})
    assert "pg3 is on another timeline" in behind.missing()
    two = Cluster(1, 1, {**old.members, "pg2": Member("primary", "running", 3)})
    assert two.leader is None


def test_roles_are_resolved_at_the_moment() -> None:
    topology = load_topology("risk-prod")
    assert resolve("primary", look(1, "pg1"), topology) == "pg1"
    assert resolve("standby", look(1, "pg1"), topology) == "pg2"
    # After a failover the old primary is the standby.
    swapped = look(1, "pg2", "pg1 pg3 pg4", "pg1")
    assert (resolve("primary", swapped, topology), resolve("standby", swapped, topology)) == ("pg2", "pg1")
    assert resolve("any-replica", swapped, topology) == "pg3"
    with pytest.raises(LabError, match="no leader"):
        resolve("primary", look(1, None), topology)


def test_watch_keeps_looks_and_changes_of_leader() -> None:
    def line(t: int, leader: str) -> bytes:
        members: dict[str, object] = {
            n: {"role": "primary" if n == leader else "replica", "state": "running", "timeline": 1,
                "replication": []} for n in ("pg1", "pg2")}  # fmt: skip
        return json.dumps({"t0": t - 1, "t1": t + 1, "members": members}).encode() + b"\n"

    data = line(10, "pg1") + b"nonsense\n" + line(20, "pg1") + line(30, "pg2")
    watch = Watch(FakeStream(iter([data[:40], data[40:170], data[170:]])))
    assert watch.latest(25).leader == "pg2"
    assert watch.changes == [(30, "pg1", "pg2")]
    assert [seen.t for seen in watch.history()] == [10, 20, 30]
    with pytest.raises(LabError, match="ended"):
        watch.latest(30, timeout_s=1)
    watch.close()
    with pytest.raises((ValueError, KeyError)):
        parse('{"t0": 1}')


def test_again_is_from_when_it_holds_for_good() -> None:
    looks = [
        look(t, "pg1", sync=s) for t, s in ((100, "pg2"), (200, ""), (300, "pg2"), (400, ""), (500, "pg2"))
    ]

    def holds(cluster: Cluster) -> bool:
        return cluster.synchronous is not None

    assert first_again(looks, holds) == (450, 51)
    assert first_again(looks[:4], holds) is None
    assert first_again([], holds) is None


# Live


def row(k: str, n: int, t_ms: int, outcome: str = "acknowledged") -> bytes:
    data = {"k": k, "n": n, "intended": t_ms * 1_000_000} if k == "i" else {
        "k": k, "n": n, "done": t_ms * 1_000_000, "outcome": outcome}  # fmt: skip
    return json.dumps(data).encode() + b"\n"


def test_live_recovery_is_the_last_one() -> None:
    live = LiveWrites(1.0)
    assert live.unhealthy(0) == "no write was acknowledged yet"
    live.feed("writes.a.jsonl", row("i", 1, 0) + row("o", 1, 10)[:12])
    live.feed("reads.a.jsonl", row("o", 9, 1))
    live.feed("writes.a.jsonl", row("o", 1, 10)[12:])
    assert live.unhealthy(20_000_000) == ""
    assert "for 9.0 s" in live.unhealthy(9 * NS + 10_000_000)
    live.fault(100_000_000)
    assert live.recovery().bad == 0
    live.feed(
        "writes.a.jsonl", row("i", 2, 110) + row("o", 2, 120, "failed") + row("i", 3, 130) + row("o", 3, 140)
    )
    assert live.recovery().first_good == 140_000_000
    # It was not the last outage: a slow write counts as bad.
    live.feed("writes.a.jsonl", row("i", 4, 200) + row("o", 4, 1300))
    assert live.recovery().first_good is None
    live.feed("writes.a.jsonl", row("i", 5, 1290) + row("o", 5, 1310) + b"garbage\n")
    assert (live.recovery().bad, live.recovery().first_good) == (2, 1_310_000_000)
    assert live.unhealthy(1_400_000_000) == "a write failed or was slow just now"


# Files


def test_names_of_segments() -> None:
    program = Program("client", "/o", "client")
    assert segment_of(program, "requests.0.bin") == "requests.client-0.bin"
    assert segment_of(program, "writes.fresh-writer.jsonl") == "writes.client-fresh-writer.jsonl"
    assert segment_of(program, "events.jsonl") == "events.client.jsonl"
    for other in (
        "pid",
        "done",
        "clock.json",
        "summary.0.json",
        "nonsense.jsonl",
        "log.txt",
        "writes.jsonl.part",
    ):
        assert segment_of(program, other) is None


def test_follow_then_fetch_gives_every_byte_once(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    node = lab.nodes["observer"]
    record = RecordWriter.create(tmp_path / "runs", "s", topology="t", lab="l", seed=1, trials_asked=1)
    program = Program("observer", "/run/lab/r/observe", "observer")
    lines = [b'{"t":%d,"node":"n","metric":"m","label":null,"value":1}\n' % t for t in range(50)]
    file = node.root / "run/lab/r/observe/metrics.collectors.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"".join(lines[:20]))
    seen: list[bytes] = []
    follower = Follower(lab, program, record, lambda _, data: seen.append(data))
    follower.look_for_files()
    follower.look_for_files()
    assert follower.following == 1
    with file.open("ab") as out:
        for line in lines[20:40]:
            out.write(line)
            out.flush()
    deadline = time.monotonic() + 5
    while b"".join(seen).count(b"\n") < 30 and time.monotonic() < deadline:
        time.sleep(0.01)
    follower.close()
    with file.open("ab") as out:
        out.write(b"".join(lines[40:]))
    fetch_rest(node, program, record)
    assert fetch_rest(node, program, record) == 0
    record.close()
    times = RecordReader(record.path).table("metrics").column("t").to_pylist()
    assert times == list(range(50))
    assert not [t for t in threading.enumerate() if t.name.startswith("metrics.")]


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab(tmp_path)
    file = lab.nodes["observer"].root / "o/events.x.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{}\n")
    record = RecordWriter.create(tmp_path / "runs", "s", topology="t", lab="l", seed=1, trials_asked=1)

    def full(*_: object) -> None:
        raise LabError("the disk is full")

    monkeypatch.setattr(record, "append", full)
    lab.nodes["observer"].answers["sh"] = lambda _: Completed(0, "3 events.x.jsonl\n", "")
    follower = Follower(lab, Program("observer", "/o", "observer"), record, lambda *_: None)
    follower.look_for_files()
    deadline = time.monotonic() + 5
    while follower.error is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "disk is full" in str(follower.error)
    follower.close()
    record.release()


def test_small_readers() -> None:
    assert parse_rows(b"").num_rows == 0
    assert parse_rows(b"1,5,1\n2,6,3\n").to_pylist()[1] == {"trial": 2, "n": 6, "copies": 3}
    with pytest.raises(LabError, match="audit"):
        parse_rows(b"1,x,1\n")
    assert first_version("PgBouncer 1.24.1\nlibevent 2.1.12") == "1.24.1"
    assert first_version("nothing") is None
    assert scope_of({"nodes/pg1/patroni.yml": "scope: a-b\nnamespace: /service/\n"}) == ("a-b", "/service")
    assert scope_of({"x": "scope: q"}) == ("", "/service")
