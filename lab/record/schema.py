"""What a run record holds. Version 1.

    runs/<UTC yyyymmddThhmmssZ>-<scenario>/
        manifest.json            Manifest (below)
        topology.yaml            the topology as it ran (overrides applied)
        scenario.yaml            the scenario as it ran
        rendered/…               every rendered file, secrets as references
        <table>.jsonl            append-only segments while the run lasts
        <table>.parquet          what they become on close (the .jsonl goes)
        audit/<trial>-<node>.parquet   numbers of a trial (0: of no trial) found on a node by the audit
                                 that follows the last trial: n int64, copies int32
        audit/redis/<node>.parquet     the same of the whole run's list in Redis
        audit/checksums.json     directly after that: node → {lsn, tables: {name: [rows, sum]}, skipped,
                                 bank: [promised, sum] or null, why}
        evidence/<node>-<UTC time>.txt   what a rewind kept: timeline, fork_lsn, end_lsn, beyond_bytes
        statements.json          top of pg_stat_statements per node
        logs/<node>.log          each line led by an RFC 3339 time stamp of the engine's host

All times are int64 nanoseconds of the observer's monotonic clock, unless a name ends in ``_wall``.
A time that is not known is null. ``trial`` counts from 1; 0 is outside any trial.

A ledger line in ``writes.jsonl`` or ``redis_writes.jsonl`` is an *intent* (k="i") or an *outcome* (k="o"),
matched by n; the table has one row a number, with outcome ``unknown`` where no outcome came.
"""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1

NS = 1_000_000_000

_time = pa.int64()
_text = pa.dictionary(pa.int32(), pa.string())

_LEDGER = pa.schema(
    [
        ("n", pa.int64()),
        ("trial", pa.int32()),
        ("endpoint", _text),
        ("session", pa.int64()),  # number of the session that carried it
        ("session_opened", _time),  # when that session had been opened
        ("fresh", pa.bool_()),  # true: a session opened for this write alone
        ("intended", _time),
        ("sent", _time),
        ("done", _time),
        ("outcome", _text),  # acknowledged, acknowledged_locally, failed, unknown
        ("sqlstate", _text),  # of Redis: the first word of its error
        ("message", _text),
        ("server", _text),  # node that answered
    ]
)

LEDGERS = ("writes", "redis_writes")
"""Tables whose segments hold intents and outcomes."""

TABLES: dict[str, pa.Schema] = {
    # What happened, and when. ``kind`` is one of EVENT_KINDS.
    "events": pa.schema(
        [
            ("t", _time),
            ("kind", _text),
            ("trial", pa.int32()),
            ("node", _text),  # null where no node is concerned
            ("source", _text),  # runner, observer, etcd
            ("uncertainty", pa.int64()),  # ± ns
            ("detail", pa.string()),  # JSON object
        ]
    ),
    # The writer probe's ledger. One row a number.
    "writes": _LEDGER,
    # The same of the Redis writer, whose numbers are its own.
    "redis_writes": _LEDGER,
    # The reader probe.
    "reads": pa.schema(
        [
            ("trial", pa.int32()),
            ("endpoint", _text),
            ("session", pa.int64()),
            ("session_opened", _time),
            ("fresh", pa.bool_()),
            ("intended", _time),
            ("sent", _time),
            ("done", _time),
            ("ok", pa.bool_()),
            ("sqlstate", _text),
            ("message", _text),
            ("server", _text),
            ("newest", pa.int64()),  # greatest n that it saw
        ]
    ),
    # Every database node asked directly, over the control network.
    "nodes": pa.schema(
        [
            ("t_sent", _time),
            ("t_done", _time),
            ("node", _text),
            ("reachable", pa.bool_()),
            ("accepts_writes", pa.bool_()),  # it assigned a transaction id
            ("in_recovery", pa.bool_()),
            ("timeline", pa.int32()),
            ("lsn", pa.int64()),  # written (primary) or replayed (standby) WAL position, bytes
        ]
    ),
    # New connections straight to the router's write endpoint: which node does it lead to?
    "routes": pa.schema([("t_sent", _time), ("t_done", _time), ("ok", pa.bool_()), ("server", _text)]),
    # The load's requests, raw.
    "requests": pa.schema(
        [
            ("intended", _time),
            ("started", _time),
            ("done", _time),
            ("name", _text),
            ("endpoint", _text),
            ("outcome", _text),  # ok, dropped (never started), or the SQLSTATE / error class
            ("worker", pa.int16()),
            ("user", pa.int16()),  # of the worker, from 1; null: dropped, or a record from before it was kept
        ]
    ),
    # What an experiment measured, one row a cell; requests and metrics between begin and end are the cell's.
    "cells": pa.schema(
        [
            ("cell", pa.int32()),  # from 1, in the order in which they ran
            ("name", _text),
            ("repeat", pa.int32()),  # from 1; cells of one repeat are paired
            ("begin", _time),
            ("end", _time),
            ("parameters", pa.string()),  # JSON object: what was set
            ("result", pa.string()),  # JSON object: what was found, beside requests and metrics
        ]
    ),
    # Everything that collectors sample, one value a row. See METRICS.
    "metrics": pa.schema(
        [
            ("t", _time),
            ("node", _text),
            ("metric", _text),
            ("label", _text),  # database/user of a pool, name of a standby, … or null
            ("value", pa.float64()),
        ]
    ),
}

EVENT_KINDS: dict[str, str] = {
    "run-start": "detail: seed",
    "run-end": "",
    "load-start": "detail: workload, rate, users, endpoint",
    "load-end": "",
    "steady-start": "load runs, no fault: what is judged as steady state begins",
    "steady-end": "",
    "trial-start": "detail: phase_ms",
    "trial-end": "",
    "fault-begin": "the injection was asked for; detail: fault, target, resolved (names of nodes), and since "
    "stories have several steps: targets (list), kind, moves_leader (yes, no, maybe; there), step, for (s)",
    "fault-effect": "the fault took effect (node, uncertainty), one event a node; detail: fault, step",
    "fault-verified": "an independent look found it in effect; detail: how",
    "fault-again": "put back, since healing another fault had started its node anew; detail: fault, step",
    "fault-absent": "an independent look did not find it: the trial is invalid; detail: how",
    "condition": "a condition that a step waited for came true; detail: step, condition, how",
    "step-failed": "a step did not come about in its time, and none after it; detail: step, why",
    "assert-begin": "detail: step, condition, throughout (s, or window)",
    "assert-failed": "the first look at which it did not hold; detail: step, condition, why",
    "assert-end": "detail: step, condition, held (null: too few looks to tell), why, looks, gap_s, begin (t)",
    "heal-begin": "one event a node; detail: step",
    "heal-end": "one event a node; detail: step",
    "heal-verified": "one event a node; detail: how, step",
    "window-end": "the observation window of the trial ended",
    "redundant": "every node streams again",
    "synchronous": "synchronous replication is in effect again",
    "audit": "detail: per node lsn, caught_up, rows",
    "redis-audit": "detail: per Redis node role, offset, caught_up, rows, primary, why",
    "redis-primary": "Sentinel names another primary than before (node); detail: was, sessions (who asked)",
    "leader-expired": "etcd deleted the leader key (lease ran out or it was released)",
    "leader-elected": "etcd got a leader key; detail: leader",
    "promoted": "first moment at which a node other than the old primary accepts writes (node)",
    "pooler-connected": "a pooler opened a server connection to the new primary (node: the pooler)",
    "probe-died": "a program of the observer ended by itself; detail: why",
    "session-closed": "the other end closed an idle lasting session of a probe; detail: endpoint, session, "
    "session_opened, sqlstate, message. Not a failed operation",
    "interrupted": "the run ended early; detail: why",
}

METRICS: dict[str, tuple[str, str]] = {
    # metric: (unit, meaning)
    "cpu_seconds": ("s", "CPU time used by the node since it began, cumulative"),
    "cpu_throttled_seconds": ("s", "time in which the quota held the node back, cumulative"),
    "memory_bytes": ("B", "memory charged to the node"),
    "io_read_bytes": ("B", "read from block devices, cumulative; absent where the kernel does not count it"),
    "io_write_bytes": ("B", "written to block devices, cumulative; absent likewise"),
    "processes": ("1", "processes and threads"),
    "patroni_is_primary": ("1", "1 where Patroni's REST API says that the node leads"),
    "patroni_timeline": ("1", "the node's timeline, as Patroni's REST API says"),
    "pg_connections": ("1", "client backends; label: state, or ``lab`` for the lab's own instruments"),
    "pg_active": (
        "1",
        "active client backends at the moment of the sample, the lab's own left out; label: "
        "wait_event_type:wait_event, CPU where it waits for nothing. No row: none",
    ),
    "pg_max_connections": ("1", "the setting"),
    "pg_sessions": ("1", "sessions ever established to the database, cumulative"),
    "pg_xact_commit": ("1", "cumulative"),
    "pg_xact_rollback": ("1", "cumulative"),
    "pg_conflicts": ("1", "queries cancelled by recovery conflicts, cumulative"),
    "pg_read_bytes": ("B", "read into shared buffers, from disk or the kernel's cache, cumulative"),
    "pg_wal_bytes": ("B", "WAL generated, cumulative"),
    "pg_replication_lag_bytes": ("B", "label: standby; primary's position minus replayed"),
    "pg_replay_lag_seconds": ("s", "label: standby, as pg_stat_replication reports it"),
    "pg_slot_retained_bytes": (
        "B",
        "label: replication slot; the primary's position minus the slot's restart_lsn: WAL kept back for it",
    ),
    "pg_sync_standbys": ("1", "standbys that streaming confirms synchronous or quorum"),
    "pgb_xact": ("1", "SHOW STATS total_xact_count; label: database"),
    "pgb_query": ("1", "total_query_count; label: database"),
    "pgb_assignment": ("1", "total_server_assignment_count; label: database"),
    "pgb_xact_time": ("s", "total_xact_time; label: database"),
    "pgb_query_time": ("s", "total_query_time; label: database"),
    "pgb_wait_time": ("s", "total_wait_time; label: database"),
    "pgb_cl_active": ("1", "SHOW POOLS; label: database/user"),
    "pgb_cl_waiting": ("1", "label: database/user"),
    "pgb_sv_active": ("1", "label: database/user"),
    "pgb_sv_idle": ("1", "label: database/user"),
    "pgb_sv_total": ("1", "every server connection, whatever its state; label: database/user"),
    "pgb_maxwait": ("s", "label: database/user"),
    "redis_ops": ("1", "commands processed, cumulative"),
    "redis_hits": ("1", "keyspace hits, cumulative"),
    "redis_misses": ("1", "keyspace misses, cumulative"),
    "redis_is_primary": ("1", "1 for the primary"),
    "haproxy_up": ("1", "label: backend/server; 1 while HAProxy sends it new connections"),
    "haproxy_sessions": ("1", "label: backend/server; current sessions"),
    "etcd_fsync_p99_seconds": ("s", "WAL fsync, from etcd's own histogram"),
    "load_in_flight": ("1", "requests under way, as the load counts them; label: worker"),
    "load_in_flight_seconds": ("s", "integral of load_in_flight over time, cumulative; label: worker"),
    "cache_loads": ("1", "values loaded because the cache lacked them, cumulative; label: worker"),
    "cache_expiries": ("1", "of those, entries that the same worker had put there and that ran out"),
    "cache_simultaneous_loads": (
        "1",
        "most loads of one key at one time so far; label: worker",
    ),
    "cache_oldest_hit_seconds": (
        "s",
        "greatest time from storing an entry (answered) to asking for it and getting it; label: worker",
    ),
    "machine_cpu_seconds": ("s", "CPU time of everything on the host of the observer, cumulative"),
    "machine_cores": ("1", "cores of that host"),
    "collector_cpu_seconds": ("s", "CPU time of the lab's collectors on the node, cumulative"),
}


class Anchor(BaseModel):
    """The observer's monotonic clock and its wall clock, read together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    monotonic_ns: int
    wall_ns: int


class ClockOffset(BaseModel):
    """Another clock relative to the observer's monotonic clock.

    observer = other + offset_ns, ± uncertainty_ns (half the shortest round trip).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clock: str
    """``runner`` (its monotonic clock), ``load:<worker>`` (monotonic), ``engine`` (wall clock)."""
    when: Literal["start", "end"]
    offset_ns: int
    uncertainty_ns: int


class Manifest(BaseModel):
    """The head of a run record."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    run: str
    """Name of the folder."""
    state: Literal["running", "closed", "interrupted"]
    lab_version: str
    scenario: str
    topology: str
    lab: str
    seed: int
    started_wall: str
    """RFC 3339, UTC."""
    ended_wall: str | None = None
    trials_asked: int
    trials_done: int = 0
    fault: str | None = None
    """Name of the first fault; None for a run without one."""
    faults: list[str] = []
    """Names of the faults of all steps, in their order."""
    not_run: str | None = None
    """Why the scenario was not run at all: something that the machine or the lab cannot do."""
    command: str = ""
    """The command line that made it."""
    anchor: Anchor | None = None
    offsets: list[ClockOffset] = []
    predicted: dict[str, float] = {}
    """What the configuration predicts, seconds: best, worst and its parts."""
    slow_after_s: float = 1.0
    """T: a write that takes longer counts as failed for the RTO."""
    window_s: float | None = None
    """Length of the observation window after a fault."""
    probe_interval_s: float | None = None
    load: dict[str, Any] | None = None
    overrides: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    """cores, memory_bytes, kernel, cpu_model, engine, compose, os, netem."""
    scale: float | None = None
    resources: dict[str, Any] = {}
    """Node → cpus, memory_bytes as limited."""
    versions: dict[str, str] = {}
    """postgresql, patroni, pgbouncer, haproxy, etcd, redis, toxiproxy, locust, psycopg, python."""
    substitutions: list[str] = []
    """``PostgreSQL 14 → 15 (Debian 12 carries 15)``."""
    stand_ins: dict[str, str] = {}
    """``failover``: ``Patroni for RDS Multi-AZ``, …"""
    not_built: list[str] = []
    """Parts of the document's architecture that the lab does not build."""
    addresses: dict[str, str] = {}
    """Address → node."""
    notes: list[str] = []
    """What the reader should know: a fault that could not run, a leader change not asked for, …"""
