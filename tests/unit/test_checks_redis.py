"""Redis under Sentinel: histories with a known answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.record.reader import RecordReader
from lab.record.schema import NS, TABLES
from reports import overview
from reports.analysis.analyse import measure
from reports.analysis.model import Analysis
from reports.checks import checks, run_checks
from reports.findings import Finding
from tests.synthetic import make_record, stamp, truth

STEP = 20_000_000
MS = 1_000_000


class History:
    """Writes to Redis every 20 ms around the fault of a record of one trial, changed by the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        plan = truth(path)
        trial = plan.trials[0]
        self.effect, self.until, self.end = trial.effect, trial.window_end, plan.end
        first, count = plan.start + NS, (trial.end - plan.start - NS) // STEP
        self.rows: list[dict[str, Any]] = [
            {
                "n": k + 1, "trial": 1 if first + k * STEP >= trial.start else 0, "endpoint": "sentinel",
                "session": 1 + k % 5, "session_opened": plan.start, "fresh": False,
                "intended": first + k * STEP, "sent": first + k * STEP + MS,
                "done": first + k * STEP + 2 * MS,
                "outcome": "acknowledged", "sqlstate": None, "message": None, "server": "redis1",
            }
            for k in range(count)
        ]  # fmt: skip
        self.gone: set[int] = set()
        self.events: list[tuple[int, str, str | None, dict[str, Any]]] = []
        self.caught_up = True

    def after(self, begin_s: float, end_s: float) -> list[dict[str, Any]]:
        """Writes intended in [begin, end) after the effect."""
        low, high = self.effect + int(begin_s * NS), self.effect + int(end_s * NS)
        return [row for row in self.rows if low <= row["intended"] < high]

    def fail(self, begin_s: float, end_s: float) -> None:
        for row in self.after(begin_s, end_s):
            row |= {"outcome": "failed", "server": None, "message": "not sent: connect: timed out"}
            self.gone.add(row["n"])

    def switch(self, at_s: float) -> None:
        """Sentinel names redis2, which takes the writes that are intended from then on."""
        at = self.effect + int(at_s * NS)
        self.events.append((at, "redis-primary", "redis2", {"was": "redis1", "sessions": "fresh"}))
        for row in self.after(at_s, 1e6):
            row["server"] = "redis2"

    def write(self) -> Analysis:
        schema = TABLES["redis_writes"]
        plain = [
            pa.array(
                [r[f.name] for r in self.rows],
                f.type.value_type if pa.types.is_dictionary(f.type) else f.type,
            )
            for f in schema
        ]
        pq.write_table(pa.table(plain, names=schema.names), self.path / "redis_writes.parquet")
        found = np.array([r["n"] for r in self.rows if r["n"] not in self.gone], dtype=np.int64)
        folder = self.path / "audit" / "redis"
        folder.mkdir()
        table = pa.table({"n": found, "copies": np.ones(len(found), dtype=np.int32)})
        for node in ("redis1", "redis2"):
            pq.write_table(table, folder / f"{node}.parquet")
        told = {
            node: {"role": "x", "caught_up": self.caught_up, "rows": len(found), "primary": node == "redis2"}
            for node in ("redis1", "redis2")
        }
        self.events.append((self.end - NS // 2, "redis-audit", None, told))
        events = pq.read_table(self.path / "events.parquet").to_pylist()
        for t, kind, node, detail in self.events:
            row = {"t": t, "kind": kind, "trial": 1, "node": node, "source": "observer", "uncertainty": 0}
            events.append(row | {"detail": json.dumps(detail)})
        pq.write_table(pa.Table.from_pylist(events), self.path / "events.parquet")
        return measure(RecordReader(self.path))


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A kill of redis1; the database does not notice."""
    path = make_record(tmp_path / "run", trials=1, outage_s=(None,), window_s=30, seconds=5, requests=100)
    events = pq.read_table(path / "events.parquet").to_pylist()
    for event in events:
        if event["kind"].startswith("fault-"):
            event["node"] = "redis1"
    pq.write_table(pa.Table.from_pylist(events), path / "events.parquet")
    with (path / "topology.yaml").open("a") as file:
        file.write("cache: {nodes: [{name: redis1}, {name: redis2}], sentinels: [{name: sentinel2}]}\n")
    return History(path)


def judged(history: History, metric: str) -> Finding:
    analysis = history.write()
    return next(f for f in run_checks(analysis, RecordReader(history.path)) if f.metric == metric)


def test_the_last_recovery_counts(history: History) -> None:
    history.fail(0, 7)
    history.fail(11, 12)
    history.switch(6.5)
    (history.path / "logs" / "sentinel2.log").write_text(
        f"{stamp(history.effect + 6 * NS)} 1:X +sdown master cache 10.0.0.1 6379\n"
        f"{stamp(history.effect - 9 * NS)} 1:X +switch-master before\n"
        f"{stamp(history.effect + 6 * NS)} 1:X something else\n"
        f"{stamp(history.effect + 7 * NS)} 1:X +switch-master cache 10.0.0.1 6379 10.0.0.2 6379\n"
    )
    found = judged(history, "redis.rto")
    assert found.value == pytest.approx(12.002, abs=0.03)
    assert found.detail["announced_s"] == [pytest.approx(6.5)]
    assert found.detail["failovers"] == ["redis1 → redis2"]
    assert [line.partition(": ")[0] for line in found.detail["sentinel"]] == [
        "logs/sentinel2.log:1",
        "logs/sentinel2.log:4",
    ]


def test_lost_are_acknowledged_writes_that_the_final_primary_lacks(history: History) -> None:
    history.switch(6)
    stale = history.after(0, 10)[::2]
    for row in stale:
        row["server"] = "redis1"
    history.gone = {row["n"] for row in stale}
    found = judged(history, "redis.lost_writes")
    assert found.value == len(stale) == 250
    exposed = [row for row in stale if row["sent"] > history.effect + 6 * NS]
    assert found.detail["exposed"] == len(exposed) == 100
    analysis = measure(RecordReader(history.path))
    assert analysis.redis is not None
    assert sum(analysis.redis.lost_by_second.values()) == 250
    assert analysis.redis.trials[0].write.seconds == pytest.approx(9.98 + 0.002, abs=0.03)
    note = overview.notes([overview.line(history.path)[0]])[-1]
    assert note.startswith("kill-primary: Redis: written again after 9.9")
    assert note.endswith(" s, 250 acknowledged writes lost")


def test_no_loss_is_proven_only_where_writes_were_exposed(history: History) -> None:
    history.fail(0, 7)
    history.switch(6.5)
    found = judged(history, "redis.lost_writes")
    assert (found.value, found.status) == (0, "inconclusive")
    assert "nothing could be lost" in found.why


def test_exposed_and_all_there_is_proof(history: History) -> None:
    history.switch(6)
    for row in history.after(6.5, 7):
        row["server"] = "redis1"
    found = judged(history, "redis.lost_writes")
    assert (found.value, found.status, found.detail["trials"]) == (0, None, 1)


def test_an_audit_that_is_not_of_every_node_proves_nothing(history: History) -> None:
    history.gone = {row["n"] for row in history.after(0, 3)}
    history.caught_up = False
    found = judged(history, "redis.lost_writes")
    assert (found.value, found.status) == (None, "invalid")


def test_an_outage_that_does_not_end_is_a_lower_bound(history: History) -> None:
    history.fail(0, 1000)
    found = judged(history, "redis.rto")
    assert (found.value, found.status) == (None, "inconclusive")
    assert found.detail["at_least"] == pytest.approx(30, abs=0.1)


def test_a_fault_elsewhere_says_nothing_about_redis(tmp_path: Path) -> None:
    path = make_record(tmp_path / "run", trials=1, outage_s=(None,), window_s=10, seconds=5, requests=100)
    history = History(path)
    analysis = history.write()
    found = checks()["redis"].run(analysis, RecordReader(path))
    assert {f.status for f in found} == {"not run"}
    assert "no fault hit" in found[0].why


def test_a_loss_without_a_fault_of_redis_is_told(tmp_path: Path) -> None:
    path = make_record(tmp_path / "run", trials=1, outage_s=(None,), window_s=10, seconds=5, requests=100)
    history = History(path)
    history.gone = {row["n"] for row in history.after(0, 1)}
    found = judged(history, "redis.lost_writes")
    assert (found.value, found.status) == (50, None)
