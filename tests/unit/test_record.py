"""The run record: what is written is read back, closed, running or killed."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import LabError, RecordError
from lab.record.reader import RecordReader, find_run
from lab.record.schema import TABLES
from lab.record.writer import RecordWriter, finish
from loadtests.format import ROW, block, json_block

OLD_ROW = struct.Struct("<qqqHHHH")
WRITERS: list[RecordWriter] = []


@pytest.fixture(autouse=True)
def _no_open_files() -> Iterator[None]:
    yield
    while WRITERS:
        for file in WRITERS.pop()._files.values():
            file.close()


def make(tmp_path: Path, **fields: Any) -> RecordWriter:
    writer = RecordWriter.create(
        tmp_path / "runs", "kill-primary", topology="t", lab="l", seed=7, trials_asked=3, **fields
    )
    WRITERS.append(writer)
    return writer


def intent(n: int, **more: Any) -> dict[str, Any]:
    return {"k": "i", "n": n, "trial": 1, "endpoint": "pool.writer", "session": 4, "session_opened": 1,
            "fresh": False, "intended": n * 10, "sent": n * 10 + 1, **more}  # fmt: skip


def outcome(n: int, what: str = "acknowledged", **more: Any) -> dict[str, Any]:
    return {"k": "o", "n": n, "done": n * 10 + 5, "outcome": what, "server": "pg1", **more}


def test_folder_latest_and_manifest(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    assert first.path != second.path
    assert first.path.name.endswith("Z-kill-primary")
    assert (tmp_path / "runs" / "latest").resolve() == second.path.resolve()
    first.update(trials_done=2)
    first.note("a")
    first.note("a")
    manifest = RecordReader(first.path).manifest
    assert (manifest.state, manifest.trials_done, manifest.notes, manifest.seed) == ("running", 2, ["a"], 7)


@pytest.mark.parametrize("closed", [False, True])
def test_ledger_has_one_row_a_number(tmp_path: Path, closed: bool) -> None:
    writer = make(tmp_path)
    lines = [intent(1), intent(2), outcome(1), intent(3), outcome(3, "failed", sqlstate="25006"), intent(4)]
    writer.rows("writes", lines)
    writer.append("writes.jsonl", b'{"k":"o","n":4,"outco')  # the writer was killed here
    if closed:
        writer.close()
    reader = RecordReader(writer.path)
    rows = {row["n"]: row for row in reader.table("writes").to_pylist()}
    assert {n: row["outcome"] for n, row in rows.items()} == {
        1: "acknowledged", 2: "unknown", 3: "failed", 4: "unknown"}  # fmt: skip
    assert rows[1]["sent"] == 11
    assert rows[1]["done"] == 15
    assert rows[2]["done"] is None
    assert rows[3]["sqlstate"] == "25006"
    assert (writer.path / "writes.parquet").exists() is closed
    assert (writer.path / "writes.jsonl").exists() is not closed
    assert reader.table("writes").schema == TABLES["writes"]


def test_damaged_lines_are_left_out_and_said(tmp_path: Path) -> None:
    writer = make(tmp_path)
    good = {"t": 1, "node": "pg1", "metric": "cpu_seconds", "label": None, "value": 1.5}
    writer.rows("metrics", [good])
    writer.append("metrics.jsonl", b'\x00\x00garbage\n{"t":"noon","value":2}\n')
    writer.rows("metrics", [{**good, "t": 2, "value": 3}])
    writer.close()
    reader = RecordReader(writer.path)
    assert reader.table("metrics", ["t", "value"]).to_pylist() == [
        {"t": 1, "value": 1.5},
        {"t": 2, "value": 3.0},
    ]
    assert reader.manifest.notes == ["damaged lines were left out of the record: 2 of metrics"]


@pytest.mark.parametrize("closed", [False, True])
def test_parts_columns_filters_and_frame(tmp_path: Path, closed: bool) -> None:
    writer = make(tmp_path)
    for node in ("pg1", "pg2"):
        row = {"node": node, "metric": "cpu_seconds", "label": None}
        data = "".join(json.dumps({**row, "t": t, "value": t / 2}) + "\n" for t in range(5))
        writer.append(f"metrics.{node}.jsonl", data.encode())
    if closed:
        writer.close()
    reader = RecordReader(writer.path)
    assert reader.table("metrics").num_rows == 10
    chosen = reader.table("metrics", ["value"], pc.field("node") == "pg2")
    assert chosen.column("value").to_pylist() == [0, 0.5, 1, 1.5, 2]
    assert reader.table("metrics", ["t"], [("t", ">=", 3)]).num_rows == 4
    frame = reader.frame("metrics")
    assert frame["node"].value_counts().to_dict() == {"pg1": 5, "pg2": 5}
    assert reader.table("routes").num_rows == 0


def test_events_come_in_order_with_their_detail(tmp_path: Path) -> None:
    writer = make(tmp_path)
    writer.event("trial-end", 5, trial=1)
    writer.event("trial-start", 3, trial=1, detail={"phase_ms": 12})
    writer.append("events.observer.jsonl", b'{"t":4,"kind":"promoted","node":"pg2","detail":{"lsn":9}}\n')
    events = RecordReader(writer.path).events()
    assert [event["kind"] for event in events] == ["trial-start", "promoted", "trial-end"]
    assert events[0]["detail"] == {"phase_ms": 12}
    assert events[1]["detail"] == {"lsn": 9}
    assert [e["t"] for e in RecordReader(writer.path).events("trial-end")] == [5]
    with pytest.raises(ValueError, match="unknown kind"):
        writer.event("nonsense", 1)


def test_audit_logs_and_files(tmp_path: Path) -> None:
    writer = make(tmp_path)
    writer.audit(1, "pg-a-1", pa.table({"n": [1, 2], "copies": [1, 2]}))
    writer.put("logs/pg1.log", "2026-01-01T00:00:00Z hello\n")
    writer.put("statements.json", json.dumps({"pg1": []}))
    reader = RecordReader(writer.path)
    assert reader.audits() == [(1, "pg-a-1")]
    assert reader.audit(1, "pg-a-1").to_pylist()[1] == {"n": 2, "copies": 2}
    assert reader.logs == {"pg1": "2026-01-01T00:00:00Z hello\n"}
    assert reader.json("statements.json") == {"pg1": []}
    assert reader.json("nothing.json") is None
    with pytest.raises(RecordError, match="not audited"):
        reader.audit(2, "pg1")
    with pytest.raises(ValueError, match="outside"):
        writer.put("../x", "")


def test_killed_record_is_finished_later(tmp_path: Path) -> None:
    writer = make(tmp_path)
    writer.rows("writes", [intent(1)])
    # No close: the process is gone.
    finish(writer.path, "interrupted", "the runner was killed")
    reader = RecordReader(writer.path)
    assert reader.manifest.state == "interrupted"
    assert reader.manifest.notes == ["the runner was killed"]
    assert reader.table("writes").num_rows == 1
    finish(writer.path, "interrupted", "the runner was killed")
    assert RecordReader(writer.path).table("writes").num_rows == 1


def test_a_crash_within_compaction_loses_nothing(tmp_path: Path) -> None:
    writer = make(tmp_path)
    writer.event("run-start", 1)
    (writer.path / "events.parquet.part").write_bytes(b"half a file")
    writer.close()
    assert RecordReader(writer.path).table("events").num_rows == 1
    assert not list(writer.path.glob("*.part"))


def test_disk_full_is_said_and_the_rest_stays_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make(tmp_path)
    writer.event("run-start", 1)

    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None: ...

    writer._files["events.jsonl"].close()
    writer._files["events.jsonl"] = Full()  # type: ignore[assignment]
    with pytest.raises(LabError, match="disk is full"):
        writer.event("run-end", 2)
    assert RecordReader(writer.path).table("events").num_rows == 1

    def no_space(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(LabError, match="disk is full"):
        writer.update(trials_done=1)
    assert RecordReader(writer.path).manifest.trials_done == 0


def test_find_run(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(RecordError, match="no run record 'latest'"):
        find_run("latest", runs)
    path = make(tmp_path).path.resolve()
    assert find_run("latest", runs) == path
    assert find_run(path, runs) == path
    assert find_run(path.name, runs) == path
    assert find_run(path.name[:12], runs) == path
    with pytest.raises(RecordError, match="nope"):
        find_run("nope", runs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no manifest.json"),
        ("{", "cannot be read"),
        ("[]", "schema_version"),
        ('{"schema_version": 99}', "reads up to"),
        ('{"schema_version": 1, "run": 3}', "run"),
    ],
)
def test_damaged_manifests(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RecordError, match=message):
        RecordReader(tmp_path)


def test_damaged_parquet_and_unknown_names(tmp_path: Path) -> None:
    path = make(tmp_path).path
    (path / "routes.parquet").write_bytes(b"PAR1 not really")
    reader = RecordReader(path)
    with pytest.raises(RecordError, match="routes of"):
        reader.table("routes")
    with pytest.raises(RecordError, match="no table"):
        reader.table("nonsense")
    with pytest.raises(RecordError, match="no column"):
        reader.table("events", ["x"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                lambda inner: st.dictionaries(
                    st.sampled_from(["k", "n", "t", "outcome", "detail", "value"]), inner, max_size=4
                ),
                max_leaves=6,
            ).map(lambda value: json.dumps(value).encode()),
        ),
        max_size=12,
    ),
    st.sampled_from(["writes", "events", "metrics"]),
)
def test_any_bytes_are_read_without_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], table: str
) -> None:
    writer = make(tmp_path_factory.mktemp("fuzz"))
    writer.append(f"{table}.jsonl", b"\n".join(lines))
    running = RecordReader(writer.path).table(table)
    writer.close()
    closed = RecordReader(writer.path).table(table)
    assert closed.schema == TABLES[table]
    assert str(closed.to_pylist()) == str(running.to_pylist())


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    ("tag", "row", "user"), [(b"ROWU", ROW, 7), (b"ROWS", struct.Struct("<qqqHHHH"), None)]
)
def test_the_loads_binary_requests_come_on_the_observers_clock(
    tmp_path: Path, closed: bool, tag: bytes, row: struct.Struct, user: int | None
) -> None:
    """Those of now, and those of a version that did not tell users apart."""

    data = json_block(b"LDR1", {"run": "r", "worker": 0})
    data += json_block(b"CLCK", {"offset_ns": 1000, "uncertainty_ns": 5, "at_ns": 1})
    for number, kind in enumerate(("name", "endpoint", "outcome")):
        data += json_block(b"NAME", [kind, 0, ("read", "pool.writer", "ok")[number]])
    last = (3,) if user is None else (3, user)
    rows = b"".join(row.pack(t, t + 1, t + 2, 0, 0, 0, *last) for t in (10, 20, 30))
    data += block(tag, rows) + block(tag, rows)[:-40]  # cut short within the second of its rows
    writer = make(tmp_path)
    writer.append("requests.client-0.bin", data)
    if closed:
        writer.close()
    table = RecordReader(writer.path).table("requests")
    assert table.column("intended").to_pylist() == [1010, 1020, 1030, 1010]
    assert table.to_pylist()[0] == {
        "intended": 1010, "started": 1011, "done": 1012, "name": "read", "endpoint": "pool.writer",
        "outcome": "ok", "worker": 3, "user": user}  # fmt: skip
    assert (writer.path / "requests.client-0.bin").exists() is not closed


def test_a_record_from_before_a_column_was_kept_has_nulls_there(tmp_path: Path) -> None:
    writer = make(tmp_path)
    writer.close()
    row = {"intended": 1, "started": 2, "done": 3, "name": "n", "endpoint": "e", "outcome": "ok", "worker": 0}
    pq.write_table(pa.Table.from_pylist([row]), writer.path / "requests.parquet")
    reader = RecordReader(writer.path)
    for wanted in (None, ("user", "intended")):
        table = reader.table("requests", wanted)
        assert table["user"].to_pylist() == [None]
        assert table["intended"].to_pylist() == [1]
    assert reader.table("requests").schema == TABLES["requests"]
