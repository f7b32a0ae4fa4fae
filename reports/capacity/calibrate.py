"""The model's parameters from a run record.

From a capacity run: the steps up to half of the knee (at least two). From any other record: its steady state.
Taken are

- *service times*: done − started of every answered request, by name and endpoint; the samples
  themselves. From the least rates that give 1,000 of them: at greater ones they hold queueing, which the
  model would add once more.
- *held*: Δtotal_xact_time ÷ Δtotal_xact_count of the pooler's database ÷ the mean service time: how long
  a transaction holds a server connection. *queried*: Δtotal_query_time ÷ Δtotal_xact_time.
- *CPU* of a request at the primary (writes) and at the nodes that serve reads: the slope of the nodes' cores
  over the throughput of the steps, so that what they use when idle is not charged to requests; with one
  window: cores ÷ throughput. By the utilisation law U = X·D (Denning and Buzen, 1978).
- *machine*: cores of the machine less what runs beside the lab, or what the lab was seen to use at the most,
  whichever is more; the demand there is the slope of all nodes'
  cores over throughput less that of the databases.
- *connection cost*: median response of the probe's writes that opened a session for themselves less that of
  writes on lasting sessions, where the record has both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab.errors import RecordError
from lab.experiment.step import COLUMNS, measure
from lab.record.reader import RecordReader
from loadtests.format import whole
from reports.analysis.columns import integers, text
from reports.analysis.metrics import Metrics
from reports.analysis.source import Source
from reports.capacity.steps import Step, between, read_run
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
    """``primary`` and ``replica`` → instance class of the topology."""
    rates: tuple[float, ...]
    """Offered rates of the steps that it is from."""
    most: float
    """The greatest offered rate of the record."""
    connect_s: float | None
    """Cost of one connection; None: the record does not tell."""
    notes: tuple[str, ...]
    run: str


def calibrate(record: RecordReader) -> Calibration:
    """RecordError where the record holds too little."""
    steps, measured = _windows(record)
    topology = Source(record).yaml("topology.yaml")
    endpoints = _endpoints(steps)
    notes: list[str] = []
    pooler = _pooler(topology, endpoints)
    writer_x, reader_x = _rates(steps, True), _rates(steps, False)
    primary, readers = _nodes(topology, bool(reader_x.any()))
    cpu_write, _ = _slope(writer_x if readers else writer_x + reader_x, _cores(steps, primary))
    cpu_read, _ = _slope(reader_x, _cores(steps, readers)) if readers else (cpu_write, 0.0)
    own = dict.fromkeys((*primary, *readers))
    everything = steps[0].metrics.nodes("cpu_seconds")
    rest = [node for node in everything if node not in own]
    machine_cpu, _ = _slope(writer_x + reader_x, _cores(steps, rest))
    limit = record.manifest.resources
    demands = _demands(_quietest(steps), pooler, cpu_write, cpu_read, notes)
    system = System(
        instances=int(topology.get("instances") or 20),
        pool=_pool(pooler),
        primary=_limit(limit, primary, record),
        replicas=tuple(_limit(limit, [node], record) for node in readers),
        machine=_machine(steps, measured, everything),
        machine_cpu=machine_cpu,
    )
    asked = (record.manifest.load or {}).get("users")
    if asked:
        system = System(**{**vars(system), "instances": int(asked)})
    foreign = beside(steps, everything)
    if foreign > BUSY_BESIDE:
        notes.append(f"Something else used {foreign:.1f} cores of the machine: service times are too long.")
    if len(steps) < 2:
        notes.append("One load only: what the nodes use when idle is charged to requests.")
    return Calibration(
        demands=demands,
        system=system,
        classes=_classes(topology),
        rates=tuple(sorted({step.rate for step in steps if step.rate})),
        most=max(step.rate or 0.0 for step in measured),
        connect_s=_connect(record),
        notes=tuple(notes),
        run=record.manifest.run,
    )


def _windows(record: RecordReader) -> tuple[list[Step], list[Step]]:
    """(steps to calibrate from, every step)."""
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
        return (chosen if len({s.rate for s in chosen}) >= 2 else fit[:2]), list(run.steps)
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
    return [step], [step]


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
    found: set[str] = set()
    for step in steps:
        found |= set(_ok(step.requests)[2].words)
    return sorted(found)


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


def _nodes(topology: dict[str, Any], reads: bool) -> tuple[list[str], list[str]]:
    nodes = list((topology.get("postgres") or {}).get("nodes") or [])
    primary = [str(n["name"]) for n in nodes if n.get("role") == "primary"]
    readers = [str(n["name"]) for n in nodes if n.get("role") == "replica"]
    if not primary:
        raise RecordError("the record's topology.yaml names no primary")
    return primary, readers if reads else []


def _classes(topology: dict[str, Any]) -> dict[str, str]:
    nodes = list((topology.get("postgres") or {}).get("nodes") or [])
    found = {str(n["role"]): str(n["instance_class"]) for n in reversed(nodes)}
    found["standbys"] = str(sum(1 for n in nodes if n.get("role") == "standby"))
    return found


def _pooler(topology: dict[str, Any], endpoints: Sequence[str]) -> dict[str, Any] | None:
    used = {endpoint.partition(".")[0] for endpoint in endpoints}
    return next((one for one in topology.get("poolers") or [] if one.get("name") in used), None)


def _pool(pooler: dict[str, Any] | None) -> Pool:
    if pooler is None:
        return Pool("session", 10_000, 10_000)
    size = int(pooler["max_server_connections"])
    writer = max(1, round(size * float(pooler.get("writer_share") or 0.6)))
    return Pool(pooler["mode"], writer, max(1, size - writer), float(pooler.get("query_wait_timeout") or 120))


def _limit(resources: dict[str, Any], nodes: Sequence[str], record: RecordReader) -> float:
    found = [
        float(of["cpus"]) for node in nodes if isinstance(of := resources.get(node), dict) and of.get("cpus")
    ]
    return found[0] if found else float(record.manifest.machine.get("cores") or 1)


def _machine(steps: Sequence[Step], measured: Sequence[Step], nodes: Sequence[str]) -> float:
    cores = steps[0].most("machine_cores") or float(steps[0].record.manifest.machine.get("cores") or 0)
    if not cores:
        return FOREVER
    left = cores - beside(steps, nodes)
    return float(min(cores, max(left, float(_cores(measured, nodes).max()))))


def beside(steps: Sequence[Step], nodes: Sequence[str]) -> float:
    """Cores that something else than the lab's nodes used on the machine, mean over the steps."""
    busy = [step.per_second("machine_cpu_seconds") for step in steps]
    more = [b - o for b, o in zip(busy, _cores(steps, nodes), strict=True) if b is not None]
    return max(0.0, float(np.mean(more))) if more else 0.0


def _demands(
    steps: Sequence[Step], pooler: dict[str, Any] | None, write: float, read: float, notes: list[str]
) -> tuple[Demand, ...]:
    samples: dict[tuple[str, str], list[Any]] = {}
    for step in steps:
        service, name, endpoint = _ok(step.requests)
        for n, word in enumerate(name.words):
            for e, place in enumerate(endpoint.words):
                rows = (name.codes == n) & (endpoint.codes == e)
                if rows.any():
                    samples.setdefault((word, place), []).append(service[rows])
    merged = {key: np.concatenate(parts) for key, parts in samples.items()}
    few = sorted(f"{name} ({len(v)})" for (name, _), v in merged.items() if len(v) < LEAST_SAMPLES)
    if few:
        notes.append(f"Fewer than {LEAST_SAMPLES} service times of {', '.join(few)}.")
    count = sum(len(v) for v in merged.values())
    if not count:
        raise RecordError("the record holds no answered request to calibrate from")
    found = []
    for writes in (True, False):
        mine = {key: v for key, v in merged.items() if _is_writer(key[1]) == writes}
        if not mine:
            continue
        mean = float(np.concatenate(list(mine.values())).mean())
        held, queried = _held(steps, pooler, writes, mean)
        cpu = min(held, (write if writes else read) / mean)
        for (name, _), values in sorted(mine.items()):
            found.append(
                Demand(name, len(values) / count, writes, values, held, queried, cpu, cacheable=not writes)
            )
    return tuple(found)


def _quietest(steps: Sequence[Step]) -> list[Step]:
    """Steps of the least rates that have ``SAMPLES`` requests together."""
    chosen: list[Step] = []
    for step in sorted(steps, key=lambda s: s.rate or 0.0):
        known = sum(one.requests.num_rows for one in chosen)
        if known >= SAMPLES and step.rate != chosen[-1].rate:
            break
        chosen.append(step)
    return chosen


def _held(
    steps: Sequence[Step], pooler: dict[str, Any] | None, writes: bool, mean: float
) -> tuple[float, float]:
    """Shares (held of the service time, queried of the held) of a pool; 1 where nobody counted."""
    if pooler is None:
        return 1.0, 1.0
    node = str(pooler["name"])
    labels = {s.label for s in steps[0].metrics.find("pgb_xact", node) if s.label}
    mine = [label for label in labels if label.endswith("_ro") != writes]
    sums = {"pgb_xact": 0.0, "pgb_xact_time": 0.0, "pgb_query_time": 0.0}
    for step in steps:
        for metric in sums:
            sums[metric] += sum(step.growth(metric, node, label) or 0.0 for label in mine)
    if not sums["pgb_xact"] or not sums["pgb_xact_time"]:
        return 1.0, 1.0
    held = sums["pgb_xact_time"] / sums["pgb_xact"] / mean
    return min(1.0, max(0.01, held)), min(1.0, sums["pgb_query_time"] / sums["pgb_xact_time"])


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
