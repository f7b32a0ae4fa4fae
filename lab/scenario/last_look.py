"""What the database nodes are asked once everything has ended: checksums of all tables, what a rewind kept.

The checksum of a table is (rows, Σ hashtextextended(row as text)): it does not depend on the order of the
rows, so that it takes one scan without a sort. A row that changed, is missing or is there twice changes it,
but for a chance of about 2⁻⁶⁴. It is run as the superuser on the node itself.
"""

from __future__ import annotations

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from lab.driver import Lab, Node
from lab.errors import LabError
from lab.record.writer import RecordWriter

EVIDENCE = "/var/lib/postgresql/evidence"
"""Where the stand-in of pg_rewind keeps what a rewind destroys (``compose/templates/pg_rewind.j2``)."""
LARGEST_BYTES = 2 * 2**30
"""Tables beyond it are named and left out: reading them would take minutes."""
TABLE_S = 60
NODE_S = 180.0

CHECKSUMS = rf"""
\set ON_ERROR_STOP on
\pset format csv
\pset tuples_only on
SET statement_timeout = '{TABLE_S}s';
SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'iso_8601'; SET extra_float_digits = 1;
SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET search_path = pg_catalog;
SELECT 'lsn', pg_wal_lsn_diff(
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, '0/0'), '';
SELECT format(
    CASE WHEN pg_table_size(c.oid) > {LARGEST_BYTES} THEN 'SELECT ''skipped'', %1$L, '''''
    ELSE 'SELECT ''table'', %1$L, count(*) || '' '' || '
         'coalesce(sum(hashtextextended("_row"::text, 0)::numeric), 0) FROM ONLY %1$s AS "_row"' END,
    c.oid::regclass)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY c.oid::regclass::text
\gexec
SELECT 'SELECT ''bank'', (SELECT total FROM lab.bank_promise), sum(balance) FROM lab.bank_account'
WHERE to_regclass('lab.bank_account') IS NOT NULL
\gexec
"""


def parse_checksums(text: str) -> dict[str, Any]:
    """What ``CHECKSUMS`` printed: {"lsn", "tables": {name: [rows, sum]}, "skipped", "bank"}. Sums are text.

    ``bank``: [promised total, sum of the balances as text] of the workload bank, None where it never ran.

    ValueError where it is something else, or not complete.
    """
    found: dict[str, Any] = {"lsn": None, "tables": {}, "skipped": [], "bank": None}
    for row in csv.reader(io.StringIO(text)):
        if not row:
            continue
        kind, name, value = row
        if kind == "lsn":
            found["lsn"] = int(name)
        elif kind == "table":
            rows, _, total = value.partition(" ")
            found["tables"][name] = [int(rows), total]
        elif kind == "skipped":
            found["skipped"].append(name)
        elif kind == "bank":
            found["bank"] = [int(name), value]
        else:
            raise ValueError(f"unexpected: {kind}")
    if found["lsn"] is None:
        raise ValueError("it said nothing")
    return found


def checksums(lab: Lab) -> dict[str, dict[str, Any]]:
    """Node → its checksums; ``why`` says why there are none."""
    nodes = {node.name: lab.nodes[node.name] for node in lab.topology.postgres.nodes}
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda node: _one(node, lab.topology.postgres.database), nodes.values())
        return dict(zip(nodes, found, strict=True))


def _one(node: Node, database: str) -> dict[str, Any]:
    words = ["psql", "-XAq", "-h", "/run/postgresql", "-d", database, "-f", "-"]
    try:
        done = node.run(words, user="postgres", input=CHECKSUMS.encode(), timeout_s=NODE_S, check=False)
        if done.exit_code:
            return {"why": (done.stderr.strip().splitlines() or ["psql failed"])[-1][:300]}
        return {**parse_checksums(done.stdout), "why": ""}
    except (LabError, ValueError) as error:
        return {"why": str(error)[:300]}


def keep_evidence(lab: Lab, record: RecordWriter, since_wall: float) -> list[str]:
    """Copy ``fork.txt`` of every rewind since a moment (wall clock, s) to ``evidence/<node>-<UTC time>.txt``.

    Returns the names of the files. What cannot be had is left out.
    """
    oldest = datetime.fromtimestamp(since_wall, UTC).strftime("%Y%m%dT%H%M%S")
    kept = []
    script = (
        'cd "$1" 2>/dev/null || exit 0; for f in */fork.txt; do [ -f "$f" ] && echo "# $f" && cat "$f"; done'
    )
    for node in lab.topology.postgres.nodes:
        try:
            words = ["sh", "-c", script, "sh", EVIDENCE]
            said = lab.nodes[node.name].run(words, check=False, timeout_s=15).stdout
        except LabError:
            continue
        for part in said.split("# ")[1:]:
            head, _, text = part.partition("\n")
            moment = head.partition("/")[0]
            if moment >= oldest and text.strip():
                kept.append(f"evidence/{node.name}-{moment}.txt")
                record.put(kept[-1], text)
    return kept
