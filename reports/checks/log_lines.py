"""Log lines that no fault of the catalogue may cause: ``log.unexpected``, their number over every service.

*Unexpected* are, in the log of any node:

- what says that data or a program is damaged: PANIC, invalid page, failed checksums, "could not fsync",
  corruption, "please report", failed assertions, crashes (SIGABRT, SIGBUS, SIGSEGV, a Go panic), Redis'
  bug report (PostgreSQL's hint after an interrupted recovery, that data *might* be corrupted, is none)
- a server's FATAL that is not on the list of what failovers and lost connections cause (``EXPECTED``),
  a FATAL of PgBouncer, an ALERT of HAProxy, and fatal lines of etcd

Each line counts once. Without the log of every database there is no figure: silence would be taken for peace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

METRIC = "log.unexpected"
SHOWN = 20
"""How many lines are kept as evidence, with their text."""

DAMAGE = re.compile(
    r"\bPANIC:"
    r"|invalid page in block|page verification failed|checksum verification failed|checksum mismatch"
    r"|could not (?:fsync|fdatasync)|corrupt(?:ed|ion)\b|please report"
    r"|TRAP: failed Assert"
    r"|terminated by signal (?:4|6|7|8|11)\b|Segmentation fault|\bsegfault at\b|crashed by signal"
    r"|REDIS BUG REPORT"
    r"|^\S+ (?:panic:|fatal error:)"
    r"|\"level\":\"(?:panic|fatal|dpanic)\""
)
POSTGRES_FATAL = re.compile(r"\bFATAL:  (?P<text>.*)")
EXPECTED = re.compile(
    r"terminating connection due to (?:unexpected postmaster exit|administrator command"
    r"|conflict with recovery|idle-session timeout|idle-in-transaction timeout)"
    r"|terminating connection because of crash of another server process"
    r"|the database system is (?:starting up|shutting down|not yet accepting connections|in recovery mode"
    r"|not accepting)"
    r"|connection to client lost"
    r"|could not (?:connect to the primary server|receive data from WAL stream|send data to WAL stream"
    r"|send end-of-streaming message to primary|receive timeline history file|start WAL streaming"
    r"|send replication command|receive database system identifier)"
    r"|streaming replication receiver \"[^\"]*\" could not connect to the primary server"
    r"|terminating walreceiver (?:process )?due to (?:administrator command|timeout)"
    r"|terminating (?:walsender process|background worker \"[^\"]*\"|autovacuum process"
    r"|logical replication worker) due to administrator command"
    r"|highest timeline \d+ of the primary is behind recovery timeline \d+"
    r"|canceling authentication due to timeout"
)
"""What a failover, a lost connection or an orderly stop makes PostgreSQL say. A walreceiver's wait for its
primary, sessions of a server that ends or starts, and log-ins that a frozen server did not finish."""
POOLER_FATAL = re.compile(r"\[\d+\] FATAL ")
ROUTER_ALERT = re.compile(r"\[ALERT\](?!.* has no server available!)")
"""That there is no server to send anybody to is what the router says in every failover."""
HINT = re.compile(r"\bHINT:  If this has occurred more than once some data might be corrupted")


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    logs = record.logs
    silent = [name for name in analysis.databases if not logs.get(name, "").strip()]
    if not analysis.databases or silent:
        which = ", ".join(silent) or "any database"
        return [nothing(METRIC, "lines", "not run", f"the record has no log of {which}")]
    found = list(unexpected(logs))
    said = "; ".join(f"{file}:{line}: {text[:160]}" for file, line, text in found[:3])
    return [
        Finding(
            metric=METRIC,
            unit="lines",
            value=float(len(found)),
            why=said,
            evidence=tuple(f"{file}:{line}" for file, line, _ in found[:SHOWN]) or ("logs/",),
            detail={
                "lines": [
                    {"file": file, "line": line, "text": text[:500]} for file, line, text in found[:SHOWN]
                ],
                "searched": sum(text.count("\n") for text in logs.values()),
            },
        )
    ]


def unexpected(logs: dict[str, str]) -> Iterator[tuple[str, int, str]]:
    """(file, number of the line from 1, line without the engine's stamp) of every unexpected line."""
    for node, text in logs.items():
        for number, line in enumerate(text.splitlines(), 1):
            if _is_unexpected(line):
                yield f"logs/{node}.log", number, line.partition(" ")[2]


def _is_unexpected(line: str) -> bool:
    if DAMAGE.search(line):
        return HINT.search(line) is None
    fatal = POSTGRES_FATAL.search(line)
    if fatal is not None:
        return EXPECTED.match(fatal["text"]) is None
    return bool(POOLER_FATAL.search(line) or ROUTER_ALERT.search(line))


CHECK = Check("log-lines", {METRIC: "lines"}, run)
