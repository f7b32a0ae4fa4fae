"""The journal: what was announced is healed by whoever comes next, once, and never by two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.record.reader import RecordReader
from lab.record.writer import RecordWriter
from lab.scenario.journal import Journal, heal_pending, hold
from tests.fake_lab import FakeLab


def test_pending_newest_first_and_done(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    one = journal.begin("run", record="r")
    two = journal.begin("heal", fault="none", instructions={})
    assert [entry.id for entry in journal.pending()] == [two, one]
    journal.done(two)
    # Another process reads the same.
    later = Journal(tmp_path)
    assert [entry.id for entry in later.pending()] == [one]
    assert later.begin("heal", fault="none", instructions={}) > two
    journal.clear()
    assert (tmp_path / "journal.jsonl").stat().st_size > 0
    for entry in later.pending():
        later.done(entry.id)
    later.clear()
    assert (tmp_path / "journal.jsonl").stat().st_size == 0
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_torn_line_swallows_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    one = journal.begin("heal", fault="kill-node", instructions={"node": "pg1"})
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'{"id": 2, "do": "hea')
    later = Journal(tmp_path)
    two = later.begin("heal", fault="none", instructions={})
    assert {entry.id for entry in Journal(tmp_path).pending()} == {one, two}
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'[]\n{"id": "x"}\nnull\n\xff\xfe\n')
    assert {entry.id for entry in Journal(tmp_path).pending()} == {one, two}


def test_heal_is_on_disk_before_the_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    Journal(tmp_path).begin("heal", fault="kill-node", instructions={"node": "pg1"})
    assert synced == [(tmp_path / "journal.jsonl").stat().st_size]


def test_a_killed_runner_is_healed_once(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    assert heal_pending(lab) == []
    record = RecordWriter.create(
        tmp_path / "runs", "kill-primary", topology="risk-prod", lab="fake", seed=1, trials_asked=3
    )
    out = f"/run/lab/{record.manifest.run}/observe"
    lab.nodes["observer"].put(f"{out}/writes.writer.jsonl", b'{"k":"i","n":1}\n{"k":"i","n":2}\n')
    record.append("writes.observer-writer.jsonl", b'{"k":"i","n":1}\n{"k":')
    record.release()
    journal = Journal(lab.state_dir)
    remote = [{"node": "observer", "out": out, "part": "observer"}]
    journal.begin("run", record=str(record.path), remote=remote)
    journal.begin("heal", fault="kill-node", instructions={"node": "pg1"}, trial=1)
    lab.nodes["pg1"].kill()

    told = heal_pending(lab)

    assert told[0] == "healed kill-node on pg1"
    assert "closed its record as interrupted" in told[1]
    assert lab.nodes["pg1"].running
    reader = RecordReader(record.path)
    assert reader.manifest.state == "interrupted"
    assert "killed" in reader.manifest.notes[0]
    assert sorted(reader.table("writes").column("n").to_pylist()) == [1, 2]
    assert [event["kind"] for event in reader.events()] == ["interrupted"]
    # Its passwords do not stay on the node.
    assert not (lab.nodes["observer"].root / out.lstrip("/")).parent.exists()
    assert heal_pending(lab) == []
    assert lab.nodes["pg1"].started == 1


def test_what_cannot_be_healed_stays_pending(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    Journal(lab.state_dir).begin("heal", fault="kill-node", instructions={"node": "pg1"})
    lab.nodes["pg1"].kill()
    lab.nodes["pg1"].broken = True
    with pytest.raises(LabError, match="not healed"):
        heal_pending(lab)
    lab.nodes["pg1"].broken = False
    assert heal_pending(lab) == ["healed kill-node on pg1"]


def test_several_faults_are_healed_newest_first_whatever_becomes_of_one(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    journal = Journal(lab.state_dir)
    for step, node in enumerate(("pg1", "pg2", "pg3"), 1):
        instructions = {"node": node, "deadline_s": 90.0}
        journal.begin("heal", fault="kill-node", instructions=instructions, trial=1, step=step)
        lab.nodes[node].kill()
    lab.nodes["pg2"].broken = True
    with pytest.raises(LabError, match="could not start pg2"):
        heal_pending(lab)
    assert [lab.nodes[node].running for node in ("pg1", "pg2", "pg3")] == [True, False, True]
    assert [entry.data["step"] for entry in Journal(lab.state_dir).pending()] == [2]
    lab.nodes["pg2"].broken = False
    assert heal_pending(lab) == ["healed kill-node on pg2"]


def test_a_record_that_is_gone_does_not_keep_the_rest(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    journal = Journal(lab.state_dir)
    journal.begin("run", record=str(tmp_path / "gone"), remote=[])
    journal.begin("heal", fault="kill-node", instructions={"node": "pg1"})
    lab.nodes["pg1"].kill()
    assert heal_pending(lab) == ["healed kill-node on pg1", "stopped probes and load"]


def test_a_second_runner_is_refused_and_a_living_one_is_left_alone(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    Journal(lab.state_dir).begin("heal", fault="kill-node", instructions={"node": "pg1"})
    lab.nodes["pg1"].kill()
    program = (
        "import sys,time,pathlib\n"
        "from lab.deploy.state import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1]), wait_s=0, busy='b'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    words = [sys.executable, "-c", program, str(lab.state_dir / "lock")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "held\n"
        assert heal_pending(lab) == []
        with pytest.raises(LabError, match="in use by another run"), hold(lab):
            pass
        runner.kill()  # as kill -9: the kernel lets go of the lock
        runner.wait()
    assert heal_pending(lab) == ["healed kill-node on pg1"]


def test_programs_are_stopped_by_their_own_pid_only(tmp_path: Path) -> None:
    from lab.scenario.remote import stop

    lab = FakeLab(tmp_path)
    node = lab.nodes["observer"]
    folder = node.root / "run/lab/r"
    (folder / "observe").mkdir(parents=True)
    mine = subprocess.Popen(["bash", "-c", f"exec -a {folder}/x sleep 60"])
    other = subprocess.Popen(["sleep", "60"])
    try:
        (folder / "observe/pid").write_text(f"{other.pid}\n")
        stop(node, "/run/lab/r/observe", wait_s=0.3)
        assert other.poll() is None
        (folder / "observe/pid").write_text(f"{mine.pid}\n")
        time.sleep(0.1)
        assert stop(node, "/run/lab/r/observe", wait_s=1) is False
        assert mine.wait(5) is not None
        (folder / "observe/done").write_text(json.dumps({}))
        assert stop(node, "/run/lab/r/observe", wait_s=1) is True
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()
