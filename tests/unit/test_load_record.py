"""The raw record, its configuration, outcomes, workloads and Locust's statistics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import RecordError
from lab.record.schema import TABLES
from loadtests import outcomes
from loadtests.config import LoadConfig, LoadTarget
from loadtests.format import ROW, BlockReader, Decoder, read_batches, read_requests
from loadtests.recorder import ROWS, Recorder
from loadtests.workloads import list_workloads
from tests.unit.test_load_schedule import config


def write(path: Path, count: int, *, clock: bool = True) -> None:
    recorder = Recorder(str(path), "run-1", 3)
    if clock:
        recorder.clock(1_000, 20, 5)
    for number in range(count):
        name = recorder.id("name", f"GET /{number % 3}")
        endpoint = recorder.id("endpoint", "pool.writer")
        if number % 10 == 9:
            recorder.dropped(number, number + 5, name, endpoint, recorder.id("outcome", "dropped"))
        else:
            recorder.add(
                number, number + 1, number + 5, name, endpoint, recorder.id("outcome", "ok"), number % 7 + 1
            )
    recorder.close()


@pytest.mark.parametrize("count", [0, 1, 10, ROWS, ROWS + 1, 3 * ROWS + 7])
def test_what_is_written_is_read_back(tmp_path: Path, count: int) -> None:
    path = tmp_path / "requests.3.bin"
    write(path, count)
    table = read_requests(path)
    assert table.schema == TABLES["requests"]
    rows = table.to_pylist()
    assert len(rows) == count
    for number, row in enumerate(rows):
        dropped = number % 10 == 9
        assert row == {
            "intended": number + 1_000,
            "started": None if dropped else number + 1 + 1_000,
            "done": number + 5 + 1_000,
            "name": f"GET /{number % 3}",
            "endpoint": "pool.writer",
            "outcome": "dropped" if dropped else "ok",
            "worker": 3,
            "user": None if dropped else number % 7 + 1,
        }


def test_without_a_clock_times_stay_the_clients(tmp_path: Path) -> None:
    path = tmp_path / "requests.3.bin"
    write(path, 2, clock=False)
    assert read_requests(path)["intended"].to_pylist() == [0, 1]


def test_a_later_offset_holds_from_there_on(tmp_path: Path) -> None:
    path = tmp_path / "requests.0.bin"
    recorder = Recorder(str(path), "r", 0)
    for offset in (100, -7):
        recorder.clock(offset, 1, 1)
        recorder.add(
            50, 51, 52, recorder.id("name", "n"), recorder.id("endpoint", "e"), recorder.id("outcome", "ok")
        )
    recorder.close()
    assert read_requests(path)["done"].to_pylist() == [152, 45]


def test_every_cut_leaves_a_readable_beginning(tmp_path: Path) -> None:
    path = tmp_path / "requests.3.bin"
    write(path, 40)
    whole = path.read_bytes()
    full = read_requests(path).to_pylist()
    seen = 0
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        rows = read_requests(path).to_pylist()
        assert rows == full[: len(rows)]
        assert len(rows) >= seen
        seen = len(rows)
    assert seen == 39


def test_damage_is_an_error_and_not_silence(tmp_path: Path) -> None:
    path = tmp_path / "requests.3.bin"
    write(path, 40)
    whole = bytearray(path.read_bytes())
    at = whole.index(b"ROWU")
    whole[at : at + 4] = b"RoWU"
    path.write_bytes(whole)
    with pytest.raises(RecordError, match=f"damaged at byte {at}"):
        read_requests(path)


@settings(deadline=None)
@given(st.lists(st.integers(1, 200), max_size=40))
def test_bytes_may_come_in_pieces_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    path = tmp_path_factory.mktemp("x") / "requests.3.bin"
    write(path, 30)
    data, rows = path.read_bytes(), 0
    blocks, decoder = BlockReader(), Decoder()
    for size in [*sizes, len(data)]:
        for tag, body in blocks.feed(data[:size]):
            batch = decoder.take(tag, body)
            rows += batch.num_rows if batch is not None else 0
        data = data[size:]
    assert rows == 30


def test_batches_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.format.BATCH_ROWS", 1000)
    path = tmp_path / "requests.3.bin"
    write(path, 5000)
    sizes = [batch.num_rows for batch in read_batches(path)]
    assert sum(sizes) == 5000
    assert max(sizes) < 1000 + ROWS


def test_flushed_rows_are_on_disk_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "requests.0.bin"
    told: list[int] = []
    recorder = Recorder(str(path), "r", 0, lambda rows: told.append(len(rows)))
    recorder.add(
        1, 2, 3, recorder.id("name", "n"), recorder.id("endpoint", "e"), recorder.id("outcome", "ok")
    )
    assert read_requests(path).num_rows == 0
    recorder.flush()
    assert read_requests(path).num_rows == 1
    assert told == [ROW.size]


# --- configuration


def test_configuration_survives_json() -> None:
    made = config(
        reader=LoadTarget("pool.reader", "pool", 6432, "risk_ro"), clock=("observer", 9999), duration_s=None
    )
    assert LoadConfig.from_json(made.to_json()) == made
    assert "password" not in json.loads(made.to_json()).keys() - {"password_file"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rate", 0),
        ("users", 0),
        ("workers", 0),
        ("users", 1_000_000),
        ("duration_s", 0),
        ("arrivals", "burst"),
        ("drop_after_s", 0),
        ("connect_timeout_s", 1),
        ("backoff_first_s", 9),
        ("prepare_threshold", -1),
        ("deadline_s", 0),
    ],
)
def test_bad_values_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"load: {field}: expected"):
        config(**{field: value})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"nonsense": 1}', '{"run": "r"}', '{"writer": {"x": 1}}'])
def test_bad_documents_are_value_errors(text: str) -> None:
    with pytest.raises(ValueError, match=r"^load: "):
        LoadConfig.from_json(text)


# --- outcomes


class Refused(Exception):
    sqlstate: str | None = None


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ('connection to server at "10.1.0.5", port 6432 failed: Connection refused', "client:refused"),
        ("connection timeout expired", "client:timeout"),
        ("consuming input failed: server closed the connection unexpectedly", "client:closed"),
        ("the connection is lost", "client:closed"),
        ("SSL error: certificate verify failed", "client:tls"),
        ("consuming input failed: SSL connection has been closed unexpectedly", "client:closed"),
        ('connection failed: FATAL:  password authentication failed for user "x"', "client:rejected"),
        ("No route to host", "client:unreachable"),
        ("something else", "client:Refused"),
    ],
)
def test_errors_without_sqlstate_are_classed_by_message(message: str, outcome: str) -> None:
    assert outcomes.classify(Refused(message)) == outcome


def test_sqlstate_comes_first_and_defects_are_named() -> None:
    error = Refused("server closed the connection")
    error.sqlstate = "57P01"
    assert outcomes.classify(error) == "57P01"
    assert outcomes.classify(KeyError("closed")) == "client:KeyError"


def test_which_outcomes_end_a_session() -> None:
    assert all(map(outcomes.ends_session, ("57P01", "57P03", "08006", "08P01", "25006")))
    assert not any(map(outcomes.ends_session, ("40001", "23505", "ok", "57014", "client:refused")))


# --- workloads


def test_workloads_are_found_by_their_files() -> None:
    found = list_workloads()
    assert set(found) >= {"risk-api", "point-select"}
    risk = found["risk-api"]
    assert (risk.class_name, risk.module, risk.transactions, risk.rate) == (
        "RiskApi",
        "loadtests.risk_api",
        True,
        200,
    )
    assert risk.title.startswith("Risk API")
    assert not found["point-select"].transactions


def test_a_new_file_is_a_new_workload(tmp_path: Path) -> None:
    (tmp_path / "my_shop.py").write_text('"""Shop."""\nclass Shop(PostgresUser):\n    rate = 7\n')
    (tmp_path / "helper.py").write_text("class Nothing: ...\n")
    assert list(list_workloads(tmp_path)) == ["my-shop"]
    assert list_workloads(tmp_path)["my-shop"].rate == 7


def test_with_locust() -> None:
    """Importing Locust patches the process for good: those tests have one of their own."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/load_patched.py"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout


# --- proof of concurrency


def test_sleepers_that_cooperate_are_proved() -> None:
    import gevent

    from loadtests.proof import prove_concurrency

    found = prove_concurrency([gevent.sleep] * 8)
    assert found["overlap"] == 8
    assert found["seconds"] < 0.8


def test_sleepers_that_block_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from gevent.monkey import get_original

    from loadtests import proof

    monkeypatch.setattr(proof, "SLEEP_S", 0.02)
    sleep = get_original("time", "sleep")
    with pytest.raises(proof.NotConcurrent, match="does not cooperate"):
        proof.prove_concurrency([lambda seconds: sleep(seconds)] * 5)


def test_an_error_of_a_sleeper_is_not_hidden() -> None:
    from loadtests.proof import prove_concurrency

    def fails(_: float) -> None:
        raise OSError("no server")

    with pytest.raises(OSError, match="no server"):
        prove_concurrency([fails])


def test_backoff_grows_to_its_limit_and_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    from loadtests.session import Session

    slept: list[float] = []
    monkeypatch.setattr("loadtests.session.gevent", SimpleNamespace(sleep=slept.append))
    settings = config(backoff_first_s=0.1, backoff_max_s=1.0)
    session = Session(settings, settings.writer, "x", random.Random(3))
    for _ in range(200):
        session.back_off()
    assert slept[0] <= 0.1
    assert slept[1] <= 0.2
    assert max(slept) <= 1.0
    assert max(slept) > 0.9
    assert min(slept[10:]) < 0.1
    assert session.failures == 200
