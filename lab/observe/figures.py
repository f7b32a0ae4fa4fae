"""From what a source says to ``(metric, label, value)``. Pure; names and units as in ``schema.METRICS``.

Columns are taken by name: PgBouncer's differ between versions (1.18 to 1.24 and later are covered), and
so do HAProxy's. What a version does not have is left out, never made up.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

Figure = tuple[str, str | None, float]
Table = Sequence[Mapping[str, str | None]]

MICRO = 1e-6

STATS: dict[str, tuple[str, float]] = {
    "total_xact_count": ("pgb_xact", 1.0),
    "total_query_count": ("pgb_query", 1.0),
    "total_server_assignment_count": ("pgb_assignment", 1.0),
    "total_xact_time": ("pgb_xact_time", MICRO),
    "total_query_time": ("pgb_query_time", MICRO),
    "total_wait_time": ("pgb_wait_time", MICRO),
}
"""SHOW STATS: column → metric and factor (times are µs). Totals only: averages lag by ``stats_period``."""


def pgbouncer_stats(table: Table) -> list[Figure]:
    """SHOW STATS. The console's own database is left out."""
    found: list[Figure] = []
    for row in table:
        if row.get("database") == "pgbouncer":
            continue
        for column, (metric, factor) in STATS.items():
            value = row.get(column)
            if value is not None:
                found.append((metric, row.get("database"), int(value) * factor))
    return found


def pgbouncer_pools(table: Table) -> list[Figure]:
    """SHOW POOLS. ``pgb_sv_total`` is the sum of every ``sv_…`` column that the version has."""
    found: list[Figure] = []
    for row in table:
        if row.get("database") == "pgbouncer":
            continue
        label = f"{row.get('database')}/{row.get('user')}"
        for column in ("cl_active", "cl_waiting", "sv_active", "sv_idle"):
            value = row.get(column)
            if value is not None:
                found.append((f"pgb_{column}", label, float(value)))
        servers = [value for column, value in row.items() if column.startswith("sv_") and value is not None]
        found.append(("pgb_sv_total", label, float(sum(int(value) for value in servers))))
        wait = row.get("maxwait")
        if wait is not None:
            found.append(("pgb_maxwait", label, int(wait) + int(row.get("maxwait_us") or 0) * MICRO))
    return found


def redis_info(info: Mapping[str, object]) -> list[Figure]:
    """INFO, sections stats and replication."""
    found: list[Figure] = []
    for field, metric in (
        ("total_commands_processed", "redis_ops"),
        ("keyspace_hits", "redis_hits"),
        ("keyspace_misses", "redis_misses"),
    ):
        value = info.get(field)
        if isinstance(value, int | float):
            found.append((metric, None, float(value)))
    if "role" in info:
        found.append(("redis_is_primary", None, float(info["role"] == "master")))
    return found


def haproxy_stats(text: str) -> list[Figure]:
    """``/stats;csv``: servers only. A server that is up but drains or is in maintenance counts as down."""
    found: list[Figure] = []
    for row in csv.DictReader(io.StringIO(text.removeprefix("# "))):
        name = row.get("svname") or ""
        if name in ("FRONTEND", "BACKEND", "") or row.get("type", "2") != "2":
            continue
        label = f"{row.get('pxname')}/{name}"
        found.append(("haproxy_up", label, float((row.get("status") or "").startswith("UP"))))
        sessions = row.get("scur") or ""
        if sessions.isdigit():
            found.append(("haproxy_sessions", label, float(sessions)))
    return found


Buckets = dict[float, float]


def fsync_buckets(text: str) -> Buckets:
    """Upper bound in seconds → cumulative count, of etcd's ``etcd_disk_wal_fsync_duration_seconds``."""
    found: Buckets = {}
    for line in text.splitlines():
        if line.startswith("etcd_disk_wal_fsync_duration_seconds_bucket"):
            bound = line.partition('le="')[2].partition('"')[0]
            found[float(bound)] = float(line.rpartition(" ")[2])
    return found


def quantile(now: Buckets, before: Buckets, q: float) -> float | None:
    """The q-quantile of what came between two readings of a cumulative histogram, seconds.

    Linear within a bucket, as Prometheus' ``histogram_quantile`` does; above the last finite bound, that
    bound. None where nothing came in between, or the counts went back (the server was started anew).
    """
    counts = [(bound, now[bound] - before.get(bound, 0.0)) for bound in sorted(now)]
    if not counts or counts[-1][1] <= 0 or any(count < 0 for _, count in counts):
        return None
    rank, low, below = q * counts[-1][1], 0.0, 0.0
    for bound, count in counts:
        if count >= rank:
            if bound == float("inf"):
                return low
            return low + (bound - low) * ((rank - below) / (count - below) if count > below else 1.0)
        low, below = bound, count
    return low


def patroni_state(data: Mapping[str, object]) -> list[Figure]:
    """``GET /patroni``."""
    found: list[Figure] = [("patroni_is_primary", None, float(data.get("role") in ("primary", "master")))]
    timeline = data.get("timeline")
    if isinstance(timeline, int):
        found.append(("patroni_timeline", None, float(timeline)))
    return found


PG_SQL = """
SELECT 'pg_connections',
    CASE WHEN application_name LIKE 'lab-%' THEN 'lab' ELSE COALESCE(state, 'other') END, count(*)::float8
  FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 2
UNION ALL SELECT 'pg_active', COALESCE(wait_event_type || ':' || wait_event, 'CPU'), count(*)::float8
  FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend'
    AND pid <> pg_backend_pid() AND application_name NOT LIKE 'lab-%' GROUP BY 2
UNION ALL SELECT 'pg_max_connections', NULL, current_setting('max_connections')::float8
UNION ALL SELECT m, NULL, v FROM (
  SELECT sum(sessions)::float8 AS s, sum(xact_commit)::float8 AS c, sum(xact_rollback)::float8 AS r,
         sum(conflicts)::float8 AS k, sum(blks_read)::float8 * current_setting('block_size')::float8 AS b
    FROM pg_stat_database WHERE datname = current_database()) AS d,
  LATERAL (VALUES ('pg_sessions', s), ('pg_xact_commit', c), ('pg_xact_rollback', r),
                  ('pg_conflicts', k), ('pg_read_bytes', b)) AS x (m, v)
UNION ALL SELECT 'pg_wal_bytes', NULL, wal_bytes::float8 FROM pg_stat_wal
UNION ALL SELECT 'pg_replication_lag_bytes', application_name,
    CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_lsn() - replay_lsn)::float8 END
    FROM pg_stat_replication
UNION ALL SELECT 'pg_replay_lag_seconds', application_name, EXTRACT(epoch FROM replay_lag)::float8
    FROM pg_stat_replication
UNION ALL SELECT 'pg_slot_retained_bytes', slot_name::text,
    CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_lsn() - restart_lsn)::float8 END
    FROM pg_replication_slots
UNION ALL SELECT 'pg_sync_standbys', NULL, count(*)::float8 FROM pg_stat_replication
    WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')
"""
"""One statement for everything; PostgreSQL 14 and later. ``pg_stat_replication`` on a standby lists what
cascades from it."""


def machine_cpu(text: str, ticks_per_s: float) -> list[Figure]:
    """First line of ``/proc/stat``: user nice system idle iowait irq softirq steal …, in clock ticks.

    A container reads the host's: it is everything that runs on the machine, in the lab or beside it.
    """
    words = text.partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return []
    user, nice, system, _, _, irq, soft, steal = (int(word) for word in words[1:9])
    cores = sum(1 for line in text.splitlines() if line.startswith("cpu") and line[3:4].isdigit())
    return [
        ("machine_cpu_seconds", None, (user + nice + system + irq + soft + steal) / ticks_per_s),
        ("machine_cores", None, float(cores)),
    ]


def postgres(rows: Iterable[Sequence[str | None]]) -> list[Figure]:
    """The rows of PG_SQL; unknown values are left out."""
    return [(str(metric), label, float(value)) for metric, label, value in rows if value is not None]
