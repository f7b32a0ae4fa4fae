"""The model's parameters from a run record.

From a capacity run: the steps up to half of the knee (at least two). From any other record: its steady state.
Taken are

- *service times*: done − started of every answered request, by name and endpoint; the samples
  themselves. From the least rates that give 1,000 of them: at greater ones they hold queueing, which the
  model would add once more.
- *held*: server connections in use (Δtotal_xact_time ÷ Δt; session pooling: sv_active) of a pooler's database
  ÷ throughput of its endpoint ÷ the mean service time there: how long a request holds one. By Little's law,
  so that requests which the cache answered, or that are several transactions, count as what they are.
  *queried*: Δtotal_query_time ÷ Δtotal_xact_time.
- *CPU* of a request at the primary (writes) and at the nodes that serve reads: the slope of the nodes' cores
  over the throughput of every good step, so that what they use when idle is not charged to requests; with
  one window: cores ÷ throughput. By the utilisation law U = X·D (Denning and Buzen, 1978), which holds
  however long the queues are.
- *machine*: cores of the machine less what runs beside the lab, or what the lab was seen to use at the most,
  whichever is more, less what its nodes use when idle; the demand there is the slope of all nodes' cores over
  throughput less that of the databases.
- *connection cost*: median response of the probe's writes that opened a session for themselves less that of
  writes on lasting sessions, where the record has both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab.errors import RecordError
from lab.experiment.step import COLUMNS, measure
from lab.record.reader import RecordReader
from lab.record.schema import NS
from lab.topology.models import Acu, DatabaseNode
from lab.topology.sizing import size_of
from loadtests.format import whole
from reports.analysis.columns import integers, text
from reports.analysis.metrics import Metrics
from reports.analysis.source import Source
from reports.capacity.machine import shared_cores, sharing
from reports.capacity.nodes import database_nodes, primary_of, readers_of
from reports.capacity.pools import Database, all_databases, databases, endpoints_of
from reports.capacity.steps import Step, background_of, between, read_run
from reports.capacity.system import FOREVER, Demand, Pool, System

LEAST_SAMPLES = 20
SAMPLES = 1000
SHARE_OF_KNEE = 0.5
BUSY_BESIDE = 0.2
"""Cores used by something else from which on the machine was not the lab's alone."""


@dataclass(frozen=True)
class Calibration:
    """What the model knows, and from what."""

    demands: tuple[Demand, ...]
    system: System
    """As the lab ran: its limits, its one machine."""
    classes: dict[str, str]
    """``primary`` and ``replica`` → instance class of the topology; ``standbys`` → how many."""
    vcpu: dict[str, float]
    """``primary`` and ``replica`` → vCPU of that class at full size."""
    cache_hit: float
    """Hits of the record's own cache: they are in the service times already. 0 where it has none."""
    acu: Acu | None
    """Least and largest capacity of a serverless primary."""
    rates: tuple[float, ...]
    """Offered rates of the steps that it is from."""
    most: float
    """The greatest offered rate of the record."""
    connect_s: float | None
    """Cost of one connection; None: the record does not tell."""
    notes: tuple[str, ...]
    run: str
    pace: float | None = None
    """Of the machine in those steps (``Step.pace``)."""
    memory_gib: float = 0.0
    """That the lab's primary had, in which the working set was; 0: not limited."""


def calibrate(record: RecordReader) -> Calibration:
    """RecordError where the record holds too little."""
    steps, working, measured = _windows(record)
    topology = Source(record).yaml("topology.yaml")
    endpoints = _endpoints(steps)
    notes: list[str] = []
    used = databases(topology, endpoints)
    writer_x, reader_x = _rates(working, True), _rates(working, False)
    nodes = database_nodes(topology)
    primary = [primary_of(nodes).name]
    readers = [node.name for node in readers_of(nodes)] if reader_x.any() else []
    cpu_write, idle_primary = _slope(writer_x if readers else writer_x + reader_x, _cores(working, primary))
    cpu_read, idle_readers = _slope(reader_x, _cores(working, readers)) if readers else (cpu_write, 0.0)
    own = dict.fromkeys((*primary, *readers))
    everything = steps[0].metrics.nodes("cpu_seconds")
    together = sharing(topology, everything)
    rest = [node for node in together if node not in own]
    machine_cpu, idle_rest = _slope(writer_x + reader_x, _cores(working, rest))
    idle = idle_primary + idle_readers + idle_rest
    limit = record.manifest.resources
    names = list(dict.fromkeys(one.node for one in used))
    pools = [_pool(topology, name) for name in names]
    if any(all(one.endpoint != endpoint for one in used) for endpoint in endpoints):
        pools.append(DIRECT)
    background = background_of(record)
    demands = _demands(steps, used, names, background, cpu_write, cpu_read, notes)
    system = System(
        instances=int(topology.get("instances") or 20),
        pool=pools[0],
        more=tuple(pools[1:]),
        primary=_limit(limit, primary, record),
        replicas=tuple(_limit(limit, [node], record) for node in readers),
        machine=_machine(topology, steps, measured, together, idle),
        machine_cpu=machine_cpu,
    )
    asked = (record.manifest.load or {}).get("users")
    if asked:
        system = System(**{**vars(system), "instances": int(asked)})
    paces = [step.pace for step in _quietest(steps) if step.pace]
    foreign = beside(steps, everything)
    if foreign > BUSY_BESIDE:
        notes.append(f"Something else used {foreign:.1f} cores of the machine: service times are too long.")
    if len(steps) < 2:
        notes.append("One load only: what the nodes use when idle is charged to requests.")
    return Calibration(
        demands=demands,
        system=system,
        classes=_classes(nodes),
        vcpu=_vcpu(nodes),
        cache_hit=_hits(_quietest(steps)),
        acu=primary_of(nodes).acu,
        rates=tuple(sorted({step.rate for step in steps if step.rate})),
        most=max(step.rate or 0.0 for step in measured),
        connect_s=_connect(record),
        notes=tuple(notes),
        run=record.manifest.run,
        pace=float(np.mean(paces)) if paces else None,
        memory_gib=float((limit.get(primary[0]) or {}).get("memory_bytes") or 0.0) / 2**30,
    )


def _windows(record: RecordReader) -> tuple[list[Step], list[Step], list[Step]]:
    """(steps of little load, for service times; those that kept the objective, for demands; every step)."""
    if record.manifest.scenario == "capacity":
        run = read_run(record)
        good, bad = run.knee
        ceiling = (good or bad or 0) * SHARE_OF_KNEE
        fit = [s for s in run.open if s.good]
        if not fit:
            raise RecordError(
                f"{record.path}: no step kept the objective, so that nothing shows service alone"
            )
        chosen = [s for s in fit if (s.rate or 0) <= ceiling]
        return (chosen if len({s.rate for s in chosen}) >= 2 else fit[:2]), fit, list(run.steps)
    source = Source(record)
    if not source.steady:
        raise RecordError(
            f"{record.path} has no steady state to calibrate from", hint="`lab capacity` makes one."
        )
    begin, end = max(source.steady, key=lambda span: span[1] - span[0])
    rows = between(whole(record.table("requests", COLUMNS)), begin, end)
    figures = measure(rows)
    if figures is None:
        raise RecordError(f"{record.path} holds no requests of a load in its steady state")
    metrics = Metrics(record)
    rows = between(rows, figures.begin, figures.end + 1)
    step = Step(
        record, metrics, 1, "open", figures.offered, None, 1, (end - begin) / 1e9, figures, True, (), None,
        (begin, end), rows,
    )  # fmt: skip
    return [step], [step], [step]


def _is_writer(endpoint: str) -> bool:
    return not endpoint.endswith((".reader", ".read"))


def _ok(table: pa.Table) -> tuple[Any, Any, Any]:
    """(service seconds, name, endpoint) of the answered requests."""
    ok = pc.and_kleene(
        pc.equal(table["outcome"].cast(pa.string()), "ok"),
        pc.and_kleene(pc.is_valid(table["started"]), pc.is_valid(table["done"])),
    )
    rows = table.filter(pc.fill_null(ok, False))
    service = (integers(rows["done"]) - integers(rows["started"])) / 1e9
    return service, text(rows["name"]), text(rows["endpoint"])


def _endpoints(steps: Sequence[Step]) -> list[str]:
    return sorted({endpoint for step in steps for endpoint in endpoints_of(step.requests)})


def _rates(steps: Sequence[Step], writes: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = []
    for step in steps:
        _, _, endpoint = _ok(step.requests)
        mine = np.asarray([_is_writer(word) == writes for word in endpoint.words] or [False])
        count = int(mine[endpoint.codes].sum()) if len(endpoint.codes) else 0
        found.append(count / max((step.window[1] - step.window[0]) / 1e9, 1e-9))
    return np.asarray(found)


def _cores(steps: Sequence[Step], nodes: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(
        [sum(step.per_second("cpu_seconds", node) or 0.0 for node in nodes) for step in steps],
        dtype=np.float64,
    )


def _slope(x: np.ndarray[Any, Any], cores: np.ndarray[Any, Any]) -> tuple[float, float]:
    """(CPU seconds a request, cores when idle), neither below 0."""
    if not x.any():
        return 0.0, float(cores.mean()) if len(cores) else 0.0
    if len(np.unique(x)) >= 2:
        slope, base = np.polyfit(x, cores, 1)
        if slope > 0 and base >= 0:
            return float(slope), float(base)
    # The least-squares line through the origin.
    return max(0.0, float((x * cores).sum() / (x * x).sum())), 0.0


def _classes(nodes: Sequence[DatabaseNode]) -> dict[str, str]:
    found = {"primary": primary_of(nodes).instance_class}
    if readers := readers_of(nodes):
        found["replica"] = readers[0].instance_class
    return {**found, "standbys": str(sum(node.role == "standby" for node in nodes))}


def _vcpu(nodes: Sequence[DatabaseNode]) -> dict[str, float]:
    found = {"primary": size_of(primary_of(nodes)).vcpu}
    if readers := readers_of(nodes):
        found["replica"] = size_of(readers[0]).vcpu
    return found


def _hits(steps: Sequence[Step]) -> float:
    found = [(step.per_second("redis_hits"), step.per_second("redis_misses")) for step in steps]
    hits = sum(h for h, _ in found if h is not None)
    asked = hits + sum(m for _, m in found if m is not None)
    return hits / asked if asked else 0.0


DIRECT = Pool("session", 10_000, 10_000, direct=True)


def _pool(topology: dict[str, Any], node: str) -> Pool:
    """Both sides of a pooler."""
    writer, reader = sorted(
        (one for one in all_databases(topology) if one.node == node), key=lambda one: not one.writes
    )
    return Pool(writer.mode, writer.size, reader.size, writer.wait_timeout)  # type: ignore[arg-type]


def _limit(resources: dict[str, Any], nodes: Sequence[str], record: RecordReader) -> float:
    found = [
        float(of["cpus"]) for node in nodes if isinstance(of := resources.get(node), dict) and of.get("cpus")
    ]
    return found[0] if found else float(record.manifest.machine.get("cores") or 1)


def _machine(
    topology: dict[str, Any],
    steps: Sequence[Step],
    measured: Sequence[Step],
    nodes: Sequence[str],
    idle: float,
) -> float:
    """Cores that these nodes share, less the ``idle`` that they use when nobody asks them for anything."""
    cores = steps[0].most("machine_cores") or float(steps[0].record.manifest.machine.get("cores") or 0)
    if not cores:
        return FOREVER
    cores = shared_cores(topology, cores)
    left = cores - beside(steps, steps[0].metrics.nodes("cpu_seconds"))
    return float(min(cores, max(left, float(_cores(measured, nodes).max())))) - idle


def beside(steps: Sequence[Step], nodes: Sequence[str]) -> float:
    """Cores that something else than the lab's nodes used on the machine, mean over the steps."""
    busy = [step.per_second("machine_cpu_seconds") for step in steps]
    more = [b - o for b, o in zip(busy, _cores(steps, nodes), strict=True) if b is not None]
    return max(0.0, float(np.mean(more))) if more else 0.0


def _demands(
    steps: Sequence[Step],
    used: Sequence[Database],
    poolers: Sequence[str],
    background: Collection[str],
    write: float,
    read: float,
    notes: list[str],
) -> tuple[Demand, ...]:
    """One class for each name and endpoint. ``write``, ``read``: CPU seconds of a database node a request."""
    counts, samples = _samples(steps)
    few = sorted(f"{name} ({len(v)})" for (name, _), v in samples.items() if len(v) < LEAST_SAMPLES)
    if few:
        notes.append(f"Fewer than {LEAST_SAMPLES} service times of {', '.join(few)}.")
    count = sum(counts.values())
    if not count:
        raise RecordError("the record holds no answered request to calibrate from")
    at = {one.endpoint: one for one in used}
    mean = {side: _weighted(samples, counts, side) for side in (True, False)}
    found = []
    for (name, place), values in sorted(
        samples.items(), key=lambda item: (not _is_writer(item[0][1]), item[0])
    ):
        writes, pool = _is_writer(place), at.get(place)
        held, queried, fresh = _held(_quietest(steps), pool) if pool else (1.0, 1.0, True)
        found.append(
            Demand(
                name,
                counts[name, place] / count,
                writes,
                values,
                held,
                queried,
                cpu=min(held, (write if writes else read) / mean[writes]),
                cacheable=not writes and name not in background,
                pooler=poolers.index(pool.node) if pool else len(poolers),
                fresh=fresh,
                background=name in background,
            )
        )
    return tuple(found)


def _samples(steps: Sequence[Step]) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], Any]]:
    """(how often each name and endpoint was answered, its service times at the least rates with enough)"""
    quiet = _quietest(steps)
    counts: dict[tuple[str, str], int] = {}
    parts: dict[tuple[str, str], list[Any]] = {}
    for step in sorted(steps, key=lambda s: s.rate or 0.0):
        service, name, endpoint = _ok(step.requests)
        for n, word in enumerate(name.words):
            for e, place in enumerate(endpoint.words):
                rows = (name.codes == n) & (endpoint.codes == e)
                if not rows.any():
                    continue
                key = (word, place)
                counts[key] = counts.get(key, 0) + int(rows.sum())
                known = parts.setdefault(key, [])
                # A rare class, such as a report, is looked for at greater rates too.
                if any(step is one for one in quiet) or sum(map(len, known)) < LEAST_SAMPLES:
                    known.append(service[rows])
    return counts, {key: np.concatenate(known) for key, known in parts.items()}


def _weighted(
    samples: Mapping[tuple[str, str], Any], counts: Mapping[tuple[str, str], int], writes: bool
) -> float:
    """Mean service time of one side, seconds."""
    mine = [key for key in samples if _is_writer(key[1]) == writes]
    total = sum(counts[key] for key in mine)
    return sum(counts[key] * float(samples[key].mean()) for key in mine) / total if total else 1.0


def _quietest(steps: Sequence[Step]) -> list[Step]:
    """Steps of the least rates that have ``SAMPLES`` requests together."""
    chosen: list[Step] = []
    for step in sorted(steps, key=lambda s: s.rate or 0.0):
        known = sum(one.requests.num_rows for one in chosen)
        if known >= SAMPLES and step.rate != chosen[-1].rate:
            break
        chosen.append(step)
    return chosen


def _held(steps: Sequence[Step], pool: Database) -> tuple[float, float, bool]:
    """(share of the service time that holds a connection, queried of it, sessions of their own) at a pool.

    Shares are 1 where nobody counted.
    """
    count = seconds = in_use = assigned = 0.0
    sums = dict.fromkeys(("pgb_xact_time", "pgb_query_time"), 0.0)
    for step in steps:
        share = pool.used(step)
        if share is None:
            continue
        length = (step.window[1] - step.window[0]) / NS
        in_use += share * pool.size * length
        service, _, endpoint = _ok(step.requests)
        mine = np.asarray([word == pool.endpoint for word in endpoint.words] or [False])
        seconds += float(service[mine[endpoint.codes]].sum()) if len(service) else 0.0
        count += int(
            pc.sum(pc.equal(step.requests["endpoint"].cast(pa.string()), pool.endpoint)).as_py() or 0
        )
        assigned += pool.growth(step, "pgb_assignment") or 0.0
        for metric in sums:
            sums[metric] += pool.growth(step, metric) or 0.0
    fresh = pool.mode == "session" and assigned > count / 2
    if not seconds or not in_use:
        return 1.0, 1.0, fresh
    held = 1.0 if pool.mode == "session" and not fresh else in_use / seconds
    queried = sums["pgb_query_time"] / sums["pgb_xact_time"] if sums["pgb_xact_time"] else 1.0
    return min(1.0, max(0.01, held)), min(1.0, queried), fresh


def _connect(record: RecordReader) -> float | None:
    writes = record.table("writes", ["fresh", "sent", "done", "outcome"])
    if not writes.num_rows:
        return None
    ok = writes.filter(pc.fill_null(pc.equal(writes["outcome"].cast(pa.string()), "acknowledged"), False))
    medians = []
    for fresh in (True, False):
        rows = ok.filter(pc.fill_null(pc.equal(ok["fresh"], fresh), False))
        if rows.num_rows < LEAST_SAMPLES:
            return None
        medians.append(float(np.median((integers(rows["done"]) - integers(rows["sent"])) / 1e9)))
    return max(0.0, medians[0] - medians[1])
