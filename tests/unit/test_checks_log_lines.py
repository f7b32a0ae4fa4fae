"""Unexpected log lines are found, with file and line; what a failover causes is not among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.analysis import analyse
from reports.checks.log_lines import unexpected
from reports.findings import Finding
from tests.synthetic import make_record

STAMP = "2026-01-01T00:00:00.000000000Z "
PG = STAMP + "2026-01-01 00:00:00.000 UTC [71] "


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_record(tmp_path_factory.mktemp("logs") / "run", trials=1, seconds=5)


def finding(record: Path) -> Finding:
    found = analyse(record).finding("log.unexpected")
    assert found is not None
    return found


@pytest.mark.parametrize(
    "line",
    [
        PG + "PANIC:  could not write to file",
        PG + "WARNING:  page verification failed, calculated checksum 1 but expected 2",
        PG + "ERROR:  invalid page in block 3 of relation base/5/16384",
        PG + 'LOG:  could not fsync file "base/5/16384": Input/output error',
        PG + "LOG:  server process (PID 99) was terminated by signal 11: Segmentation fault",
        PG + "ERROR:  index is corrupted",
        PG + "FATAL:  sorry, too many clients already",
        PG + "FATAL:  requested timeline 3 is not a child of this server's history",
        STAMP + "2026-01-01 00:00:00.000 UTC [7] FATAL cannot load config file",
        STAMP + "[ALERT]    (8) : sendmsg()/writev() failed",
        STAMP + "panic: runtime error: index out of range",
        STAMP + '{"level":"fatal","msg":"failed to purge wal file"}',
        STAMP + "=== REDIS BUG REPORT START: Cut & paste starting from here ===",
    ],
)
def test_an_unexpected_line_is_found(line: str) -> None:
    assert [one[:2] for one in unexpected({"x": f"{STAMP}fine\n{line}\n{STAMP}fine\n"})] == [
        ("logs/x.log", 2)
    ]


@pytest.mark.parametrize(
    "line",
    [
        PG + "FATAL:  terminating connection due to unexpected postmaster exit",
        PG + "FATAL:  the database system is starting up",
        PG + 'FATAL:  could not connect to the primary server: connection to server at "pg1" failed',
        PG + "FATAL:  terminating walreceiver process due to administrator command",
        PG + "LOG:  server process (PID 9) was terminated by signal 9: Killed",
        PG + "LOG:  invalid record length at 0/5000028: wanted 24, got 0",
        STAMP + "2026-01-01 00:00:00.000 UTC [7] WARNING C-0x1: risk/x@1.2.3.4:5 pooler error: FATAL-looking",
        STAMP + "[ALERT]    (12) : proxy 'write' has no server available!",
        PG + "HINT:  If this has occurred more than once some data might be corrupted and you might need to",
        STAMP + "2026/01/01 00:00:00 ERROR: Failed to decode request: http: invalid Read on closed Body",
    ],
)
def test_what_failovers_cause_is_expected(line: str) -> None:
    assert list(unexpected({"x": line})) == []


def test_the_finding_names_file_and_line(record: Path) -> None:
    assert finding(record).value == 0
    log = record / "logs" / "pg2.log"
    before = log.read_text()
    log.write_text(before + PG + "PANIC:  it is over\n")
    found = finding(record)
    log.write_text(before)
    assert found.value == 1
    assert found.evidence == ("logs/pg2.log:2",)
    assert "PANIC:  it is over" in found.why


def test_without_the_log_of_every_database_there_is_no_figure(record: Path) -> None:
    log = record / "logs" / "pg3.log"
    before = log.read_text()
    log.write_text("")
    found = finding(record)
    log.write_text(before)
    assert found.status == "not run"
    assert "pg3" in found.why
