"""Complete run records made up from a known truth, for tests and for ``bench analysis``.

``make_record`` writes a closed record of ``kill-primary`` on ``risk-prod`` exactly as
``lab/record/schema.py`` describes it; ``truth(path)`` gives back what was put in. The same arguments
always give the same record. Tables are written in blocks, so that millions of requests fit in little
memory.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from lab.record.schema import NS, TABLES, Anchor, ClockOffset, Manifest

ORIGIN = 5_000 * NS
"""Observer's monotonic clock at the start of the run."""
WALL = 1_760_000_000 * NS
"""Wall clock at that moment: 2025-10-09T08:53:20Z."""
PG = ("pg1", "pg2", "pg3", "pg4")
POOLERS = {"pool-transaction": 100, "pool-session": 50, "pool-statement": 200}
OTHERS = ("etcd1", "etcd2", "etcd3", "router", "redis1", "redis2", "sentinel1", "sentinel2", "sentinel3",
          "toxiproxy", "client", "observer")  # fmt: skip
NODES = (*PG, *POOLERS, *OTHERS)
REQUESTS: tuple[tuple[str, str, float, float], ...] = (
    # name, endpoint, share, median service time in ms
    ("read positions", "pool-transaction.reader", 0.40, 3.0),
    ("read limits", "pool-statement.reader", 0.20, 1.5),
    ("check limit", "pool-statement.writer", 0.10, 2.0),
    ("book trade", "pool-transaction.writer", 0.20, 6.0),
    ("update position", "pool-session.writer", 0.10, 5.0),
)
LIMITS = {"pg1": 0.8, "pg2": 0.8, "pg3": 0.4, "pg4": 0.4}
SETTLE_S = 5.0
HEAL_S = 6.0
POLL_NS = 50_000_000
"""Interval of the node and route probes."""
USERS = 10
"""Users of each worker of the load."""
SESSIONS = 8
"""Writers on open sessions; every tenth write opens a session of its own."""
BLOCK = 1_000_000


@dataclass
class TrialTruth:
    """What one trial holds. Times in ns of the observer's clock, durations in seconds."""

    trial: int
    start: int
    effect: int
    window_end: int
    end: int
    old_primary: str
    new_primary: str
    outage_s: float | None
    recovered: int | None
    expired: int | None = None
    elected: int | None = None
    promoted: int | None = None
    routed: int | None = None
    lost: list[int] = field(default_factory=list)
    phantom: list[int] = field(default_factory=list)
    duplicates: list[int] = field(default_factory=list)
    unknown_present: list[int] = field(default_factory=list)
    dirty: list[int] = field(default_factory=list)
    acknowledged: int = 0
    acknowledged_locally: int = 0


@dataclass
class Truth:
    """What the whole record holds."""

    start: int
    end: int
    steady: tuple[int, int]
    trials: list[TrialTruth]
    requests: int = 0
    requests_dropped: int = 0
    requests_failed: int = 0
    server_connections: dict[str, int] = field(default_factory=dict)
    assignments: dict[str, int] = field(default_factory=dict)


def truth(path: Path) -> Truth:
    """The truth of a record made by :func:`make_record` (kept beside it, not in it)."""
    raw = json.loads(_truth_file(path).read_text())
    raw["trials"] = [TrialTruth(**trial) for trial in raw["trials"]]
    raw["steady"] = tuple(raw["steady"])
    return Truth(**raw)


def make_record(
    path: Path,
    *,
    trials: int = 3,
    outage_s: Sequence[float | None] = (20.1, 21.4, 19.8),
    rate: float = 100.0,
    lost: int | Sequence[int] = 0,
    phantom: int | Sequence[int] = 0,
    duplicates: int | Sequence[int] = 0,
    unknown_present: int | Sequence[int] = 0,
    acknowledged_locally: int | Sequence[int] = 0,
    dirty: int | Sequence[int] = 0,
    split_brain: float | Sequence[float] = 0.0,
    stuck_s: float | None = None,
    late_failure_s: float | None = None,
    caught_up: bool = True,
    fault_effective: bool = True,
    uninjected_leader_change: bool = False,
    schedule_lag_ms: float = 0.3,
    probe_lag_s: float = 0.0,
    request_rate: float = 200.0,
    seconds: float = 20.0,
    window_s: float = 40.0,
    new_connections: int = 40,
    max_server_connections: float = 0.6,
    fault: str = "kill-node",
    scenario: str = "kill-primary",
    slow_after_s: float = 1.0,
    seed: int = 1,
    requests: int | None = None,
) -> Path:
    """Write a closed run record into ``path`` (made if needed) and return it.

    Args:
        outage_s: seconds from the effect to the completion of the first good write, one a trial
            (repeated where there are more trials); None: no write fails in that trial.
        rate: writes of the ledger per second.
        lost: acknowledged writes before the fault that no node has afterwards; one number for each
            trial or one for all. So are ``phantom`` (failed and present), ``duplicates`` (present
            twice), ``unknown_present``, ``acknowledged_locally`` (and present).
        dirty: lost writes that a replica had served before.
        split_brain: seconds for which the old primary accepts writes beside the new one.
        stuck_s: seconds after the effect at which one write of an open session comes back, which was
            sent during the outage; later writes are good.
        late_failure_s: seconds after the effect at which one more write fails.
        caught_up: whether the audit saw replay caught up on every node.
        fault_effective: False writes ``fault-absent`` in place of ``fault-verified``.
        schedule_lag_ms: median lag of the load generator's starts.
        probe_lag_s: how late the writer probe sends what it intends before the first fault.
        request_rate: requests per second of the load; ``requests`` fixes their number instead.
        seconds: steady state before the first trial.
        max_server_connections: greatest use of each pooler as a share of its limit.
        new_connections: new server connections of each pooler in the steady state.
    """
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True, exist_ok=True)
    plan = _plan(rng, trials, outage_s, seconds, window_s)
    _writes(
        path,
        plan,
        rng,
        rate=rate,
        lost=_each(lost, trials),
        phantom=_each(phantom, trials),
        duplicates=_each(duplicates, trials),
        unknown_present=_each(unknown_present, trials),
        locally=_each(acknowledged_locally, trials),
        dirty=_each(dirty, trials),
        stuck_s=stuck_s,
        late_failure_s=late_failure_s,
        probe_lag_s=probe_lag_s,
    )
    splits = [float(s) for s in _each(split_brain, trials)]
    _nodes(path, plan, rng, splits)
    _routes(path, plan, rng)
    count = requests if requests is not None else int(request_rate * (plan.end - plan.start) / NS)
    _requests(path, plan, rng, count, schedule_lag_ms)
    _metrics(path, plan, rng, new_connections, max_server_connections)
    _events(path, plan, caught_up, fault_effective, uninjected_leader_change, fault)
    _texts(path, plan, rng, seed, scenario, fault, trials, slow_after_s, window_s, rate, request_rate)
    _truth_file(path).write_text(json.dumps(asdict(plan)))
    return path


# --- the plan -------------------------------------------------------------------------------------


def _truth_file(path: Path) -> Path:
    return path.parent / f"{path.name}.truth.json"


def _each(value: Any, trials: int) -> list[Any]:
    if isinstance(value, (int, float)):
        return [value] * trials
    values = list(value)
    return [values[i % len(values)] for i in range(trials)]


def _plan(
    rng: np.random.Generator, trials: int, outages: Sequence[float | None], seconds: float, window_s: float
) -> Truth:
    start = ORIGIN
    at = start + int((2 + seconds) * NS)
    steady = (start + 2 * NS, at)
    found = []
    old, new = "pg1", "pg2"
    for trial in range(1, trials + 1):
        outage = outages[(trial - 1) % len(outages)]
        effect = at + int(SETTLE_S * NS) + int(rng.integers(0, NS))
        end_window = effect + int(window_s * NS)
        one = TrialTruth(
            trial=trial,
            start=at,
            effect=effect,
            window_end=end_window,
            end=max(end_window, effect + round((outage or 0) * NS)) + int(HEAL_S * NS),
            old_primary=old,
            new_primary=new,
            outage_s=outage,
            recovered=None if outage is None else effect + round(outage * NS),
        )
        if outage is not None:
            one.expired = effect + int(0.90 * outage * NS)
            one.elected = effect + int(0.92 * outage * NS)
            one.promoted = effect + int(0.95 * outage * NS)
            one.routed = effect + int(0.98 * outage * NS)
            old, new = new, old
        at = one.end
        found.append(one)
    return Truth(start=start, end=at + 2 * NS, steady=steady, trials=found)


# --- tables ---------------------------------------------------------------------------------------


def _texts_column(values: Sequence[str | None], indices: Any) -> pa.DictionaryArray:
    """A dictionary column from few texts and an index into them a row (−1: null)."""
    codes = np.asarray(indices, dtype=np.int32)
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, mask=codes < 0), pa.array(list(values), type=pa.string())
    )


def _write(path: Path, table: str, columns: dict[str, Any]) -> None:
    schema = TABLES[table]
    arrays = [
        value
        if isinstance(value, (pa.Array, pa.ChunkedArray))
        else pa.array(value, type=schema.field(name).type)
        for name, value in ((name, columns[name]) for name in schema.names)
    ]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path / f"{table}.parquet", compression="zstd")


def _writes(
    path: Path,
    plan: Truth,
    rng: np.random.Generator,
    *,
    rate: float,
    lost: list[int],
    phantom: list[int],
    duplicates: list[int],
    unknown_present: list[int],
    locally: list[int],
    dirty: list[int],
    stuck_s: float | None,
    late_failure_s: float | None,
    probe_lag_s: float,
) -> None:
    step = int(NS / rate)
    intended = np.arange(plan.steady[0], plan.end - NS, step, dtype=np.int64)
    count = len(intended)
    numbers = np.arange(1, count + 1, dtype=np.int64)
    sent = intended + rng.integers(20_000, 200_000, count)
    if plan.trials:
        sent[intended < plan.trials[0].effect - NS] += int(probe_lag_s * NS)
    done = sent + np.clip(rng.lognormal(15.0, 0.3, count), 1e6, 2e8).astype(np.int64)
    done_null = np.zeros(count, dtype=bool)
    outcome = np.zeros(count, dtype=np.int32)  # 0 acknowledged, 1 locally, 2 failed, 3 unknown
    state = np.full(count, -1, dtype=np.int32)
    message = np.full(count, -1, dtype=np.int32)
    server = np.zeros(count, dtype=np.int32)
    trial_of = np.zeros(count, dtype=np.int32)
    fresh = numbers % 10 == 0
    session = np.where(fresh, 100_000 + numbers, 1 + numbers % SESSIONS)
    opened = np.where(fresh, intended, plan.steady[0] - NS)
    copies = np.ones(count, dtype=np.int32)

    primary = "pg1"
    for k, trial in enumerate(plan.trials):
        inside = (intended >= trial.start) & (intended < trial.end)
        trial_of[inside] = trial.trial
        server[intended >= trial.start] = PG.index(primary)
        if trial.recovered is not None:
            primary = trial.new_primary
            server[intended >= trial.effect] = PG.index(primary)
            # The write that recovers is the last one intended before the recovery.
            first = int(np.searchsorted(intended, trial.recovered - 2_000_000)) - 1
            while fresh[first]:
                first -= 1
            down = (intended + step > trial.effect) & (numbers < numbers[first])
            outcome[down] = 2
            state[down], message[down] = 0, 0
            done[down] = np.minimum(sent[down] + 5_000_000, trial.recovered - 1)
            copies[down] = 0
            broken = np.flatnonzero(down & ~fresh)[:SESSIONS]
            outcome[broken], state[broken], message[broken] = 3, 1, 1
            server[down] = -1
            later = (intended > trial.effect) & ~fresh
            later[broken] = False
            session[later] = trial.trial * 1000 + 1 + numbers[later] % SESSIONS
            opened[later] = trial.effect + 100_000_000
            done[first] = trial.recovered
            after = numbers > numbers[first]
            done[after] = np.maximum(done[after], trial.recovered + 1_000)
            fails = np.flatnonzero(down & (outcome == 2))
            unknowns = np.flatnonzero(down & (outcome == 3))
            chosen = fails[10 : 10 + phantom[k]]
            copies[chosen] = 1
            trial.phantom = numbers[chosen].tolist()
            chosen = unknowns[: unknown_present[k]]
            copies[chosen] = 1
            trial.unknown_present = numbers[chosen].tolist()
            if stuck_s is not None:
                stuck = int(broken[-1])
                outcome[stuck], state[stuck], message[stuck], copies[stuck] = 0, -1, -1, 1
                done[stuck] = trial.effect + int(stuck_s * NS)
                server[stuck] = PG.index(primary)
        before = np.flatnonzero((done < trial.effect - 1_000_000) & (outcome == 0))
        if lost[k]:
            gone = before[-lost[k] :]
            copies[gone] = 0
            trial.lost = numbers[gone].tolist()
            trial.dirty = trial.lost[: dirty[k]]
        if duplicates[k]:
            twice = before[-lost[k] - duplicates[k] : len(before) - lost[k]]
            copies[twice] = 2
            trial.duplicates = numbers[twice].tolist()
        if locally[k]:
            weak = before[-lost[k] - duplicates[k] - locally[k] : len(before) - lost[k] - duplicates[k]]
            outcome[weak] = 1
            trial.acknowledged_locally = len(weak)
        if late_failure_s is not None:
            late = int(np.searchsorted(intended, trial.effect + int(late_failure_s * NS)))
            outcome[late], state[late], message[late], copies[late] = 2, 0, 0, 0
        trial.acknowledged = int(((outcome == 0) & inside).sum())

    _write(
        path,
        "writes",
        {
            "n": numbers,
            "trial": trial_of,
            "endpoint": _texts_column(["pool-transaction.writer"], np.zeros(count)),
            "session": session,
            "session_opened": opened,
            "fresh": fresh,
            "intended": intended,
            "sent": sent,
            "done": pa.array(done, mask=done_null),
            "outcome": _texts_column(["acknowledged", "acknowledged_locally", "failed", "unknown"], outcome),
            "sqlstate": _texts_column(["08P01", "08006"], state),
            "message": _texts_column(
                ["server login failed: connection refused", "server conn crashed?"], message
            ),
            "server": _texts_column(PG, server),
        },
    )
    _audit(path, plan, numbers, trial_of, copies)
    _reads(path, plan, rng, step * 2, numbers, done, copies)


def _audit(path: Path, plan: Truth, numbers: Any, trial_of: Any, copies: Any) -> None:
    """The final audit, split by the trial under which a row was written (0: none)."""
    folder = path / "audit"
    folder.mkdir(exist_ok=True)
    for trial in range(len(plan.trials) + 1):
        seen = (trial_of == trial) & (copies > 0)
        table = pa.table(
            {"n": pa.array(numbers[seen], pa.int64()), "copies": pa.array(copies[seen], pa.int32())}
        )
        for node in PG:
            pq.write_table(table, folder / f"{trial}-{node}.parquet", compression="zstd")


def _reads(
    path: Path, plan: Truth, rng: np.random.Generator, step: int, numbers: Any, done_w: Any, copies: Any
) -> None:
    intended = np.arange(plan.steady[0], plan.end - NS, step, dtype=np.int64)
    count = len(intended)
    sent = intended + rng.integers(20_000, 200_000, count)
    done = sent + np.clip(rng.lognormal(14.3, 0.3, count), 5e5, 2e8).astype(np.int64)
    trial_of = np.zeros(count, dtype=np.int32)
    order = np.argsort(done_w, kind="stable")
    present = copies[order] > 0
    visible = np.maximum.accumulate(np.where(present, numbers[order], 0))
    newest = visible[np.clip(np.searchsorted(done_w[order], sent - 20_000_000) - 1, 0, None)]
    for trial in plan.trials:
        trial_of[(intended >= trial.start) & (intended < trial.end)] = trial.trial
        for number in trial.dirty:
            at = int(np.searchsorted(sent, done_w[number - 1]))
            while newest[at] in trial.dirty:
                at += 1
            newest[at] = number
    nulls = np.full(count, -1)
    _write(
        path,
        "reads",
        {
            "trial": trial_of,
            "endpoint": _texts_column(["pool-transaction.reader"], np.zeros(count)),
            "session": 1 + np.arange(count, dtype=np.int64) % 4,
            "session_opened": np.full(count, plan.steady[0] - NS),
            "fresh": np.zeros(count, dtype=bool),
            "intended": intended,
            "sent": sent,
            "done": done,
            "ok": np.ones(count, dtype=bool),
            "sqlstate": _texts_column(["08006"], nulls),
            "message": pa.array([None] * count, type=TABLES["reads"].field("message").type),
            "server": _texts_column(["pg3", "pg4"], np.arange(count) % 2),
            "newest": newest,
        },
    )


def _nodes(path: Path, plan: Truth, rng: np.random.Generator, splits: list[float]) -> None:
    parts: list[dict[str, Any]] = []
    for index, node in enumerate(PG):
        sent = np.arange(plan.start, plan.end, POLL_NS, dtype=np.int64) + index * 1_000_000
        done = sent + rng.integers(300_000, 900_000, len(sent))
        reachable = np.ones(len(sent), dtype=bool)
        accepts = np.full(len(sent), node == "pg1")
        timeline = np.ones(len(sent), dtype=np.int32)
        for k, trial in enumerate(plan.trials):
            if trial.promoted is None:
                continue
            after = sent >= trial.promoted
            timeline[after] = trial.trial + 1
            if node == trial.old_primary:
                stops = trial.effect if not splits[k] else trial.promoted + int(splits[k] * NS)
                accepts[sent >= stops] = False
                reachable[(sent >= stops) & (sent < trial.window_end + NS)] = False
            elif node == trial.new_primary:
                accepts[after] = True
        lsn = ((sent - plan.start) // 10_000) + 0x3000000
        parts.append(
            {
                "t_sent": sent,
                "t_done": done,
                "node": np.full(len(sent), index),
                "reachable": reachable,
                "accepts_writes": accepts & reachable,
                "in_recovery": ~accepts,
                "timeline": timeline,
                "lsn": lsn,
            }
        )
    merged = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.argsort(merged["t_sent"], kind="stable")
    merged = {key: value[order] for key, value in merged.items()}
    dead = ~merged["reachable"]
    for key, kind in (("in_recovery", pa.bool_()), ("timeline", pa.int32()), ("lsn", pa.int64())):
        merged[key] = pa.array(merged[key], type=kind, mask=dead)
    merged["node"] = _texts_column(PG, merged["node"])
    _write(path, "nodes", merged)


def _routes(path: Path, plan: Truth, rng: np.random.Generator) -> None:
    sent = np.arange(plan.start, plan.end, POLL_NS, dtype=np.int64)
    done = sent + rng.integers(500_000, 1_500_000, len(sent))
    server = np.zeros(len(sent), dtype=np.int32)
    ok = np.ones(len(sent), dtype=bool)
    for trial in plan.trials:
        if trial.routed is None:
            continue
        server[sent >= trial.effect] = PG.index(trial.new_primary)
        ok[(sent >= trial.effect) & (sent < trial.routed)] = False
    server[~ok] = -1
    _write(path, "routes", {"t_sent": sent, "t_done": done, "ok": ok, "server": _texts_column(PG, server)})


def _requests(path: Path, plan: Truth, rng: np.random.Generator, count: int, lag_ms: float) -> None:
    schema = TABLES["requests"]
    shares = np.array([row[2] for row in REQUESTS])
    medians = np.array([row[3] for row in REQUESTS])
    first, last = plan.steady[0], plan.end - NS
    outcomes = ["ok", "dropped", "08006", "57P01"]
    with pq.ParquetWriter(path / "requests.parquet", schema, compression="zstd") as writer:
        for at, size in _blocks(count):
            where = (at + np.sort(rng.random(size)) * size) / count
            intended = first + (where * (last - first)).astype(np.int64)
            kind = rng.choice(len(REQUESTS), size=size, p=shares / shares.sum())
            started = intended + (rng.exponential(lag_ms / np.log(2), size) * 1e6).astype(np.int64)
            service = medians[kind] * rng.lognormal(0, 0.5, size)
            done = started + (service * 1e6).astype(np.int64)
            outcome = np.zeros(size, dtype=np.int32)
            writes = np.char.endswith(np.array([row[1] for row in REQUESTS]), ".writer")[kind]
            for trial in plan.trials:
                if trial.recovered is None:
                    continue
                hit = writes & (intended >= trial.effect) & (intended < trial.recovered)
                outcome[hit] = np.where(rng.random(int(hit.sum())) < 0.2, 3, 2)
            dropped = (outcome > 0) & (rng.random(size) < 0.1)
            outcome[dropped] = 1
            writer.write_table(
                pa.Table.from_arrays(
                    [
                        pa.array(intended),
                        pa.array(started, mask=dropped),
                        pa.array(done, mask=dropped),
                        _texts_column([row[0] for row in REQUESTS], kind),
                        _texts_column([row[1] for row in REQUESTS], kind),
                        _texts_column(outcomes, outcome),
                        pa.array(rng.integers(0, 2, size), type=pa.int16()),
                        pa.array(1 + (at + np.arange(size)) % USERS, type=pa.int16(), mask=dropped),
                    ],
                    schema=schema,
                )
            )
            plan.requests += size
            plan.requests_dropped += int(dropped.sum())
            plan.requests_failed += int((outcome >= 2).sum())


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    for at in range(0, count, BLOCK):
        yield at, min(BLOCK, count - at)


def _metrics(path: Path, plan: Truth, rng: np.random.Generator, new_connections: int, peak: float) -> None:
    t = np.arange(plan.start, plan.end, NS, dtype=np.int64)
    seconds = (t - plan.start) / NS
    loaded = np.clip(seconds - 2, 0, None)
    down = np.zeros(len(t), dtype=bool)
    for trial in plan.trials:
        if trial.recovered is not None:
            down |= (t >= trial.effect) & (t < trial.recovered)
    up_time = np.cumsum(~down & (seconds >= 2))
    rows: list[tuple[str, str, str | None, Any]] = []

    def add(node: str, metric: str, values: Any, label: str | None = None) -> None:
        rows.append((node, metric, label, np.broadcast_to(np.asarray(values, dtype=float), t.shape)))

    for node in NODES:
        cores = 0.45 * LIMITS[node] if node in LIMITS else 0.08
        add(node, "cpu_seconds", np.cumsum(cores * (1 + 0.05 * rng.standard_normal(len(t)))))
        add(node, "cpu_throttled_seconds", 0.01 * seconds if node in LIMITS else 0.0)
        add(node, "memory_bytes", 3e8 + 1e5 * seconds if node in PG else 5e7)
        add(node, "io_read_bytes", 1e4 * seconds)
        add(node, "io_write_bytes", 3e5 * seconds)
        add(node, "processes", 40.0 if node in PG else 6.0)
        add(node, "collector_cpu_seconds", 0.005 * seconds)
    for node in PG:
        add(node, "pg_connections", 12.0, "active")
        add(node, "pg_connections", 30.0, "idle")
        add(node, "pg_sessions", 20 + 3 * np.floor(new_connections * np.clip(loaded / 10, 0, 1)))
        add(node, "pg_xact_commit", 200.0 * up_time)
        add(node, "pg_xact_rollback", 0.1 * up_time)
        add(node, "pg_conflicts", 0.0)
        add(node, "pg_wal_bytes", 1e5 * up_time)
    for standby in PG[1:]:
        add("pg1", "pg_replication_lag_bytes", rng.integers(0, 20_000, len(t)), standby)
        add("pg1", "pg_replay_lag_seconds", rng.random(len(t)) * 0.02, standby)
        add("pg1", "pg_slot_retained_bytes", 20_000.0, standby)
    add("pg1", "pg_sync_standbys", 1.0)
    for pooler, limit in POOLERS.items():
        for database, share in (("risk", 0.6), ("risk_ro", 0.4)):
            assigned = np.floor(100 * share * up_time)
            add(pooler, "pgb_xact", assigned, database)
            add(pooler, "pgb_query", assigned * 2, database)
            add(pooler, "pgb_assignment", assigned, database)
            add(pooler, "pgb_xact_time", assigned * 0.005, database)
            add(pooler, "pgb_query_time", assigned * 0.004, database)
            add(pooler, "pgb_wait_time", assigned * 0.0002, database)
            total = np.round(peak * limit * share) * (seconds >= 2)
            label = f"{database}/risk_app"
            add(pooler, "pgb_sv_total", total, label)
            add(pooler, "pgb_sv_active", np.round(total * 0.5), label)
            add(pooler, "pgb_sv_idle", total - np.round(total * 0.5), label)
            add(pooler, "pgb_cl_active", 20.0, label)
            add(pooler, "pgb_cl_waiting", np.where(down, 15.0, 0.0), label)
            add(pooler, "pgb_maxwait", np.where(down, 1.0, 0.0), label)
        plan.assignments[pooler] = int(sum(np.floor(100 * s * up_time[-1]) for s in (0.6, 0.4)))
    for node, is_primary in (("redis1", 1.0), ("redis2", 0.0)):
        add(node, "redis_ops", 500 * seconds)
        add(node, "redis_hits", 400 * seconds)
        add(node, "redis_misses", 40 * seconds)
        add(node, "redis_is_primary", is_primary)
    for standby in PG:
        add("router", "haproxy_up", 1.0 if standby == "pg1" else 0.0, f"write/{standby}")
        add("router", "haproxy_sessions", 30.0 if standby == "pg1" else 0.0, f"write/{standby}")
    for node in ("etcd1", "etcd2", "etcd3"):
        add(node, "etcd_fsync_p99_seconds", 0.004)

    nodes, metrics = list(NODES), sorted({row[1] for row in rows})
    labels = sorted({row[2] for row in rows if row[2]})
    size = len(t)
    _write(
        path,
        "metrics",
        {
            "t": np.tile(t, len(rows)),
            "node": _texts_column(nodes, np.repeat([nodes.index(row[0]) for row in rows], size)),
            "metric": _texts_column(metrics, np.repeat([metrics.index(row[1]) for row in rows], size)),
            "label": _texts_column(
                labels, np.repeat([labels.index(row[2]) if row[2] else -1 for row in rows], size)
            ),
            "value": np.concatenate([row[3] for row in rows]),
        },
    )
    _pooler_logs(path, plan, new_connections)


def stamp(t: int) -> str:
    """RFC 3339 time stamp of a moment of the observer's clock, as the engine writes it."""
    wall = WALL + (t - ORIGIN)
    whole = dt.datetime.fromtimestamp(wall // NS, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{wall % NS:09d}Z"


def _pooler_logs(path: Path, plan: Truth, new_connections: int) -> None:
    folder = path / "logs"
    folder.mkdir(exist_ok=True)
    for pooler in POOLERS:
        lines = [
            (plan.start, "LOG kernel file descriptor limit: 1048576 (hard: 1048576); max_client_conn: 2000")
        ]
        for i in range(new_connections):
            at = plan.steady[0] + i * 50_000_000 + 1
            database = "risk" if i % 5 < 3 else "risk_ro"
            lines.append(
                (
                    at,
                    f"LOG S-0x55d0c0ffee{i:02x}: {database}/risk_app@10.77.1.4:5000 "
                    f"new connection to server (from 10.77.1.7:{40000 + i})",
                )
            )
            lines.append(
                (
                    at + 9,
                    f"LOG C-0x55d0c0ffed{i:02x}: {database}/risk_app@10.77.0.9:50000 "
                    "login attempt: db=risk user=risk_app tls=TLSv1.3/TLS_AES_256_GCM_SHA384",
                )
            )
        text = "".join(
            f"{stamp(at)} {stamp(at)[:23].replace('T', ' ')} UTC [7] {line}\n" for at, line in lines
        )
        (folder / f"{pooler}.log").write_text(text)
        plan.server_connections[pooler] = new_connections
    for node in NODES:
        if node not in POOLERS:
            (folder / f"{node}.log").write_text(f"{stamp(plan.start)} {node} started\n")


def _events(path: Path, plan: Truth, caught_up: bool, effective: bool, uninjected: bool, fault: str) -> None:
    rows: list[tuple[int, str, int, str | None, str, int, dict[str, Any]]] = []

    def add(t: int, kind: str, trial: int = 0, node: str | None = None, source: str = "runner",
            uncertainty: int = 500_000, **detail: Any) -> None:  # fmt: skip
        rows.append((t, kind, trial, node, source, uncertainty, detail))

    add(plan.start, "run-start", seed=1)
    add(
        plan.start + NS,
        "load-start",
        workload="risk-api",
        rate=200,
        users=20,
        endpoint="pool-transaction.writer",
    )
    add(plan.steady[0], "steady-start")
    add(plan.steady[1], "steady-end")
    if uninjected:
        middle = (plan.steady[0] + plan.steady[1]) // 2
        add(middle, "leader-expired", source="etcd")
        add(middle + 100_000_000, "leader-elected", source="etcd", node="pg2", leader="pg2")
    for trial in plan.trials:
        k, old, new = trial.trial, trial.old_primary, trial.new_primary
        add(trial.start, "trial-start", k, phase_ms=round((trial.effect - trial.start) / 1e6) - 5000)
        add(trial.effect - 40_000_000, "fault-begin", k, old, fault=fault, target="primary", resolved=old)
        add(trial.effect, "fault-effect", k, old, "observer", 3_000_000)
        verdict = "fault-verified" if effective else "fault-absent"
        add(
            trial.effect + 200_000_000,
            verdict,
            k,
            old,
            "observer",
            how="port 5432 refuses on the control network",
        )
        if trial.expired and trial.elected and trial.promoted and trial.routed:
            add(trial.expired, "leader-expired", k, None, "etcd")
            add(trial.elected, "leader-elected", k, new, "etcd", leader=new)
            add(trial.promoted, "promoted", k, new, "observer")
            for i, pooler in enumerate(POOLERS):
                add(trial.routed + i * 1_000_000, "pooler-connected", k, pooler, "observer")
        add(trial.window_end, "window-end", k)
        add(trial.window_end + NS // 10, "heal-begin", k, old)
        add(trial.window_end + NS, "heal-end", k, old)
        add(trial.window_end + 2 * NS, "heal-verified", k, old)
        add(trial.window_end + 3 * NS, "redundant", k)
        add(trial.window_end + 3 * NS + 1, "synchronous", k)
        add(trial.end, "trial-end", k)
    add(plan.end - NS, "load-end")
    primary = "pg1"
    for trial in plan.trials:
        primary = trial.new_primary if trial.promoted else trial.old_primary
    for k in range(len(plan.trials) + 1):
        nodes = {
            node: {"lsn": 0x5000000, "caught_up": caught_up, "rows": 1, "primary": node == primary, "why": ""}
            for node in PG
        }
        add(plan.end - NS // 2, "audit", k, None, "observer", **nodes)
    add(plan.end, "run-end")
    rows.sort(key=lambda row: row[0])
    _write(
        path,
        "events",
        {
            "t": [row[0] for row in rows],
            "kind": pa.array([row[1] for row in rows]).dictionary_encode(),
            "trial": [row[2] for row in rows],
            "node": pa.array([row[3] for row in rows], pa.string()).dictionary_encode(),
            "source": pa.array([row[4] for row in rows]).dictionary_encode(),
            "uncertainty": [row[5] for row in rows],
            "detail": [json.dumps(row[6]) for row in rows],
        },
    )


def _texts(
    path: Path,
    plan: Truth,
    rng: np.random.Generator,
    seed: int,
    scenario: str,
    fault: str,
    trials: int,
    slow_after_s: float,
    window_s: float,
    rate: float,
    request_rate: float,
) -> None:
    manifest = Manifest(
        run=path.name,
        state="closed",
        lab_version="0.1.0",
        scenario=scenario,
        topology="risk-prod",
        lab="synthetic",
        seed=seed,
        started_wall=stamp(plan.start),
        ended_wall=stamp(plan.end),
        trials_asked=trials,
        trials_done=trials,
        fault=fault,
        command=f"lab run scenarios/{scenario}.yaml --topology risk-prod --trials {trials}",
        anchor=Anchor(monotonic_ns=ORIGIN, wall_ns=WALL),
        offsets=[
            ClockOffset(clock=clock, when=when, offset_ns=offset, uncertainty_ns=120_000)
            for clock, offset in (("runner", 0), ("load:0", 0), ("load:1", 0), ("engine", ORIGIN - WALL))
            for when in ("start", "end")
        ],
        predicted={"best": 19.2, "worst": 26.9, "detect_best": 18.0, "detect_worst": 21.0, "elect": 1.0},
        slow_after_s=slow_after_s,
        window_s=window_s,
        probe_interval_s=1 / rate,
        load={"workload": "risk-api", "rate": request_rate, "users": 20, "arrivals": "poisson"},
        machine={
            "cores": 2,
            "memory_bytes": 24 * 2**30,
            "kernel": "6.1.0",
            "cpu_model": "made up",
            "engine": "20.10.24",
            "compose": "2.26.1",
            "os": "Debian 12",
            "netem": False,
        },
        scale=0.2,
        resources={node: {"cpus": cpus, "memory_bytes": 2**30} for node, cpus in LIMITS.items()},
        versions={
            "postgresql": "15.14",
            "patroni": "4.0.4",
            "pgbouncer": "1.24.1",
            "haproxy": "2.6.12",
            "etcd": "3.5.16",
            "redis": "7.0.15",
            "toxiproxy": "2.12.0",
            "locust": "2.40.0",
            "psycopg": "3.2.9",
            "python": "3.11.2",
        },
        substitutions=["PostgreSQL 14 → 15 (Debian 12 carries 15)"],
        stand_ins={"failover": "Patroni for RDS Multi-AZ", "pooling": "PgBouncer"},
        addresses={f"10.77.1.{i + 2}": node for i, node in enumerate(NODES)},
    )
    (path / "manifest.json").write_text(manifest.model_dump_json(indent=2))
    (path / "topology.yaml").write_text(yaml.safe_dump({
        "name": "risk-prod", "system": "risk", "environment": "prod", "title": "Risk Management Platform",
        "poolers": [
            {"name": name, "mode": name.removeprefix("pool-"), "max_server_connections": limit}
            for name, limit in POOLERS.items()
        ],
    }, sort_keys=False))  # fmt: skip
    (path / "scenario.yaml").write_text(yaml.safe_dump({
        "name": scenario, "fault": {"name": fault, "target": "primary"}, "trials": trials,
    }, sort_keys=False))  # fmt: skip
    rendered = path / "rendered"
    rendered.mkdir(exist_ok=True)
    (rendered / "compose.yaml").write_text("services: {}\n")
    statements = {}
    for node in PG:
        top = []
        for i, (name, _endpoint, share, median) in enumerate(REQUESTS):
            calls = int(10_000 * share) + int(rng.integers(0, 50))
            mean = median * 0.7
            query = f"SELECT /* {name} */ * FROM risk.t{i} WHERE id = $1"
            top.append(
                {"query": query, "calls": calls, "total_ms": calls * mean, "mean_ms": mean, "rows": calls}
            )
        statements[node] = sorted(top, key=lambda row: -float(str(row["total_ms"])))
    (path / "statements.json").write_text(json.dumps(statements, indent=1))
