"""The small tables of a run record, and what its events say about time: trials, steady state, audits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import yaml

from lab.record.reader import RecordReader
from lab.record.schema import NS
from reports.analysis import ledger
from reports.analysis.columns import (
    Bools,
    Nodes,
    Reads,
    Routes,
    Writes,
    integers,
    read_nodes,
    read_reads,
    read_routes,
    read_writes,
)
from reports.analysis.fork import parse_evidence
from reports.analysis.model import Mark

Event = dict[str, Any]


@dataclass
class Source:
    """The record's small tables, and what its events say about time."""

    record: RecordReader

    @cached_property
    def events(self) -> list[Event]:
        return self.record.events()

    @cached_property
    def timed(self) -> list[Event]:
        return [event for event in self.events if event["t"] is not None]

    @cached_property
    def writes(self) -> Writes:
        return read_writes(self.record)

    @cached_property
    def reads(self) -> Reads:
        return read_reads(self.record)

    @cached_property
    def nodes(self) -> Nodes:
        return read_nodes(self.record)

    @cached_property
    def routes(self) -> Routes:
        return read_routes(self.record)

    @cached_property
    def start(self) -> int:
        """run-start, else the first thing recorded."""
        for event in self.timed:
            if event["kind"] == "run-start":
                return int(event["t"])
        return min(
            (int(e["t"]) for e in self.timed), default=int(self.writes.intended[0]) if len(self.writes) else 0
        )

    @cached_property
    def end(self) -> int:
        moments = [int(e["t"]) for e in self.timed]
        if len(self.writes):
            moments.append(int(self.writes.intended[-1]))
        return max(moments, default=self.start)

    @cached_property
    def steady(self) -> list[tuple[int, int]]:
        """Stretches of steady state; one that was not ended lasts to the next fault or the load's end."""
        found = []
        begin: int | None = None
        for event in self.timed:
            if event["kind"] == "steady-start":
                begin = int(event["t"])
            elif begin is not None and event["kind"] in ("steady-end", "fault-begin", "load-end", "run-end"):
                found.append((begin, int(event["t"])))
                begin = None
        if begin is not None:
            found.append((begin, self.end))
        return [(a, b) for a, b in found if b > a]

    @cached_property
    def trials(self) -> dict[int, list[Event]]:
        """Trial → its events in the order of time, from trial-start to trial-end (or as far as it came).

        Events of etcd and the probes may carry no trial (0): they belong to the trial in whose time they
        fall. The audit is made after all trials, and is not among them.
        """
        bounds: dict[int, tuple[int, int]] = {}
        for event in self.timed:
            k = event["trial"] or 0
            if k > 0 and event["kind"] != "audit":
                low, high = bounds.get(k, (event["t"], event["t"]))
                bounds[k] = (min(low, event["t"]), max(high, event["t"]))
        return {
            k: [
                e
                for e in self.timed
                if e["kind"] != "audit" and (e["trial"] == k or (not e["trial"] and low <= e["t"] <= high))
            ]
            for k, (low, high) in sorted(bounds.items())
        }

    @cached_property
    def audits(self) -> dict[str, ledger.Audited]:
        """Node → what the final audit found there, of all trials together.

        The audit is made once and split by the trial under which a row was written (0: none). A node
        has caught up only if every part says so.
        """
        told = [audit_rows(event) for event in self.events if event["kind"] == "audit"]
        parts: dict[str, list[tuple[Any, Any]]] = {}
        for k, node in self.record.audits():
            table = self.record.audit(k, node)
            parts.setdefault(node, []).append((integers(table["n"]), integers(table["copies"])))
        found = {}
        for node, pieces in parts.items():
            numbers, copies = (np.concatenate([piece[i] for piece in pieces]) for i in (0, 1))
            order = np.argsort(numbers, kind="stable")
            rows = [rows[node] for rows in told if node in rows]
            caught_up = bool(rows) and all(row.get("caught_up") is True for row in rows)
            lsn = rows[-1].get("lsn") if rows else None
            found[node] = ledger.Audited(
                numbers[order], copies[order], caught_up, lsn if isinstance(lsn, int) else None
            )
        return found

    def audited(self, k: int | None) -> dict[str, ledger.Audited]:
        """The audits that account for a trial (None: for the whole run): of nodes with a part for it."""
        # Part 0 holds what was written outside trials, which each trial accounts for as well.
        wanted = {0, *self.trials} if k is None else {0, k}
        have = set(self.record.audits())
        return {node: one for node, one in self.audits.items() if all((w, node) in have for w in wanted)}

    @cached_property
    def expected(self) -> list[str]:
        """Nodes that must have been audited: those that were watched, or that the audit names."""
        names = set(self.nodes.node.words)
        for event in self.events:
            if event["kind"] == "audit":
                names |= set(audit_rows(event))
        return sorted(names)

    @cached_property
    def final_primary(self) -> str | None:
        """The only node that the audit found to be primary; else the last one that accepted writes."""
        events = [event for event in self.events if event["kind"] == "audit"]
        for event in events:
            named = [name for name, row in audit_rows(event).items() if row.get("primary") is True]
            if len(named) > 1:
                return None
            if named:
                return named[0]
        return self.primary_at(int(events[-1]["t"])) if events and events[-1]["t"] else None

    @cached_property
    def evidence(self) -> list[dict[str, Any]]:
        """What was kept of demoted primaries before they were rewound."""
        files = sorted((self.record.path / "evidence").glob("*.txt"))
        names = [f"evidence/{file.name}" for file in files]
        return parse_evidence({name: self.record.text(name) or "" for name in names})

    @cached_property
    def load_end(self) -> int | None:
        """When the load ended, if the audit was made after it."""
        audit = max((int(e["t"]) for e in self.timed if e["kind"] == "audit"), default=None)
        ended = next((int(e["t"]) for e in self.timed if e["kind"] == "load-end"), None)
        return ended if ended is not None and audit is not None and audit >= ended else None

    def mine(self, writes: Writes, k: int) -> Bools:
        """The writes that a trial accounts for: its own, and those between the trial before and it.

        Writes before a trial carry trial 0, and can be lost by its fault.
        """
        since = max((int(self.trials[j][-1]["t"]) for j in self.trials if j < k), default=0)
        end = int(self.trials[k][-1]["t"])
        mine: Bools = (writes.trial == k) | (
            (writes.trial <= 0) & (writes.intended >= since) & (writes.intended < end)
        )
        return mine

    def calm_since(self, k: int) -> int:
        """When the steady state before a trial's fault began: the load's for the first, else its own."""
        return self.steady[0][0] if k == 1 and self.steady else int(self.trials[k][0]["t"])

    def fault_begin(self, events: Sequence[Event]) -> int | None:
        return next((int(e["t"]) for e in events if e["kind"] == "fault-begin"), None)

    def leader_moved(self, events: Sequence[Event]) -> tuple[int, int] | None:
        """When a trial's faults explain a change of leader, ns; None: none of them can have caused one.

        Records of older versions do not say of a fault whether it moves the leader: then it may.
        """
        begun = [event for event in events if event["kind"] == "fault-begin"]
        moving = [e for e in begun if e["detail"].get("moves_leader") != "no"]
        if begun and not moving:
            return None
        return int(moving[0]["t"] if moving else events[0]["t"]), int(events[-1]["t"])

    def mark(self, event: Event) -> Mark:
        uncertainty = event["uncertainty"]
        return Mark(
            t_s=(event["t"] - self.start) / NS,
            kind=event["kind"],
            trial=event["trial"] or 0,
            node=event["node"],
            source=event["source"],
            uncertainty_s=None if uncertainty is None else uncertainty / NS,
            detail=event["detail"],
        )

    def primary_at(self, moment: int) -> str | None:
        """The node whose latest sample before a moment accepted writes (the latest of several)."""
        rows = np.flatnonzero(self.nodes.accepts & (self.nodes.sent <= moment))
        return self.nodes.node.at(int(rows[-1])) if len(rows) else None

    def yaml(self, name: str) -> dict[str, Any]:
        try:
            data = yaml.safe_load(self.record.text(name) or "")
        except yaml.YAMLError:
            return {}
        return data if isinstance(data, dict) else {}


def audit_rows(event: Event | None) -> dict[str, dict[str, Any]]:
    """Node → what the audit event says about it."""
    detail = dict(event["detail"]) if event else {}
    told = detail.get("nodes") if isinstance(detail.get("nodes"), dict) else detail
    return {name: one for name, one in (told or {}).items() if isinstance(one, dict)}
