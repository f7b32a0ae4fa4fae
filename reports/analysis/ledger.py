"""The account of every write: what was promised, and what the databases hold.

Words, for the writes of one trial (or of the whole run) and the final audit, in which every node is read
directly once replay has caught up:

- *present*: found on the final primary (the node that accepts writes when the audit is made).
- *lost*: acknowledged and not present. *lost_locally*: acknowledged with a warning (the synchronous wait
  was cancelled) and not present; that was never a full promise, so it is a class of its own.
- *phantom*: failed, with proof that nothing was committed, and present. *duplicate*: present more than once.
- *unknown_present*: unknown and present; no error.
- *dirty*: a number that a replica had served to a reader and that no node has any more.
- *divergent*: acknowledged and present, but absent from another node whose replay had caught up.
- *covered*: the audit of a node must know about the write: it came back while the audit had surely not
  begun (the window or the load had not ended), or before another write was sent that the audit found
  there. Of a write that went on while nodes were read nothing is known.
- *complete*: every node was read after it had caught up, and the final primary is known. An incomplete
  ledger is never judged.
- *RPO* in rows = lost; in seconds = max(fault, last lost acknowledgement) − oldest lost acknowledgement: the
  stretch of promises that was torn out; its *age at the fault* = fault − oldest lost acknowledgement, where
  that is before the fault; in bytes = the old primary's WAL position beyond the one that the new primary had
  replayed when it promoted, from samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.record.schema import NS
from reports.analysis.columns import MISSING, Bools, Ints, Nodes, Reads, Writes, member
from reports.analysis.model import Ledger, NodeAudit

FEW = 20
"""How many numbers are named as examples."""


@dataclass(frozen=True)
class Audited:
    """One node's audit: sorted numbers and how often each was found."""

    numbers: Ints
    copies: Ints
    caught_up: bool
    lsn: int | None = None


@dataclass(frozen=True)
class Account:
    """The ledger, and which writes (rows of the trial's writes) were lost."""

    ledger: Ledger
    lost: Bools


def account(
    writes: Writes,
    reads: Reads,
    audits: Mapping[str, Audited],
    expected: Sequence[str],
    primary: str | None,
    known_until: int | None,
    effect: int | None,
    wal_bytes: int | None = None,
) -> Account:
    """The account of some writes.

    Args:
        expected: nodes that must have been audited.
        primary: the final primary.
        known_until: what came back up to then came back before the audit, ns.
        effect: when the fault took effect, ns; for the RPO in seconds.
    """
    outcome = writes.outcome
    acknowledged, locally = outcome.equals("acknowledged"), outcome.equals("acknowledged_locally")
    failed = outcome.equals("failed")
    unknown = ~(acknowledged | locally | failed)
    counts: dict[str, Any] = {
        "writes": len(writes),
        "acknowledged": int(acknowledged.sum()),
        "acknowledged_locally": int(locally.sum()),
        "failed": int(failed.sum()),
        "unknown": int(unknown.sum()),
    }
    none = np.zeros(len(writes), dtype=np.bool_)
    why = _incomplete(audits, expected, primary)
    if primary is None or primary not in audits:
        return Account(
            Ledger(complete=False, why=why, nodes=_nodes(audits, writes, none, None), **counts), none
        )

    final = audits[primary]
    present = member(writes.n, final.numbers)
    covered = _covered(writes, final, known_until)
    lost = acknowledged & covered & ~present
    phantom = failed & present
    twice = final.numbers[final.copies > 1]
    duplicate = member(writes.n, twice)
    safe = acknowledged & present
    divergent = sum(
        _missing(audited, writes, safe, known_until)
        for name, audited in audits.items()
        if name != primary and audited.caught_up
    )
    everywhere = none.copy()
    for audited in audits.values():
        everywhere |= member(writes.n, audited.numbers)
    gone = np.sort(writes.n[covered & ~everywhere])
    dirty = np.unique(reads.newest[member(reads.newest, gone) & reads.ok])
    seconds, age = _seconds(writes.done[lost], effect)
    ledger = Ledger(
        lost=int(lost.sum()),
        lost_locally=int((locally & covered & ~present).sum()),
        phantom=int(phantom.sum()),
        duplicate=int(duplicate.sum()),
        unknown_present=int((unknown & present).sum()),
        dirty=len(dirty),
        divergent=divergent,
        rpo_wal_bytes=wal_bytes,
        lost_numbers=_few(writes.n[lost]),
        phantom_numbers=_few(writes.n[phantom]),
        duplicate_numbers=_few(writes.n[duplicate]),
        nodes=_nodes(audits, writes, safe, known_until),
        final_primary=primary,
        complete=not why,
        why=why,
        rpo_seconds=seconds,
        rpo_age_seconds=age,
        **counts,
    )
    return Account(ledger, lost)


def _incomplete(audits: Mapping[str, Audited], expected: Sequence[str], primary: str | None) -> str:
    reasons = []
    absent = [name for name in expected if name not in audits]
    behind = [name for name, audited in audits.items() if not audited.caught_up]
    if not expected and not audits:
        reasons.append("no node was audited")
    if absent:
        reasons.append(f"not audited: {', '.join(sorted(absent))}")
    if behind:
        reasons.append(f"replay had not caught up on {', '.join(sorted(behind))}")
    if primary is None:
        reasons.append("it is not known which node was primary at the audit")
    return "; ".join(reasons)


def _nodes(
    audits: Mapping[str, Audited], writes: Writes, safe: Bools, known_until: int | None
) -> tuple[NodeAudit, ...]:
    return tuple(
        NodeAudit(
            node=name,
            caught_up=audited.caught_up,
            rows=int(audited.copies[member(audited.numbers, np.sort(writes.n))].sum()),
            missing=_missing(audited, writes, safe, known_until),
            lsn=audited.lsn,
        )
        for name, audited in sorted(audits.items())
    )


def _missing(audited: Audited, writes: Writes, safe: Bools, known_until: int | None) -> int:
    """Safe writes that a node lacks."""
    covered = _covered(writes, audited, known_until)
    return int((safe & covered & ~member(writes.n, audited.numbers)).sum())


def _covered(writes: Writes, audited: Audited, known_until: int | None) -> Bools:
    found = member(writes.n, audited.numbers)
    last = int(writes.sent[found].max()) if found.any() else MISSING
    last = max(last, known_until if known_until is not None else MISSING)
    covered: Bools = (writes.done != MISSING) & (writes.done <= last)
    return covered


def _few(numbers: Ints) -> tuple[int, ...]:
    return tuple(int(n) for n in np.sort(numbers)[:FEW])


def _seconds(lost_done: Ints, effect: int | None) -> tuple[float | None, float | None]:
    if not len(lost_done) or effect is None:
        return None, None
    oldest, last = int(lost_done.min()), int(lost_done.max())
    return (max(effect, last) - oldest) / NS, (effect - oldest) / NS if oldest < effect else None


def wal_beyond_fork(
    nodes: Nodes, old: str | None, new: str | None, effect: int, promoted: int | None
) -> int | None:
    """Bytes of WAL that the old primary had beyond what the new one had replayed when it promoted.

    From samples: the old primary's greatest position on the timeline that it had at the effect, and the
    new primary's last position before it accepted writes. None where either was not sampled. The old
    primary may have written more after its last sample.
    """
    if old is None or new is None or old == new or promoted is None:
        return None
    was = nodes.node.equals(old) & nodes.accepts & (nodes.lsn != MISSING)
    before = np.flatnonzero(was & (nodes.sent <= effect))
    if not len(before):
        return None
    timeline = nodes.timeline[before[-1]]
    ends = nodes.lsn[was & (nodes.timeline == timeline) & (nodes.sent >= nodes.sent[before[-1]])]
    replayed = np.flatnonzero(
        nodes.node.equals(new) & ~nodes.accepts & (nodes.lsn != MISSING) & (nodes.sent < promoted)
    )
    if not len(replayed):
        return None
    return max(0, int(ends.max()) - int(nodes.lsn[replayed[-1]]))


def summed(whole: Ledger, trials: Sequence[Ledger]) -> Ledger:
    """The whole run's account, with the worst RPO of its trials."""
    worst: dict[str, Any] = {}
    for name in ("rpo_seconds", "rpo_age_seconds", "rpo_wal_bytes"):
        known = [value for one in trials if (value := getattr(one, name)) is not None]
        worst[name] = max(known, default=None)
    return whole.model_copy(update=worst)
