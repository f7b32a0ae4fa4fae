"""A capacity run whose truth is known: the simulator plays the lab, and writes what a lab would record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import yaml

from lab.experiment.slo import parse_slo
from lab.experiment.step import COLUMNS, faults, measure
from lab.record.reader import RecordReader
from lab.record.schema import NS
from lab.record.writer import RecordWriter
from reports.capacity.simulator import DROPPED, OK, Outcome, simulate
from reports.capacity.system import Demand, Pool, System, Traffic

SLO = "p99<600ms, errors<1%"
RATES = (20.0, 40.0, 60.0, 90.0, 120.0, 145.0, 175.0)
LEVELS = (1, 2, 3, 4, 6, 8)
TRUTH = System(instances=60, pool=Pool("transaction", 60, 40), primary=1.0, replicas=(0.5, 0.5))
TOPOLOGY: dict[str, Any] = {
    "name": "risk-prod",
    "title": "Known by construction",
    "instances": 60,
    "postgres": {
        "nodes": [
            {"name": "pg1", "role": "primary", "instance_class": "db.r5.xlarge"},
            {"name": "pg2", "role": "standby", "instance_class": "db.r5.xlarge"},
            {"name": "pg3", "role": "replica", "instance_class": "db.r5.large"},
            {"name": "pg4", "role": "replica", "instance_class": "db.r5.large"},
        ]
    },
    "poolers": [{"name": "pool", "mode": "transaction", "max_server_connections": 100, "writer_share": 0.6}],
    "clients": [{"name": "client"}],
}
IDLE = 0.03
"""Cores that a database node uses when nobody asks it for anything."""


def demands() -> tuple[Demand, ...]:
    """Writes of 30 ms, half of it CPU; reads of 25 ms, 7.5 ms of it CPU, for which half a core takes 15.

    Four of five requests are reads: the replicas' one core together carries 1/0.006 = 167/s.
    """
    rng = np.random.default_rng(3)
    return (
        Demand("POST /trades", 0.2, True, rng.exponential(0.030, 4000), held=0.8, queried=0.9, cpu=0.5),
        Demand("GET /trades", 0.8, False, rng.exponential(0.025, 4000), held=0.7, cpu=0.3, cacheable=True),
    )


def capacity_record(
    folder: Path,
    truth: System = TRUTH,
    *,
    rates: tuple[float, ...] = RATES,
    machine: float = 0.5,
    pace: float = 0.0,
) -> Path:
    """Write the record; its path.

    Args:
        machine: share of 8 cores that the host is told to use beside.
        pace: samples per second of a collector's CPU; 0: it was not measured.
    """
    topology = json.loads(json.dumps(TOPOLOGY))
    topology["poolers"][0]["max_server_connections"] = truth.pool.writer + truth.pool.reader
    writer = RecordWriter.create(
        folder, "capacity", topology="risk-prod", lab="x", seed=1, trials_asked=0, scale=0.25,
        load={"slo": SLO, "workload": "risk-api", "users": truth.instances, "workers": 1, "now": 60.0},
        machine={"cores": 8, "cpu_model": "a test's"},
        resources={"pg1": {"cpus": truth.primary}, "pg3": {"cpus": truth.replicas[0]},
                   "pg4": {"cpus": truth.replicas[1]}},
    )  # fmt: skip
    writer.put("topology.yaml", yaml.safe_dump(topology))
    slo, clock = parse_slo(SLO), 5 * NS
    totals: dict[tuple[str, str, str | None], float] = {}
    steps: list[tuple[float | None, int | None]] = [*((r, None) for r in rates), *((None, n) for n in LEVELS)]
    for number, (rate, users) in enumerate(steps, 1):
        count = 2500 if rate else 600
        traffic = Traffic(demands(), count, rate, seed=10 + number)
        system = truth if users is None else System(**{**vars(truth), "instances": users})
        found = simulate(system, traffic)
        begin = clock
        _requests(writer, found, begin)
        seconds = float(np.nanmax(found.arrived))
        clock = begin + round((float(np.nanmax(np.where(np.isfinite(found.done), found.done, 0))) + 1) * NS)
        _metrics(writer, found, begin, seconds, totals, machine, pace)
        rows = RecordReader(writer.path).table("requests", COLUMNS, filters=pc.field("intended") >= begin)
        figures = measure(rows, seconds)
        why = faults(figures, slo, 1.0) if users is None else []
        result = {"step": figures.as_json() if figures else None, "good": not why, "why": why,
                  "load": {"lag_ms": {"p99": 1.0}}}  # fmt: skip
        asked = {"loop": "open" if rate else "closed", "rate": rate, "users": users, "seconds": seconds}
        writer.rows(
            "cells",
            [{"cell": number, "name": str(rate or users), "repeat": 1, "begin": begin, "end": clock,
              "parameters": json.dumps(asked), "result": json.dumps(result)}],
        )  # fmt: skip
        clock += 2 * NS
    writer.event("run-start", 5 * NS)
    writer.event("run-end", clock)
    writer.close()
    return writer.path


def _requests(writer: RecordWriter, found: Outcome, begin: int) -> None:
    def at(seconds: float) -> int | None:
        return begin + round(seconds * NS) if np.isfinite(seconds) else None

    names = [d.name for d in demands()]
    rows = []
    for i in range(len(found.state)):
        state = found.state[i]
        rows.append(
            {
                "intended": at(found.arrived[i]),
                "started": at(found.started[i]) if state != DROPPED else None,
                "done": at(found.done[i]),
                "name": names[found.kind[i]],
                "endpoint": "pool.writer" if found.kind[i] == 0 else "pool.reader",
                "outcome": "ok" if state == OK else "dropped" if state == DROPPED else "08006",
                "worker": 0,
            }
        )
    writer.rows("requests", rows)


def _metrics(
    writer: RecordWriter,
    found: Outcome,
    begin: int,
    seconds: float,
    totals: dict[Any, float],
    machine: float,
    pace: float,
) -> None:
    ran = np.isfinite(found.granted)
    ends = np.sort(found.released[ran])
    order = np.argsort(found.released[ran], kind="stable")
    held = (found.released - found.granted)[ran][order]
    wait = (found.granted - found.started)[ran][order]
    cpu, node, pool = found.cpu[ran][order], found.node[ran][order], found.pool[ran][order]
    queried = np.where(pool == 0, 0.9, 1.0)
    gained: dict[tuple[str, str, str | None], np.ndarray] = {}
    for number, name in enumerate(("pg1", "pg3", "pg4")):
        gained[(name, "cpu_seconds", None)] = np.where(node == number, cpu, 0.0)
    gained[("client", "cpu_seconds", None)] = np.full(len(cpu), 0.0005)
    for number, label in enumerate(("risk", "risk_ro")):
        mine = pool == number
        gained[("pool", "pgb_xact", label)] = mine.astype(float)
        gained[("pool", "pgb_assignment", label)] = mine.astype(float)
        # As PgBouncer counts: both clocks run while the client waits for a connection.
        gained[("pool", "pgb_xact_time", label)] = np.where(mine, held + wait, 0.0)
        gained[("pool", "pgb_query_time", label)] = np.where(mine, held * queried + wait, 0.0)
        gained[("pool", "pgb_wait_time", label)] = np.where(mine, wait, 0.0)
    moments = np.arange(0.0, seconds + 1.0, 1.0)
    rows = []
    for (name, metric, label), values in gained.items():
        grown = np.concatenate([[0.0], np.cumsum(values)])[np.searchsorted(ends, moments, side="right")]
        if metric == "cpu_seconds" and name != "client":
            grown = grown + IDLE * moments
        base = totals.get((name, metric, label), 0.0)
        for moment, value in zip(moments, grown, strict=True):
            rows.append({"t": begin + round(moment * NS), "node": name, "metric": metric, "label": label,
                         "value": base + float(value)})  # fmt: skip
        totals[(name, metric, label)] = base + float(grown[-1])
    if pace:
        rows += [
            {"t": begin + round(moment * NS), "node": name, "metric": "collector_cpu_seconds", "label": None,
             "value": (begin / NS + moment) / pace}
            for name in ("pg1", "client") for moment in moments
        ]  # fmt: skip
    busy = totals.get(("observer", "machine", None), 0.0)
    for moment in moments:
        t = begin + round(moment * NS)
        rows += [
            {"t": t, "node": "observer", "metric": "machine_cores", "label": None, "value": 8.0},
            {"t": t, "node": "observer", "metric": "machine_cpu_seconds", "label": None,
             "value": busy + machine * 8 * moment},
            {"t": t, "node": "pg1", "metric": "pg_max_connections", "label": None, "value": 200.0},
            {"t": t, "node": "pg1", "metric": "pg_connections", "label": "active", "value": 20.0},
            {"t": t, "node": "pg1", "metric": "pg_active", "label": "CPU", "value": 1.0},
        ]  # fmt: skip
    totals[("observer", "machine", None)] = busy + machine * 8 * float(moments[-1])
    writer.rows("metrics", rows)
