"""The Redis writer's account of each trial: outage, lost writes, and what Sentinel did.

Words are those of ``rto.py`` and ``ledger.py``, applied to the table ``redis_writes``:

- *effect*: of the first fault of the trial that hit a Redis server; of the first fault where none did.
- *present*: in the list on the only node that called itself primary at the audit. *lost*: acknowledged and
  not present.
- *announced*: the earliest moment after the effect at which a Sentinel named another primary than before.
- *exposed*: writes that the old primary acknowledged and that were sent after another one had been announced:
  those that an asynchronous replica cannot have. Only a trial that has some can show that nothing is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from lab.record.schema import NS
from reports.analysis import clock, ledger, rto, validity
from reports.analysis.columns import Writes, integers, read_writes
from reports.analysis.model import Outage, RedisTrial, RedisWrites
from reports.analysis.source import Event, Source

SENTINEL_SAID = re.compile(r"(\+sdown master|\+odown|\+elected-leader|\+promoted-slave|\+switch-master)\b.*")
"""What a Sentinel logs on the way to another primary (its event names are part of its API)."""
SHOWN = 12


def redis_writes(source: Source, clock_s: float | None) -> RedisWrites | None:
    """The account of a run; None where nobody wrote to Redis."""
    writes = read_writes(source.record, "redis_writes")
    if not len(writes):
        return None
    event = next((e for e in reversed(source.events) if e["kind"] == "redis-audit"), None)
    told: dict[str, dict[str, Any]] = dict(event["detail"]) if event else {}
    audits = {}
    for node, table in source.record.redis_audits().items():
        numbers, copies = integers(table["n"]), integers(table["copies"])
        order = np.argsort(numbers, kind="stable")
        caught_up = told.get(node, {}).get("caught_up") is True
        audits[node] = ledger.Audited(numbers[order], copies[order], caught_up)
    primary = next((node for node, one in told.items() if one.get("primary") is True), None)
    known = [int(e["t"]) for e in source.timed if e["kind"] == "window-end"]
    if source.load_end is not None:
        known.append(source.load_end)
    nobody = source.reads.take(np.zeros(0, dtype=np.int64))

    def account(some: Writes, effect: int | None) -> ledger.Account:
        return ledger.account(some, nobody, audits, sorted(told), primary, max(known, default=None), effect)

    servers, sentinels = _nodes(source)
    servers |= set(told)
    trials = []
    for k in source.trials:
        events = source.trials[k]
        effect_event = _effect(events, servers)
        effect = None if effect_event is None else int(effect_event["t"])
        mine = writes.take(source.mine(writes, k))
        trials.append(
            _trial(source, k, mine, account(mine, effect), effect_event, servers, sentinels, clock_s)
        )
    whole = account(writes, None)
    seconds = (writes.intended[whole.lost] - source.start) // NS
    second, count = np.unique(seconds, return_counts=True)
    return RedisWrites(
        trials=tuple(trials),
        ledger=ledger.summed(whole.ledger, [t.ledger for t in trials]),
        lost_by_second=dict(zip(second.tolist(), count.tolist(), strict=True)),
    )


def _nodes(source: Source) -> tuple[set[str], set[str]]:
    """Names of Redis servers and of Sentinels, as the topology has them."""
    cache = source.yaml("topology.yaml").get("cache") or {}
    servers, sentinels = (
        {str(one["name"]) for one in cache.get(kind) or [] if isinstance(one, dict) and "name" in one}
        for kind in ("nodes", "sentinels")
    )
    return servers, sentinels


def _effect(events: list[Event], servers: set[str]) -> Event | None:
    took = [e for e in events if e["kind"] == "fault-effect"]
    return next((e for e in took if e["node"] in servers), took[0] if took else None)


def _trial(
    source: Source,
    k: int,
    writes: Writes,
    account: ledger.Account,
    took: Event | None,
    servers: set[str],
    sentinels: set[str],
    clock_s: float | None,
) -> RedisTrial:
    events, manifest = source.trials[k], source.record.manifest
    start, end = int(events[0]["t"]), int(events[-1]["t"])
    window_end = next((int(e["t"]) for e in events if e["kind"] == "window-end"), None)
    until = window_end if window_end is not None else end
    slow_ns = round(manifest.slow_after_s * NS)
    effect = None if took is None else int(took["t"])
    around = (took["uncertainty"] or 0) if took else 0
    uncertainty = around / NS + (clock_s or 0.0) if took else None
    void, blurred = validity.trial_reasons(
        events, writes, start, effect, window_end, source.calm_since(k), uncertainty, None
    )
    hit = {e["node"] for e in events if e["kind"] == "fault-effect"} & (servers | sentinels)
    ops = rto.of_writes(writes, account.lost)
    write = new = Outage(state="no data", why="the fault did not take effect")
    opened = rto.open_sessions(ops, until, until, slow_ns)
    named = None
    if effect is not None:
        write = rto.outage(ops, effect, until, slow_ns, around)
        new = rto.outage(rto.new_sessions(ops, effect), effect, until, slow_ns)
        opened = rto.open_sessions(ops, effect, until, slow_ns, rto.closed(events, effect, "redis"))
        named = next(
            (
                e
                for e in events
                if e["kind"] == "redis-primary" and e["t"] >= effect and e["detail"].get("was")
            ),
            None,
        )
    exposed = 0
    if named is not None:
        beyond = writes.server.equals(str(named["detail"]["was"])) & (writes.sent > int(named["t"]))
        exposed = int((beyond & writes.outcome.equals("acknowledged")).sum())
    return RedisTrial(
        trial=k,
        hit=tuple(sorted(hit)),
        old_primary=str(named["detail"]["was"]) if named else None,
        new_primary=named["node"] if named else None,
        announced_s=None if named is None or effect is None else (int(named["t"]) - effect) / NS,
        write=write,
        write_new=new,
        write_open=opened,
        ledger=account.ledger,
        exposed=exposed,
        said=tuple(_said(source, sentinels, effect, until)) if effect is not None else (),
        invalid=(*void, *blurred),
        void=void,
    )


def _said(source: Source, sentinels: set[str], begin: int, end: int) -> Iterator[str]:
    """``file:line: what a Sentinel logged`` of one trial, in the order of nodes; at most SHOWN."""
    offset = clock.engine_offset(source.record.manifest)
    if offset is None:
        return
    left = SHOWN
    for node, log in source.record.logs.items():
        if node not in sentinels:
            continue
        for number, line in enumerate(log.splitlines(), 1):
            found = SENTINEL_SAID.search(line)
            stamp = clock.parse_stamp(line) if found else None
            if found and stamp is not None and begin <= stamp + offset <= end and left:
                left -= 1
                yield f"logs/{node}.log:{number}: {(stamp + offset - begin) / NS:.2f} s: {found[0]}"
