"""The host's side of a load: its start, pools, durations, live figures and the summary."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lab.deploy.allocation import Endpoint
from lab.driver import Completed
from lab.durations import parse_duration
from lab.errors import LabError, UsageError
from lab.load import LoadHandle, resolve_pool
from lab.load_view import LiveView, percentile, summarise, summary_table
from lab.topology.loader import load_topology
from loadtests.format import read_requests
from loadtests.recorder import Recorder

MS = 1_000_000


def known() -> dict[str, Endpoint]:
    one = Endpoint(name="pg1.direct", node="pg1", host="pg1", address="10.0.0.1", port=5432, database="risk")
    clock = one.model_copy(update={"name": "observer.clock", "database": None})
    return {"pg1.direct": one, "observer.clock": clock}


class Here:
    """A node that is this machine."""

    name = "client"

    def run(self, words: list[str], *, check: bool = True) -> Completed:
        done = subprocess.run(words, capture_output=True, text=True, check=check)
        return Completed(done.returncode, done.stdout, done.stderr)

    def get(self, path: str) -> bytes:
        return Path(path).read_bytes()


def starting(out: Path, pid: str) -> LoadHandle:
    (out / "pid").write_text(pid)
    node: Any = Here()
    config: Any = SimpleNamespace(workers=1)
    return LoadHandle(node, str(out), config)


def nobody() -> str:
    """A pid that no process has."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    return f"{gone.pid}\n"


def test_a_load_whose_pid_is_just_being_written_is_waited_for(tmp_path: Path) -> None:
    handle = starting(tmp_path, "")
    begun = threading.Timer(0.5, (tmp_path / "started.0").touch)
    begun.start()
    handle.wait_started(10)
    begun.join()


def test_a_load_that_died_at_its_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    handle = starting(tmp_path, nobody())
    (tmp_path / "output.txt").write_text("ModuleNotFoundError\n")
    with pytest.raises(LabError, match="died at its start") as caught:
        handle.wait_started(10)
    assert "ModuleNotFoundError" in str(caught.value.hint)


def test_a_load_that_ended_while_it_was_looked_at_has_not_died(tmp_path: Path) -> None:
    handle = starting(tmp_path, nobody())
    done = {"failure": None, "requests": 3, "dropped": 0, "lag_ms": {"p99": 1.0}, "cpu_us_per_request": 1.0}
    (tmp_path / "done").write_text(json.dumps(done))
    handle.wait_started(10)
    (tmp_path / "done").write_text(json.dumps(done | {"failure": "no connection"}))
    with pytest.raises(LabError, match="could not run: no connection"):
        handle.wait_started(10)


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (None, ("pool-transaction.writer", "pool-transaction.reader")),
        ("session", ("pool-session.writer", "pool-session.reader")),
        ("pool-statement", ("pool-statement.writer", "pool-statement.reader")),
        ("router", ("router.write", "router.read")),
        ("pg1.direct", ("pg1.direct", None)),
    ],
)
def test_pools_are_found_by_name_mode_router_and_endpoint(
    pool: str | None, expected: tuple[str, str | None]
) -> None:
    assert resolve_pool(load_topology("risk-prod"), known(), pool) == expected


@pytest.mark.parametrize("pool", ["nope", "observer.clock", "pg9.direct"])
def test_an_unknown_pool_is_a_usage_error_that_lists_what_there_is(pool: str) -> None:
    with pytest.raises(UsageError, match=pool) as caught:
        resolve_pool(load_topology("risk-prod"), known(), pool)
    assert "pool-transaction" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1.5h", 5400), ("200ms", 0.2), ("7", 7)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "-3s", "3 days", "30h", "s", "1e3"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError, match="duration"):
        parse_duration(text)


def record(path: Path, count: int = 2000) -> None:
    """Response 1 … count · 10 µs, service half of it; the last 20 dropped, one in 100 refused."""
    recorder = Recorder(str(path), "r", 0)
    ids = recorder.id("name", "GET /x"), recorder.id("endpoint", "pool.writer")
    ok, dropped, refused = (recorder.id("outcome", text) for text in ("ok", "dropped", "client:refused"))
    for number in range(count):
        intended, response = number * MS, (number + 1) * 10_000
        if number >= count - 20:
            recorder.dropped(intended, intended + 5000 * MS, *ids, dropped)
        else:
            outcome = refused if number % 100 == 50 else ok
            recorder.add(intended, intended + response // 2, intended + response, *ids, outcome)
    recorder.close()


def test_the_summary_counts_and_measures_what_is_in_the_record(tmp_path: Path) -> None:
    path = tmp_path / "requests.0.bin"
    record(path)
    found = summarise(read_requests(path))
    assert (found["requests"], found["ok"], found["dropped"]) == (2000, 1960, 20)
    assert found["outcomes"] == {"ok": 1960, "dropped": 20, "client:refused": 20}
    figures = found["by_name"]["GET /x"]
    # Of 1 … 1980 without every hundredth, times 10 µs.
    assert figures["response_ms"]["p50"] == pytest.approx(9.9, abs=0.02)
    assert figures["response_ms"]["p99"] == pytest.approx(19.6, abs=0.02)
    assert figures["response_max_ms"] == pytest.approx(19.8)
    assert figures["service_ms"]["p50"] == pytest.approx(4.95, abs=0.02)
    # From the first intended moment to the end of the last drop.
    assert found["seconds"] == pytest.approx(1.999 + 5, abs=0.001)
    assert summary_table(found).row_count == 1


def test_an_empty_record_has_a_summary() -> None:
    from lab.record.schema import TABLES

    found = summarise(TABLES["requests"].empty_table())
    assert (found["requests"], found["ok_per_s"], found["by_name"]) == (0, None, {})


def test_percentiles_need_ten_samples_beyond() -> None:
    values = np.arange(1.0, 1001.0)
    assert percentile(values, 99) == 990
    assert percentile(values[:-1], 99) is None
    assert percentile(values[:20], 50) == 10


def test_the_live_view_counts_every_row_once(tmp_path: Path) -> None:
    path = tmp_path / "requests.0.bin"
    record(path)
    view = LiveView()
    assert view.line() == "waiting for the first request"
    data = path.read_bytes()
    for at in range(0, len(data), 777):
        view.feed("requests.client-0.bin", data[at : at + 777])
        view.line()
    view.feed("events.jsonl", b"no such thing")
    assert view.requests == 2000
    assert view.outcomes["dropped"] == 20
    line = view.line()
    assert "errors 20" in line
    assert "dropped 20" in line
