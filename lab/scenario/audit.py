"""The final audit: what every database node holds of the ledger, read directly after replay caught up."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from lab.errors import LabError
from lab.scenario.last_look import checksums, keep_evidence
from lab.scenario.session import Session

WITHIN_S = 150.0

_CSV = pa.schema([("trial", pa.int32()), ("n", pa.int64()), ("copies", pa.int32())])


_REDIS_CSV = pa.schema([("n", pa.int64()), ("copies", pa.int32())])


def parse_rows(data: bytes, schema: pa.Schema = _CSV) -> pa.Table:
    """``trial,n,copies`` lines as a table. LabError where they are damaged."""
    if not data.strip():
        return schema.empty_table()
    try:
        return pa_csv.read_csv(
            io.BytesIO(data),
            read_options=pa_csv.ReadOptions(column_names=schema.names),
            convert_options=pa_csv.ConvertOptions(column_types=schema),
        )
    except pa.ArrowException as error:
        raise LabError(f"the audit's rows cannot be read: {error}") from error


def audit(session: Session, trials: int) -> dict[str, Any]:
    """Read every node and record what it holds, split by the trial under which it was written (0: none).

    Made once, after probes and load have ended: numbers are unique over the run, so what a trial lost
    is still missing then. Returns node → {lsn, caught_up, rows, primary, why}, also as ``audit`` events.
    """
    found: dict[str, Any] = session.inside("audit", WITHIN_S)
    at = session.clock.now()
    per_trial: dict[int, dict[str, Any]] = {trial: {} for trial in range(trials + 1)}
    for node, result in found.items():
        if result["rows"] is None:
            session.record.note(f"{node} was not audited: {result['why']}")
            continue
        table = parse_rows(session.observer.get(f"{session.base}/audit-{node}.csv"))
        if table.num_rows != result["rows"]:
            raise LabError(f"the audit of {node} is incomplete: {table.num_rows} of {result['rows']} rows")
        if not result["caught_up"]:
            session.record.note(f"the audit of {node} is not of all it should hold: {result['why']}")
        for trial in per_trial:
            rows = table.filter(pc.equal(table.column("trial"), trial))
            session.record.audit(trial, node, rows)
            per_trial[trial][node] = {**result, "rows": rows.num_rows}
    for trial, detail in per_trial.items():
        session.record.event(
            "audit", at, trial=trial, source="observer", uncertainty=session.clock.uncertainty, detail=detail
        )
    # Directly after replay has caught up, and before anybody writes again.
    session.record.put("audit/checksums.json", json.dumps(checksums(session.lab), indent=1))
    keep_evidence(session.lab, session.record, session.started_wall())
    return found


def audit_redis(session: Session) -> dict[str, Any]:
    """Read the Redis writer's list on every Redis node and record it; returns what the event says."""
    found: dict[str, Any] = session.inside("redis", WITHIN_S)
    for node, result in found.items():
        if result["rows"] is None:
            session.record.note(f"{node} was not audited: {result['why']}")
            continue
        table = parse_rows(session.observer.get(f"{session.base}/redis-{node}.csv"), _REDIS_CSV)
        if table.num_rows != result["rows"]:
            raise LabError(f"the audit of {node} is incomplete: {table.num_rows} of {result['rows']} rows")
        session.record.audit_redis(node, table)
        if not result["caught_up"]:
            session.record.note(f"the audit of {node} is not of all it should hold: {result['why']}")
    at, uncertainty = session.clock.now(), session.clock.uncertainty
    session.record.event("redis-audit", at, source="observer", uncertainty=uncertainty, detail=found)
    return found
