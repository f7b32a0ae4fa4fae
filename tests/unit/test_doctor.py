"""Doctor: each check has an input that passes and one that fails, and every failure has advice."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli import build
from lab.deploy import doctor
from lab.deploy.doctor import GIB, Finding
from lab.errors import EngineError


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        (doctor.judge_python((3, 11, 0)), "ok"),
        (doctor.judge_python((3, 10, 9)), "failure"),
        (doctor.judge_compose("2.26.1-4", "get it"), "ok"),
        (doctor.judge_compose("v2.23.1", "get it"), "ok"),
        (doctor.judge_compose("2.23.0", "get it"), "failure"),
        (doctor.judge_compose("1.29.2", "get it"), "failure"),
        (doctor.judge_compose("", "get it"), "failure"),
        (doctor.judge_memory(16 * GIB, 12 * GIB), "ok"),
        (doctor.judge_memory(16 * GIB, None), "ok"),
        (doctor.judge_memory(16 * GIB, 5 * GIB), "notice"),
        (doctor.judge_memory(16 * GIB, 2 * GIB), "failure"),
        (doctor.judge_memory(2 * GIB, None), "failure"),
        (doctor.judge_disk({"/a": 50 * GIB, "/b": 40 * GIB}), "ok"),
        (doctor.judge_disk({"/a": 50 * GIB, "/b": 7 * GIB}), "notice"),
        (doctor.judge_disk({"/a": 50 * GIB, "/b": 1 * GIB}), "failure"),
        (doctor.judge_clock(0.2, 0.01), "ok"),
        (doctor.judge_clock(-1.2, 0.01), "failure"),
        (doctor.judge_clock(1.2, 0.5), "ok"),  # not proved beyond the uncertainty
        (doctor.judge_ca("bundle", True, ""), "ok"),
        (doctor.judge_ca("bundle", False, "SSLError: CERTIFICATE_VERIFY_FAILED"), "failure"),
        (doctor.judge_ca("bundle", False, "Network is unreachable"), "notice"),
    ],
)
def test_judgement(finding: Finding, state: str) -> None:
    assert finding.state == state
    assert (finding.advice is None) == (state == "ok")


def test_network_faults_are_notices() -> None:
    assert [f.state for f in doctor.judge_network_faults({"filter", "netem"})] == ["ok", "ok"]
    assert [f.state for f in doctor.judge_network_faults({"filter"})] == ["ok", "notice"]
    assert [f.state for f in doctor.judge_network_faults(set())] == ["notice", "notice"]


def test_times_of_the_engine_have_nanoseconds() -> None:
    assert doctor.wall_seconds("1970-01-01T00:00:01.500000123Z") == 1.5
    assert doctor.wall_seconds("1970-01-01T01:00:00+01:00") == 0


def test_available_memory(tmp_path: Path) -> None:
    table = tmp_path / "meminfo"
    table.write_text("MemTotal: 9 kB\nMemAvailable:    2048 kB\n")
    assert doctor.available_memory(table) == 2 * 1024**2
    assert doctor.available_memory(tmp_path / "none") is None


def test_taken_ports_are_not_free() -> None:
    with socket.socket() as listener:
        first = doctor.free_ports(1, frozenset())[0]
        listener.bind(("127.0.0.1", first))
        listener.listen()
        assert first not in doctor.free_ports(3, frozenset())
    assert first not in doctor.free_ports(3, frozenset({first}))


def test_a_check_that_breaks_is_a_failure_and_the_rest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise EngineError("gone", hint="look")

    monkeypatch.setattr(doctor, "check_engine", lambda: Finding("engine", "failure", "none", "start it"))
    monkeypatch.setattr(doctor, "check_compose", broken)
    monkeypatch.setattr(doctor, "check_ca", lambda: Finding("CA", "ok", "fine"))
    found = {finding.detail: finding.state for finding in doctor.examine()}
    assert found["gone"] == "failure"
    assert found["fine"] == "ok"


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("notice", 0), ("failure", 4)])
def test_command(monkeypatch: pytest.MonkeyPatch, state: doctor.State, code: int) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("thing", state, "it is so", "mend it")])
    told = CliRunner().invoke(build(), ["doctor"])
    assert told.exit_code == code
    assert "mend it" in told.stdout
    document = CliRunner().invoke(build(), ["doctor", "--json"])
    assert document.exit_code == code
    assert json.loads(document.stdout)["ok"] is (code == 0)
