"""Checksums of tables: parsed as psql prints them, compared between nodes, never equal without data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.driver import Completed
from lab.scenario.last_look import checksums, keep_evidence, parse_checksums
from reports.analysis import analyse
from reports.findings import Finding
from tests.fake_lab import FakeLab
from tests.synthetic import PG, make_record

SAID = "\n".join(
    [
        "lsn,118213328,",
        "table,lab.ledger,12 -99",
        'table,"risk.""position""",3 7',
        "skipped,risk.big,",
        "bank,10,10000\n",
    ]
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_record(tmp_path_factory.mktemp("tables") / "run", trials=1, seconds=5)


def told() -> dict[str, Any]:
    return {
        node: {"lsn": 1, "tables": {"a": [3, "7"], "b": [0, "0"]}, "skipped": [], "why": ""} for node in PG
    }


def look(record: Path, what: Any) -> Finding:
    file = record / "audit" / "checksums.json"
    if what is None:
        file.unlink(missing_ok=True)
    else:
        file.write_text(json.dumps(what))
    finding = analyse(record).finding("tables.equal")
    assert finding is not None
    return finding


def test_what_psql_prints_is_understood() -> None:
    found = parse_checksums(SAID)
    assert found == {
        "lsn": 118213328,
        "tables": {"lab.ledger": [12, "-99"], 'risk."position"': [3, "7"]},
        "skipped": ["risk.big"],
        "bank": [10, "10000"],
    }
    for broken in ("", "table,a,1 2\n", "lsn,1,\nwhat,a,b\n", "lsn,1\n"):
        with pytest.raises(ValueError, match=r"unexpected|said nothing|unpack"):
            parse_checksums(broken)


def test_equal_tables(record: Path) -> None:
    found = look(record, told())
    assert (found.value, found.status) == (100, None)
    assert found.detail["tables"] == 2


def test_one_changed_row_on_one_node_is_seen(record: Path) -> None:
    changed = told()
    changed["pg3"]["tables"]["a"] = [3, "8"]
    found = look(record, changed)
    assert found.value == 50
    assert "a differs (pg1, pg2, pg4: 3 rows; pg3: 3 rows)" in found.why


def test_a_table_that_a_node_lacks_is_unequal(record: Path) -> None:
    changed = told()
    del changed["pg4"]["tables"]["b"]
    assert "pg4: absent" in look(record, changed).why


def test_without_the_checksums_of_every_node_there_is_no_result(record: Path) -> None:
    assert look(record, None).status == "not run"
    assert look(record, {}).status == "not run"
    some = told()
    del some["pg2"]
    assert look(record, some).status == "invalid"
    failed = told()
    failed["pg2"] = {"why": "canceling statement due to statement timeout"}
    assert look(record, failed).status == "invalid"
    empty = {node: {**one, "tables": {}} for node, one in told().items()}
    assert look(record, empty).status == "not run"
    large = told()
    large["pg1"]["skipped"] = ["risk.big"]
    assert look(record, large).status == "inconclusive"


def test_a_node_that_had_not_caught_up_is_not_compared(tmp_path: Path) -> None:
    record = make_record(tmp_path / "run", trials=1, seconds=5, caught_up=False)
    assert look(record, told()).status == "invalid"


def test_every_node_is_asked(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    lab.nodes["pg1"].answers["psql"] = lambda _: Completed(0, SAID, "")
    lab.nodes["pg2"].answers["psql"] = lambda _: Completed(3, "", "psql: error: no server\n")
    lab.nodes["pg3"].answers["psql"] = lambda _: Completed(0, "nonsense", "")
    lab.nodes["pg4"].broken = True
    found = checksums(lab)
    assert found["pg1"]["why"] == ""
    assert found["pg2"]["why"] == "psql: error: no server"
    assert found["pg3"]["why"]
    assert "not running" in found["pg4"]["why"]


def test_evidence_of_rewinds_is_kept_from_this_run_only(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path)
    said = (
        "# 20261121T035347.451Z/fork.txt\ntimeline=1\nfork_lsn=0/5000000\n"
        "# 20251121T000000.000Z/fork.txt\ntimeline=1\n"
    )
    for node in lab.nodes.values():
        node.answers["sh"] = lambda _: Completed(0, "", "")
    lab.nodes["pg2"].answers["sh"] = lambda _: Completed(0, said, "")
    kept: dict[str, Any] = {}

    class Record:
        def put(self, name: str, text: str) -> None:
            kept[name] = text

    names = keep_evidence(lab, Record(), 1_795_000_000.0)  # type: ignore[arg-type]
    assert names == ["evidence/pg2-20261121T035347.451Z.txt"]
    assert kept[names[0]].startswith("timeline=1\nfork_lsn=")
