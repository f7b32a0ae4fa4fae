"""From a run record to an ``Analysis``: reads the tables, splits them into trials, joins the parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis import (
    alarms,
    availability,
    clock,
    faults,
    fork,
    freshness,
    latency,
    ledger,
    little,
    pooling,
    progress,
    resources,
    rto,
    validity,
)
from reports.analysis.breakdown import breakdown, elections, milestones, new_leader
from reports.analysis.metrics import Metrics
from reports.analysis.model import Analysis, Injected, Ledger, Outage, Reason, Span, Trial
from reports.analysis.redis_writes import redis_writes
from reports.analysis.source import Event, Source
from reports.analysis.split_brain import split_brain


def analyse(record: RecordReader | Path | str) -> Analysis:
    """Everything that can be found in a run record, with the findings of every check.

    Raises RecordError where the record is missing, damaged or of a newer schema.
    """
    from reports.checks import run_checks

    reader = record if isinstance(record, RecordReader) else RecordReader(record)
    found = measure(reader)
    return found.model_copy(update={"findings": run_checks(found, reader)})


def measure(record: RecordReader) -> Analysis:
    """The same without findings."""
    source = Source(record)
    start, end = source.start, source.end
    manifest = record.manifest
    clock_s = clock.uncertainty_s(manifest)
    trials = tuple(_trial(source, k, clock_s) for k in source.trials)
    steady = source.steady
    requests = latency.read_requests(record, start)
    seconds = [(-(-(a - start) // NS), (b - start) // NS) for a, b in steady]
    load = latency.load(requests, [(a, b) for a, b in seconds if b > a], (end - start) / NS)
    metrics = Metrics(record)
    longest = max(steady, key=lambda s: s[1] - s[0], default=None)
    topology = source.yaml("topology.yaml")
    databases = tuple(sorted({*source.expected, *metrics.nodes("pg_connections")}))
    environment = str(topology.get("environment", ""))
    fired = alarms.alarms(metrics, requests, manifest.resources, databases, environment, start, end)
    del requests
    law = little.little(record, metrics, longest)
    whole = _whole(source)
    account = ledger.summed(whole.ledger, [trial.ledger for trial in trials])
    slow_ns = round(manifest.slow_after_s * NS)
    ops, read_ops = rto.of_writes(source.writes, whole.lost), rto.of_reads(source.reads)
    begin = steady[0][0] if steady else start
    finish = source.load_end if source.load_end is not None else end
    first_fault = min((source.fault_begin(t) or t[0]["t"] for t in source.trials.values()), default=finish)
    injected = [moved for moved in map(source.leader_moved, source.trials.values()) if moved]
    return Analysis(
        run=manifest.run,
        manifest=manifest,
        duration_s=(end - start) / NS,
        trials=trials,
        ledger=account,
        service_write=availability.service(ops, begin, finish, slow_ns, start),
        service_read=availability.service(read_ops, begin, finish, slow_ns, start),
        freshness=freshness.freshness(source.writes, source.reads, whole.lost),
        standstill=progress.standstill(
            record, ops, read_ops, source.trials, (begin, first_fault), finish, slow_ns
        ),
        redis=redis_writes(source, clock_s),
        load=load,
        pools=pooling.pools(
            metrics,
            record.logs,
            [p for p in topology.get("poolers") or [] if isinstance(p, dict) and "name" in p],
            clock.engine_offset(manifest),
            longest,
        ),
        usage=resources.usage(metrics, manifest.resources, longest, (start, end)),
        little=law,
        alarms=fired,
        databases=databases,
        spans=_spans(source, trials),
        marks=tuple(source.mark(event) for event in source.events if event["t"] is not None),
        statements=_statements(record.json("statements.json")),
        predicted=manifest.predicted,
        clock_uncertainty_s=clock_s,
        reasons=(
            *validity.run_reasons(manifest, source.timed, injected, load.steady, clock_s),
            *validity.load_reasons(law, record.json("generator.json"), load.steady),
            *validity.story_reasons(manifest, source.events),
            *(
                Reason(metrics=("*",) if why in t.void else ("rto", "failover"), why=why, trial=t.trial)
                for t in trials
                for why in t.invalid
            ),
        ),
    )


def _whole(source: Source) -> ledger.Account:
    """The account of every write of the run, in a trial or not."""
    known = [int(e["t"]) for e in source.timed if e["kind"] == "window-end"]
    if source.load_end is not None:
        known.append(source.load_end)
    return ledger.account(
        source.writes,
        source.reads,
        source.audited(None),
        source.expected,
        source.final_primary,
        max(known, default=None),
        None,
    )


def _trial(source: Source, k: int, clock_s: float | None) -> Trial:
    events = source.trials[k]
    manifest = source.record.manifest
    slow_ns = round(manifest.slow_after_s * NS)
    by_kind = {event["kind"]: event for event in reversed(events)}
    start, end = int(events[0]["t"]), int(events[-1]["t"])
    took = by_kind.get("fault-effect")
    effect = None if took is None else int(took["t"])
    window = by_kind.get("window-end")
    window_end = int(window["t"]) if window else None
    until = window_end if window_end is not None else end

    since_last = max((int(source.trials[j][-1]["t"]) for j in source.trials if j < k), default=0)
    reads = source.reads
    writes = source.writes.take(source.mine(source.writes, k))
    reads = reads.take((reads.intended >= since_last) & (reads.intended < end))
    old = (source.primary_at(effect) if effect is not None else None) or (took["node"] if took else None)
    elected, leader = new_leader(events, effect, until) if effect is not None else (None, None)
    if leader is None and effect is not None:
        leader = next(
            (e["node"] for e in events if e["kind"] == "promoted" and effect <= e["t"] <= until), None
        )

    promoted = next((int(e["t"]) for e in events if e["kind"] == "promoted"), elected)
    known = [moment for moment in (window_end, source.load_end) if moment is not None]
    account = ledger.account(
        writes,
        reads,
        source.audited(k),
        source.expected,
        source.final_primary,
        max(known, default=None),
        effect,
        ledger.wal_beyond_fork(source.nodes, old, leader, effect, promoted) if effect is not None else None,
    )
    ops, read_ops = rto.of_writes(writes, account.lost), rto.of_reads(reads)
    none = Outage(state="no data", why="the fault did not take effect")
    if effect is None:
        write = new = read = read_new = none
        opened = read_open = rto.open_sessions(ops, until, until, slow_ns)
        parts = None
    else:
        around = took["uncertainty"] or 0 if took else 0
        write = rto.outage(ops, effect, until, slow_ns, around)
        new = rto.outage(rto.new_sessions(ops, effect), effect, until, slow_ns)
        opened = rto.open_sessions(ops, effect, until, slow_ns, rto.closed(events, effect, "writer"))
        read = rto.outage(read_ops, effect, until, slow_ns, around)
        read_new = rto.outage(rto.new_sessions(read_ops, effect), effect, until, slow_ns)
        closed = rto.closed(events, effect, "reader")
        read_open = rto.open_sessions(read_ops, effect, until, slow_ns, closed)
        parts = None
        if write.seconds is not None:
            recovered = effect + round(write.seconds * NS)
            seen = milestones(events, source.nodes, source.routes, effect, recovered, old, leader)
            parts = breakdown(seen, effect, elections(events, effect, recovered))
    broken = faults.injected(events, manifest.fault, source.start)
    uncertainty = (took["uncertainty"] or 0) / NS + (clock_s or 0.0) if took else None
    predicted = manifest.predicted.get("worst")
    void, blurred = validity.trial_reasons(
        events, writes, start, effect, window_end, source.calm_since(k), uncertainty, predicted
    )
    since = source.start

    def after(kind: str) -> float | None:
        event = next(
            (e for e in events if e["kind"] == kind and effect is not None and e["t"] >= effect), None
        )
        return None if event is None or effect is None else (event["t"] - effect) / NS

    return Trial(
        trial=k,
        start_s=(start - since) / NS,
        effect_s=None if effect is None else (effect - since) / NS,
        uncertainty_s=uncertainty,
        window_end_s=None if window_end is None else (window_end - since) / NS,
        end_s=(end - since) / NS,
        target=_target(old, took["node"] if took else None, broken),
        new_primary=leader,
        verified="fault-verified" in by_kind and "fault-absent" not in by_kind,
        phase_ms=_number(by_kind.get("trial-start"), "phase_ms"),
        write=write,
        write_new=new,
        write_open=opened,
        read=read,
        read_new=read_new,
        read_open=read_open,
        breakdown=parts,
        ledger=account.ledger,
        split_brain=split_brain(source.nodes, start, end),
        redundant_s=after("redundant"),
        synchronous_s=after("synchronous"),
        faults=broken,
        fork=fork.fork(
            writes,
            account.lost,
            source.nodes,
            source.evidence,
            events,
            old,
            leader,
            effect,
            account.ledger.rpo_wal_bytes,
        )
        if effect is not None
        else None,
        exposure=faults.exposure(
            broken,
            writes,
            source.routes,
            old,
            leader,
            promoted,
            until,
            source.start,
            account.ledger.rpo_wal_bytes,
        ),
        invalid=(*void, *blurred),
        void=void,
    )


def _target(old: str | None, first: str | None, broken: Sequence[Injected]) -> str | None:
    """The node that a trial is about: of several that were hit the primary, else the first one."""
    hit = {node for fault in broken for node in fault.nodes}
    return old if old in hit else first or old


def _number(event: Event | None, key: str) -> float | None:
    value = event["detail"].get(key) if event else None
    return float(value) if isinstance(value, (int, float)) else None


def _spans(source: Source, trials: Sequence[Trial]) -> tuple[Span, ...]:
    since = source.start
    spans = [Span(kind="steady", start_s=(a - since) / NS, end_s=(b - since) / NS) for a, b in source.steady]
    for trial in trials:
        if trial.effect_s is None:
            continue
        last = trial.window_end_s if trial.window_end_s is not None else trial.end_s
        spans.append(Span(kind="window", start_s=trial.effect_s, end_s=last, trial=trial.trial))
        if trial.write.state == "recovered" and trial.write.seconds is not None:
            until = trial.effect_s + trial.write.seconds
            spans.append(Span(kind="outage", start_s=trial.effect_s, end_s=until, trial=trial.trial))
        elif trial.write.state == "not recovered":
            spans.append(Span(kind="outage", start_s=trial.effect_s, end_s=last, trial=trial.trial))
        if trial.end_s > last:
            spans.append(Span(kind="heal", start_s=last, end_s=trial.end_s, trial=trial.trial))
    return tuple(spans)


def _statements(raw: Any) -> dict[str, tuple[dict[str, Any], ...]]:
    if isinstance(raw, list):  # one object a node
        merged: dict[str, Any] = {}
        for item in raw:
            if isinstance(item, dict):
                merged.update(item)
        raw = merged
    if not isinstance(raw, dict):
        return {}
    return {
        str(node): tuple(row for row in rows if isinstance(row, dict))
        for node, rows in raw.items()
        if isinstance(rows, list)
    }


def to_json(analysis: Analysis) -> str:
    """The analysis as one JSON document."""
    data = analysis.model_dump(mode="json")
    return json.dumps(data, indent=1, allow_nan=False)


__all__ = ["Analysis", "Ledger", "analyse", "measure", "to_json"]
