"""Which faults a trial injected, of what kind, and whether they can prove that nothing is lost.

- *kind*: what the record says (``fault-begin``: detail ``kind``); where it says nothing, by the fault's name:
  ``kill-…`` is a kill, ``isolate…``, ``cut-…`` and ``partition…`` are partitions, else the first word.
- *exposed*: writes that were sent from the effect of a partition of the primary until another node first
  accepted writes (else the window's end). They are what a primary that cannot reach its standbys may
  acknowledge and lose. Those that had no session were never sent, and are not exposed.
- *reached*: new connections through the router that the old primary answered in that time. Where there are
  none, clients had lost the primary too, and could be told nothing that was then lost.
- *unreplicated*: bytes of WAL that the old primary had beyond what its successor had replayed. Where there
  are none, replication had not been cut (as when only etcd was), and nothing could be lost either.
- A trial *proves* RPO 0 by losing nothing only if a partition cut off the primary, writes were exposed to
  it, clients reached it, it wrote WAL that its successor never had, and another node took over. A partition
  in which no write was sent is *vacuous*, anything else *no proof*. An asynchronous primary that is cut off
  from clients as well loses nothing, and must not pass for a safe one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.record.schema import NS
from reports.analysis.columns import MISSING, Routes, Writes
from reports.analysis.model import Exposure, Injected

PARTITION = "partition"


def kind_of(name: str, told: Any = None) -> str:
    """The kind of a fault, as the record tells it or as its name says."""
    if isinstance(told, str) and told:
        return told
    if name.startswith("kill"):
        return "kill"
    if name.startswith(("isolate", "cut-", PARTITION)):
        return PARTITION
    return name.partition("-")[0] or "unknown"


def injected(events: Sequence[dict[str, Any]], fallback: str | None, since: int) -> tuple[Injected, ...]:
    """The faults of one trial in the order of time.

    Args:
        events: the trial's, in the order of time.
        fallback: the fault's name where the event does not say it.
        since: the run's start, ns.
    """
    effects = [e for e in events if e["kind"] == "fault-effect"]
    found = []
    for event in events:
        if event["kind"] != "fault-begin":
            continue
        detail = event["detail"]
        name = str(detail.get("fault") or fallback or "unknown")
        nodes = _nodes(detail.get("resolved"), event["node"])
        mine = [e for e in effects if _belongs(e, event, name, nodes)]
        # One effect a node. Without the step's number an effect cannot belong to two injections.
        effect = mine[0] if mine else None
        taken = mine if "step" in detail else mine[:1]
        effects = [e for e in effects if e not in taken]
        found.append(
            Injected(
                fault=name,
                kind=kind_of(name, detail.get("kind")),
                target=detail.get("target") if isinstance(detail.get("target"), str) else None,
                nodes=nodes,
                begin_s=(event["t"] - since) / NS,
                effect_s=None if effect is None else (effect["t"] - since) / NS,
            )
        )
    return tuple(found)


def _nodes(resolved: Any, node: str | None) -> tuple[str, ...]:
    if isinstance(resolved, str):
        return tuple(part.strip() for part in resolved.split(",") if part.strip())
    if isinstance(resolved, list):
        return tuple(str(one) for one in resolved)
    return (node,) if node else ()


def _belongs(effect: dict[str, Any], begin: dict[str, Any], name: str, nodes: Sequence[str]) -> bool:
    # The engine's stamp of an effect may lie a little before the runner's word that it asked for it.
    if effect["t"] < begin["t"] - NS:
        return False
    steps = effect["detail"].get("step"), begin["detail"].get("step")
    if steps[0] is not None and steps[1] is not None:
        return bool(steps[0] == steps[1])
    told = effect["detail"].get("fault")
    if isinstance(told, str):
        return told == name
    return effect["node"] is None or effect["node"] in nodes


def exposure(
    faults: Sequence[Injected],
    writes: Writes,
    routes: Routes,
    old: str | None,
    new: str | None,
    promoted: int | None,
    until: int,
    since: int,
    unreplicated: int | None,
) -> Exposure:
    """What a partition of the primary put at risk in one trial.

    Args:
        writes: the trial's.
        old: the primary at the effect.
        new: who took over; None or ``old`` where nobody did.
        promoted: when another node first accepted writes, ns.
        until: the window's end, ns.
        since: the run's start, ns.
        unreplicated: bytes of WAL that the old primary had beyond its successor's; None: not known.
    """
    kinds = tuple(dict.fromkeys(fault.kind for fault in faults))
    cuts = [f for f in faults if f.kind == PARTITION and f.effect_s is not None and old in f.nodes]
    if not cuts or old is None:
        return Exposure(kinds=kinds)
    begin = since + round(min(f.effect_s for f in cuts if f.effect_s is not None) * NS)
    end = promoted if promoted is not None and promoted > begin else until
    sent = (writes.sent != MISSING) & (writes.sent >= begin) & (writes.sent < end)
    acknowledged = writes.outcome.equals("acknowledged", "acknowledged_locally")
    answered = routes.ok & routes.server.equals(old) & (routes.sent >= begin) & (routes.done < end)
    return Exposure(
        kinds=kinds,
        primary_cut=True,
        reached=int(answered.sum()),
        unreplicated=unreplicated,
        took_over=new is not None and new != old,
        attempted=int(sent.sum()),
        acknowledged=int((sent & acknowledged & (writes.done < end)).sum()),
        seconds=(end - begin) / NS,
    )
