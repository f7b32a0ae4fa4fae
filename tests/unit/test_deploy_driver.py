"""What of the Docker driver can be tested without an engine: frames, times, diagnosis, messages."""

from __future__ import annotations

import struct
import subprocess

import docker.errors
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from lab.deploy.allocate import sample_allocation
from lab.deploy.diagnose import likely_cause, telling_lines
from lab.deploy.docker_driver import parse_time
from lab.deploy.engine import engine_errors
from lab.deploy.exec_stream import Frames
from lab.deploy.readiness import lines_of
from lab.driver import NodeState
from lab.errors import EngineError, UsageError
from lab.topology.loader import load_topology

RUNNING = NodeState(True, False, None, False, 1.0, None)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=20),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_frames_survive_any_packet_borders(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    wire = b"".join(struct.pack(">BxxxL", kind, len(payload)) + payload for kind, payload in frames)
    splitter, found, at, turn = Frames(), [], 0, 0
    while at < len(wire):
        size = cuts[turn % len(cuts)]
        found += list(splitter.feed(wire[at : at + size]))
        at, turn = at + size, turn + 1
    assert found == frames
    assert splitter.rest == 0


def test_frames_keep_what_is_incomplete() -> None:
    splitter = Frames()
    assert list(splitter.feed(struct.pack(">BxxxL", 1, 5) + b"abc")) == []
    assert splitter.rest == 11


@given(st.text(alphabet="ab\n", max_size=50), st.integers(1, 7))
def test_lines_come_whole(text: str, size: int) -> None:
    data = text.encode()
    chunks = iter([data[i : i + size] for i in range(0, len(data), size)])
    assert list(lines_of(chunks)) == text.split("\n")[:-1]


def test_engine_times_keep_their_nanoseconds_and_zones() -> None:
    assert parse_time("2026-11-21T02:52:15.5Z") == pytest.approx(1795229535.5)
    assert parse_time("2026-11-21T03:52:15.5+01:00") == pytest.approx(1795229535.5)
    assert parse_time("2026-11-21T02:52:15Z") == 1795229535
    assert parse_time("0001-01-01T00:00:00Z") is None


@pytest.mark.parametrize(
    ("state", "log", "word"),
    [
        (NodeState(False, False, 137, True, 1.0, 2.0), "", "memory"),
        (NodeState(False, False, 137, False, 1.0, 2.0), "", "SIGKILL"),
        (NodeState(False, False, 127, False, 1.0, 2.0), "", "missing in the image"),
        (RUNNING, "FATAL:  could not write: No space left on device", "full"),
        (RUNNING, "bind: Address already in use", "taken"),
        (RUNNING, 'FATAL:  password authentication failed for user "x"', "refused"),
    ],
)
def test_likely_causes(state: NodeState, log: str, word: str) -> None:
    assert word in str(likely_cause(state, log))


def test_no_cause_is_invented() -> None:
    assert likely_cause(RUNNING, "LOG:  database system is ready to accept connections") is None


@pytest.mark.parametrize(
    "error",
    [
        docker.errors.DockerException(
            "Error while fetching server API version: FileNotFoundError(2, 'No such file')"
        ),
        requests.exceptions.ConnectionError("Connection refused"),
        requests.exceptions.ReadTimeout("timed out"),
        PermissionError(13, "Permission denied"),
    ],
)
def test_a_missing_or_dead_engine_is_one_message_with_a_hint(error: Exception) -> None:
    with pytest.raises(EngineError, match="could not do it") as caught, engine_errors("do it"):
        raise error
    assert caught.value.hint


def test_engine_errors_do_not_hide_our_own() -> None:
    with pytest.raises(UsageError), engine_errors("do it"):
        raise UsageError("wrong")


@pytest.mark.parametrize(
    ("stderr", "word"),
    [
        ("docker: 'compose' is not a docker command.", "Compose v2 is not installed"),
        (
            "Error response from daemon: Bind for 127.0.0.1:1 failed: port is already allocated",
            "port",
        ),
        ("Error response from daemon: write /x: no space left on device", "no space"),
    ],
)
def test_compose_failures_are_explained(stderr: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.deploy import up

    monkeypatch.setattr(up, "find_nodes", lambda _: {})
    allocation = sample_allocation("demo", load_topology("risk-prod"))
    failed = subprocess.CalledProcessError(1, ["docker"], b"", f" Container x  Creating\n{stderr}\n".encode())
    found = up.compose_error(failed, allocation)
    assert word in str(found)
    assert found.hint


def test_the_lines_that_tell_are_found_before_a_long_tail() -> None:
    stamp = "2026-11-21T03:22:03.187Z "
    log = [f'{stamp}FATAL:  could not access file "nope": No such file or directory'] * 2
    log += [f"{stamp}2026-11-21 03:22:{i:02} INFO: waiting" for i in range(30)]
    log += [f"{stamp}Traceback (most recent call last):", f'{stamp}  File "/opt/x.py", line 3, in run']
    lines = telling_lines("\n".join(log))
    assert lines[0] == 'FATAL:  could not access file "nope": No such file or directory'
    assert lines[1] == "…"
    assert lines[-1] == "2026-11-21 03:22:29 INFO: waiting"
    assert "not installed" in str(likely_cause(RUNNING, "\n".join(lines)))
