"""Tests that need Locust, whose import patches the process: run by test_load_record in one of their own."""

from gevent import monkey

monkey.patch_all()

from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402

from loadtests.format import NULL  # noqa: E402
from loadtests.recorder import Recorder  # noqa: E402
from loadtests.workloads import list_workloads  # noqa: E402

MS = 1_000_000


def test_the_mix_that_the_docstring_names_is_the_mix_that_runs() -> None:
    from loadtests.user import requests_of
    from loadtests.workloads import load_workload

    described = list_workloads()["risk-api"].description
    requests = requests_of(load_workload("risk-api"))
    assert sum(request.weight for request in requests) == 100
    for request in requests:
        line = next(line for line in described.splitlines() if request.name in line)
        assert line.strip().startswith(f"{request.weight} %")
        assert line.strip().endswith("reader" if request.reads else "writer")


def environment() -> Any:
    from locust.env import Environment

    made: Any = Environment()
    made.create_local_runner()
    return made


def test_locusts_statistics_equal_those_of_its_own_event(tmp_path: Path) -> None:
    from loadtests.statistics import LocustStatistics

    batched, plain = environment(), environment()
    path = tmp_path / "requests.0.bin"
    recorder = Recorder(str(path), "r", 0)
    recorder._on_rows = LocustStatistics(batched, recorder.texts).rows
    durations = [0.4, 1.5, 2.5, 12.25, 99.4, 104.6, 147.0, 999.9, 3432.0, 58760.0] * 7
    for number, ms in enumerate(durations):
        name = f"GET /{number % 2}"
        outcome = "40001" if number % 5 == 0 else "ok"
        ids = (
            recorder.id("name", name),
            recorder.id("endpoint", "pool.writer"),
            recorder.id("outcome", outcome),
        )
        recorder.add(0, 5, round(ms * MS), *ids)
        plain.events.request.fire(
            request_type="pool.writer", name=name, response_time=ms, response_length=0, context={},
            exception=None if outcome == "ok" else outcome,
        )  # fmt: skip
    recorder.close()
    for key in ("GET /0", "GET /1"):
        ours, theirs = (e.stats.get(key, "pool.writer") for e in (batched, plain))
        for field in (
            "num_requests",
            "num_failures",
            "response_times",
        ):
            assert getattr(ours, field) == getattr(theirs, field), field
        for field in ("min_response_time", "max_response_time", "total_response_time"):
            assert getattr(ours, field) == pytest.approx(getattr(theirs, field)), field
    assert batched.stats.total.num_requests == len(durations)
    assert {k: e.occurrences for k, e in batched.stats.errors.items()} == {
        k: e.occurrences for k, e in plain.stats.errors.items()
    }


def test_other_listeners_still_hear_of_each_request(tmp_path: Path) -> None:
    from loadtests.statistics import LocustStatistics

    made = environment()
    recorder = Recorder(str(tmp_path / "r.bin"), "r", 0)
    recorder._on_rows = LocustStatistics(made, recorder.texts).rows
    heard: list[tuple[str, float | None, bool]] = []
    made.events.request.add_listener(
        lambda name, response_time, exception, **_: heard.append((name, response_time, exception is None))
    )
    ids = recorder.id("name", "n"), recorder.id("endpoint", "e")
    recorder.add(0, 1, 1_234_567, *ids, recorder.id("outcome", "ok"))
    recorder.dropped(0, 9, *ids, recorder.id("outcome", "dropped"))
    recorder.close()
    assert heard == [("n", 1.234567, True), ("n", None, False)]
    assert (made.stats.total.num_requests, made.stats.total.num_none_requests) == (2, 1)
    assert NULL == -1


def test_psycopg_waits_through_gevent() -> None:
    """Plain psycopg too, in a patched process: what ``connect`` relies on."""
    import psycopg.waiting

    assert psycopg.waiting.wait is psycopg.waiting.wait_poll
