"""What pooling saved, and how far the pools were used. Over the steady state unless said otherwise.

- *new connections*: PgBouncer's log lines ``new connection to server`` (written when the connection to the
  server is made and ``log_connections`` is on; ``handle_connect`` in its src/server.c). All poolers
  together cannot have made more than the servers' own counters of sessions (pg_stat_database.sessions)
  grew: where they did, the log cannot be trusted and the efficiency is not told.
- *assignments*: growth of total_server_assignment_count over the databases (SHOW STATS), without the
  console's database.
- *efficiency* = 1 − new connections ÷ assignments: the share of assignments that found a server connection
  already open. Told from 100 assignments on.
- *utilisation*: transaction and statement mode: (Δtotal_xact_time − Δtotal_wait_time) ÷ (Δt · limit), since
  a transaction's clock starts with the client's first packet, before it waits for a server
  (``handle_client_work`` in PgBouncer's src/client.c); session mode: time-weighted sv_active ÷ limit. Of
  the fuller side: writers and readers have parts of the topology's limit of their own, and where the one is
  full its clients wait, however empty the other is.
- *wait* = Δtotal_wait_time ÷ Δassignments. *max_wait*: the greatest maxwait, whole run.
- *server connections*: at each sample the sum over databases and users; the greatest counts, whole run.
- *time in SQL* = Δtotal_query_time ÷ Δtotal_xact_time, both less Δtotal_wait_time. *multiplexing* = active
  clients ÷ open server connections, time-weighted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lab.deploy.parameters import split_limit
from lab.record.schema import NS
from reports.analysis.clock import parse_stamp
from reports.analysis.metrics import Metrics, Series, increase, total, weighted_mean
from reports.analysis.model import Pool

NEW_SERVER = "new connection to server"
NEW_CLIENT = "login attempt: "
LEAST_ASSIGNMENTS = 100
SLACK = 5
"""Sessions that may be under way between the log's line and the server's counter."""


def new_connections(log: str, offset: int, start: int, end: int) -> int:
    """Server connections that a pooler's log shows in [start, end) of the observer's clock."""
    count = 0
    for line in log.splitlines():
        if NEW_SERVER in line and "launching" not in line:
            wall = parse_stamp(line)
            if wall is not None and start <= wall + offset < end:
                count += 1
    return count


def logs_connections(log: str) -> bool:
    """Whether the pooler logs connections (``log_connections`` may be off).

    A pool that had all its server connections open before the run logs its clients' alone.
    """
    return NEW_SERVER in log or NEW_CLIENT in log


def pools(
    metrics: Metrics,
    logs: Mapping[str, str],
    poolers: Sequence[Mapping[str, Any]],
    offset: int | None,
    steady: tuple[int, int] | None,
) -> tuple[Pool, ...]:
    """One row a pooler. ``poolers``: those of the topology, as its YAML has them."""
    described = {str(one["name"]): one for one in poolers}
    names = sorted({*described, *metrics.nodes("pgb_sv_total"), *metrics.nodes("pgb_assignment")})
    counted: dict[str, int | None] = {}
    for name in names:
        log = logs.get(name, "")
        told = steady is not None and offset is not None and logs_connections(log)
        counted[name] = (
            new_connections(log, offset, *steady) if told and offset is not None and steady else None
        )
    trusted = _trusted(metrics, counted, steady)
    return tuple(
        _pool(name, metrics, described.get(name, {}), counted[name], trusted, steady) for name in names
    )


def _trusted(metrics: Metrics, counted: Mapping[str, int | None], steady: tuple[int, int] | None) -> str:
    """Why the logs' connections cannot be right by the servers' own counters; empty where they can."""
    if steady is None:
        return "the run has no steady state"
    grown = [increase(series.within(*steady)) for series in metrics.find("pg_sessions")]
    known = [value for value in grown if value is not None]
    if not known:
        return "the servers' session counters were not recorded, so that the log could not be checked"
    logged = sum(value or 0 for value in counted.values())
    if logged > sum(known) * 1.05 + SLACK:
        return (
            f"the poolers logged {logged} server connections, the servers counted {sum(known):.0f} sessions"
        )
    return ""


def _pool(
    name: str,
    metrics: Metrics,
    described: Mapping[str, Any],
    new: int | None,
    untrusted: str,
    steady: tuple[int, int] | None,
) -> Pool:
    limit, mode = described.get("max_server_connections"), described.get("mode")
    _, held = total(_labelled(metrics.find("pgb_sv_total", name)))
    waits = [float(series.value.max()) for series in _labelled(metrics.find("pgb_maxwait", name))]
    fields: dict[str, Any] = {
        "pooler": name,
        "mode": mode,
        "limit": limit,
        "max_server_connections": int(held.max()) if len(held) else None,
        "max_wait_s": max(waits, default=None),
        "new_connections": new,
    }
    if steady is None:
        return Pool(**fields, why="the run has no steady state")

    def grown(metric: str) -> float | None:
        values = [increase(s.within(*steady)) for s in _labelled(metrics.find(metric, name))]
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    def mean(metric: str) -> float | None:
        return weighted_mean(*total([s.within(*steady) for s in _labelled(metrics.find(metric, name))]))

    assigned, in_xact, in_query, waited = (
        grown(m) for m in ("pgb_assignment", "pgb_xact_time", "pgb_query_time", "pgb_wait_time")
    )
    servers, clients = mean("pgb_sv_total"), mean("pgb_cl_active")
    seconds = _span(_labelled(metrics.find("pgb_xact_time", name)), steady)
    why = []
    fields["assignments"] = None if assigned is None else int(assigned)
    if assigned is None:
        why.append("server assignments were not recorded")
    elif new is None:
        why.append("the pooler's log shows no connection at all (is log_connections on?)")
    elif untrusted:
        why.append(untrusted)
    elif assigned < LEAST_ASSIGNMENTS:
        why.append(
            f"only {assigned:.0f} server assignments in the steady state, {LEAST_ASSIGNMENTS} are needed"
        )
    else:
        fields["efficiency"] = 100 * (1 - new / assigned)
    if limit:
        used = [_used(name, metrics, described, side, steady, seconds) for side in _sides(described)]
        known = [share for share in used if share is not None]
        fields["utilisation"] = 100 * max(known) if known else None
    if assigned and waited is not None:
        fields["wait_ms"] = 1000 * waited / assigned
    if in_xact and in_query is not None and in_xact > (waited or 0.0):
        fields["sql_share"] = 100 * max(in_query - (waited or 0.0), 0.0) / (in_xact - (waited or 0.0))
    if servers and clients is not None:
        fields["multiplexing"] = clients / servers
    return Pool(**fields, why="; ".join(why))


def is_reader(label: str | None) -> bool:
    """Whether a label of a pooler's metrics (``risk_ro/app_readonly``) is of the readers' database."""
    return (label or "").partition("/")[0].endswith("_ro")


Side = tuple[int, bool | None]
"""(server connections at most, whether it is the readers'; None: everybody's)."""


def _sides(described: Mapping[str, Any]) -> list[Side]:
    limit, share = int(described["max_server_connections"]), described.get("writer_share")
    if share is None or limit < 2:
        return [(limit, None)]
    writer, reader = split_limit(limit, float(share))
    return [(writer, False), (reader, True)]


def _used(
    name: str,
    metrics: Metrics,
    described: Mapping[str, Any],
    side: Side,
    steady: tuple[int, int],
    seconds: float,
) -> float | None:
    """Share of a side's connections in use; None: not sampled."""
    size, readers = side

    def mine(metric: str) -> list[Series]:
        found = _labelled(metrics.find(metric, name))
        return [s.within(*steady) for s in found if readers is None or is_reader(s.label) == readers]

    if described.get("mode") == "session":
        active = weighted_mean(*total(mine("pgb_sv_active")))
        return None if active is None else active / size
    grown = [g for s in mine("pgb_xact_time") if (g := increase(s)) is not None]
    waited = sum(increase(s) or 0.0 for s in mine("pgb_wait_time"))
    return max(sum(grown) - waited, 0.0) / (seconds * size) if grown and seconds else None


def _labelled(series: Sequence[Series]) -> list[Series]:
    """Without PgBouncer's own console."""
    return [one for one in series if (one.label or "").split("/")[0] != "pgbouncer"]


def _span(series: Sequence[Series], steady: tuple[int, int]) -> float:
    spans = [(inside.t[-1] - inside.t[0]) / NS for s in series if len((inside := s.within(*steady)).t) > 1]
    return float(max(spans, default=0.0))
