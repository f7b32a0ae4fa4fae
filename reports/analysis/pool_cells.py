"""One cell of the experiment ``pooling`` as figures.

Load in the cells is *closed loop*: every client sends its next transaction when the last one is answered.
So a slow answer delays what comes after it, and percentiles are those of the service time, with coordinated
omission; means and rates are what is compared.

- *window*: from a fifth of the way between the first and the last start to the last start: everybody is
  there, nobody has left.
- *rate* = completions in the window ÷ its length; *service time* = done − started, of those completions.
  With a connection per request it holds connecting and closing.
- *Little's law* (``little.py``): the generator's own count of requests under way against the record of
  requests. Off by more than 5 %, or without a count, the cell is invalid. In a closed loop the count must
  also be the number of clients: fewer by more than 5 % (or half a client), and the load was another.
- *generator*: CPU time of its process ÷ time. Above 80 % of its core the generator is what limits: the cell
  is within a fifth of what it could do at most.
- *efficiency* = 1 − new server connections ÷ assignments, from the pooler's counts before and after the
  cell, from 100 assignments on. *utilisation* = (Δtotal_xact_time − Δtotal_wait_time) ÷ (Δt · pool size);
  session pooling: time-weighted sv_active ÷ pool size. *wait* = Δtotal_wait_time ÷ Δassignments.
  *multiplexing* = clients ÷ open server connections.
- *CPU*: growth of each node's CPU time over the window ÷ transactions; the client's by its own account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis.clock import engine_offset
from reports.analysis.columns import Ints
from reports.analysis.latency import rank
from reports.analysis.little import law, residence, under_way
from reports.analysis.metrics import Metrics, Series, total, weighted_mean
from reports.analysis.model import Little
from reports.analysis.pooling import LEAST_ASSIGNMENTS, logs_connections, new_connections

FEWER = 0.05
"""Share of the clients (half a client at least) that may be without a request on average."""
GENERATOR_LIMIT = 0.8
WARM = 0.2
"""Of the time between the first and the last start that is left out at the beginning."""
LEAST_REQUESTS = 50
NODES = ("client", "pooler", "router", "database")


@dataclass(frozen=True)
class Figures:
    """A cell; times in ms. None: not known."""

    name: str
    repeat: int
    parameters: dict[str, Any]
    requests: int = 0
    failed: int = 0
    per_s: float = 0.0
    mean_ms: float = 0.0
    percentiles: dict[str, float] = field(default_factory=dict)
    little_percent: float | None = None
    """By how much rate · time differs from the requests under way."""
    generator: float | None = None
    """CPU of the generator's process ÷ time."""
    efficiency: float | None = None
    new_connections: int | None = None
    assignments: int | None = None
    utilisation: float | None = None
    wait_ms: float | None = None
    multiplexing: float | None = None
    counted: tuple[int, int] | None = None
    """Transactions by the clients, and by the pooler; where the two can be compared."""
    cpu_ms: dict[str, float] = field(default_factory=dict)
    """Node (see NODES) → CPU time a transaction."""
    invalid: tuple[str, ...] = ()
    """Why it must not be compared."""
    not_run: str = ""

    @property
    def limited(self) -> bool:
        """Whether the generator was within a fifth of what it can do."""
        return self.generator is not None and self.generator > GENERATOR_LIMIT


def cells(record: RecordReader) -> list[Figures]:
    """Every cell with a load, in the order in which they ran."""
    found = record.cells()
    metrics = Metrics(record)
    requests = record.table("requests", ["started", "done", "outcome"])
    started = np.asarray(pc.fill_null(requests["started"], -1))
    done = np.asarray(pc.fill_null(requests["done"], -1))
    ok = np.asarray(pc.equal(requests["outcome"].cast("string"), "ok"))
    order = np.argsort(started, kind="stable")
    started, done, ok = started[order], done[order], ok[order]
    offset = engine_offset(record.manifest)
    primary = _primary(metrics)
    result = []
    for cell in found:
        if "workload" not in cell["parameters"]:
            continue
        low, high = np.searchsorted(started, [cell["begin"], cell["end"]])
        own = (started[low:high], done[low:high], ok[low:high])
        result.append(_figures(cell, own, metrics, record.logs, offset, primary))
    return result


def _figures(
    cell: dict[str, Any],
    own: tuple[Any, Any, Any],
    metrics: Metrics,
    logs: dict[str, str],
    offset: int | None,
    primary: str | None,
) -> Figures:
    given, said = cell["parameters"], cell["result"]
    head = {"name": cell["name"], "repeat": cell["repeat"], "parameters": given}
    if said.get("not_run"):
        return Figures(**head, not_run=said["not_run"])
    started, done, ok = own
    if len(started) < LEAST_REQUESTS:
        return Figures(**head, requests=len(started), invalid=(f"only {len(started)} requests",))
    first, last = int(started[0]), int(started[-1])
    window = (first + round(WARM * (last - first)), last)
    inside = (done >= window[0]) & (done < window[1])
    service = (done - started)[inside & ok] / 1e6
    seconds = (window[1] - window[0]) / NS
    if not len(service):
        return Figures(**head, requests=len(started), invalid=("nothing was answered in the window",))
    per_s, mean = len(service) / seconds, float(service.mean())
    failed = int((~ok).sum())
    held = _law(metrics, started, done, window)
    load = said.get("load", {})
    generator = load["cpu_seconds"] / load["seconds"] if load.get("seconds") else None
    wrong = []
    if held is None:
        wrong.append("the generator did not count what was under way")
    elif not held.holds:
        wrong.append(f"Little's law is off by {100 * held.off:.1f} %")
    elif held.in_flight < given["clients"] - max(0.5, FEWER * given["clients"]):
        wrong.append(f"{held.in_flight:.1f} requests were under way, not {given['clients']}")
    if failed > 0.01 * len(started):
        wrong.append(f"{failed} of {len(started)} requests failed")
    ordered = np.sort(service)
    pooler = _pooler(cell, metrics, logs, offset, len(started), failed, window)
    return Figures(
        **head,
        requests=len(started),
        failed=failed,
        per_s=per_s,
        mean_ms=mean,
        percentiles={
            f"p{100 * q:g}": float(ordered[at])
            for q in (0.5, 0.95, 0.99)
            if (at := rank(q, len(ordered))) is not None
        },
        little_percent=100 * held.off if held else None,
        generator=generator,
        cpu_ms=_cpu(metrics, given.get("pooler"), primary, window, seconds * per_s, load),
        invalid=tuple(wrong),
        **pooler,
    )


def _law(metrics: Metrics, started: Ints, done: Ints, window: tuple[int, int]) -> Little | None:
    """A cell's load is one process. None where it was not counted, or ended too few requests."""
    counted = under_way(metrics.find("load_in_flight_seconds"), *window)
    if counted is None:
        return None
    begin, end, area = counted
    ended, spent = residence(started, done, begin, end)
    seconds = (end - begin) / NS
    return law(area / seconds, ended / seconds, spent / ended) if ended else None


def _pooler(
    cell: dict[str, Any],
    metrics: Metrics,
    logs: dict[str, str],
    offset: int | None,
    requests: int,
    failed: int,
    window: tuple[int, int],
) -> dict[str, Any]:
    given, said = cell["parameters"], cell["result"]
    grown, node = said.get("pooler"), given.get("pooler")
    if not grown:
        return {}
    assigned = grown.get("total_server_assignment_count", grown["total_xact_count"])
    new = said.get("new_connections")
    if new is None and offset is not None and logs_connections(logs.get(node, "")):
        new = new_connections(logs[node], offset, cell["begin"], cell["end"])
    load = said.get("load", {})
    seconds = float(load.get("seconds") or 0)
    held = max(grown["total_xact_time"] - grown["total_wait_time"], 0) / 1e6
    found: dict[str, Any] = {
        "assignments": int(assigned),
        "new_connections": new,
        "efficiency": 100 * (1 - new / assigned)
        if new is not None and assigned >= LEAST_ASSIGNMENTS
        else None,
        "wait_ms": grown["total_wait_time"] / 1e3 / assigned if assigned else None,
        "utilisation": 100 * held / (seconds * given["room"]) if seconds else None,
    }
    if given["authentication"] == "stored secrets":
        # The lab's own poolers only: nobody samples a further one.
        clients = weighted_mean(*total(_of(metrics.find("pgb_cl_active", node), window)))
        servers = weighted_mean(*total(_of(metrics.find("pgb_sv_total", node), window)))
        active = weighted_mean(*total(_of(metrics.find("pgb_sv_active", node), window)))
        found["multiplexing"] = given["clients"] / servers if clients is not None and servers else None
        if given["path"] == "session" and active is not None:
            found["utilisation"] = 100 * active / given["room"]
    # A statement that is prepared is one more transaction to the pooler: only without are they the same.
    plain = not given["prepared"] or given["connections"] == "per-request"
    if plain and not failed and given["workload"] == "limit-check":
        found["counted"] = (requests + int(load.get("setup_statements", 0)), int(grown["total_xact_count"]))
    return found


def _of(series: Sequence[Series], window: tuple[int, int]) -> list[Series]:
    return [one.within(*window) for one in series if not (one.label or "").startswith("pgbouncer/")]


def _primary(metrics: Metrics) -> str | None:
    """The node that led for most of the run."""
    means = {
        node: float(series.value.mean())
        for node in metrics.nodes("patroni_is_primary")
        if (series := metrics.one("patroni_is_primary", node)) is not None and len(series.value)
    }
    return max(means, key=lambda node: means[node]) if means else None


def _cpu(
    metrics: Metrics,
    pooler: str | None,
    primary: str | None,
    window: tuple[int, int],
    transactions: float,
    load: dict[str, Any],
) -> dict[str, float]:
    found = {}
    if load.get("cpu_us_per_request"):
        found["client"] = load["cpu_us_per_request"] / 1e3
    for kind, node in (("pooler", pooler), ("router", "router"), ("database", primary)):
        series = metrics.one("cpu_seconds", node) if node else None
        if series is None or len(series.t) < 2 or series.t[0] > window[0] or series.t[-1] < window[1]:
            continue
        low, high = np.interp(window, series.t, series.value)
        found[kind] = 1000 * float(high - low) / transactions
    return found
