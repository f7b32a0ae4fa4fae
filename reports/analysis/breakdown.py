"""The RTO of writes by layer: detect, elect, promote, route, reconnect.

Milestones on the observer's clock, from the effect t0 to the recovery:

- *expired*: etcd deleted the leader key (first after t0) → ends *detect*
- *elected*: etcd got a leader key again (last before the recovery) → ends *elect*
- *promoted*: the first sample in which the new leader accepts writes → ends *promote*
- *routed*: the first new connection through the router that reaches it → ends *route*
- *recovered*: the RTO point (``rto.py``) → ends *reconnect*

Samples come at intervals, so a milestone is known to one interval of its probe; one that was seen before
its predecessor, or after the recovery, is moved onto it. A part is known only if the milestones at both of
its ends are; all other time is *unattributed*. Parts and *unattributed* add up to the RTO. Where a leader was
elected several times before writes recovered there were several failovers: the parts of none are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.record.schema import NS
from reports.analysis.columns import Nodes, Routes, first
from reports.analysis.model import PARTS, Breakdown, Part

MILESTONES = ("expired", "elected", "promoted", "routed", "recovered")


def new_leader(events: Sequence[dict[str, Any]], effect: int, until: int) -> tuple[int | None, str | None]:
    """When the last leader before ``until`` was elected, and who it is."""
    elected = [e for e in events if e["kind"] == "leader-elected" and effect <= e["t"] <= until]
    if not elected:
        return None, None
    last = elected[-1]
    return int(last["t"]), last["detail"].get("leader") or last["node"]


def elections(events: Sequence[dict[str, Any]], effect: int, until: int) -> int:
    """How often etcd got a leader key."""
    return sum(e["kind"] == "leader-elected" and effect <= e["t"] <= until for e in events)


def milestones(
    events: Sequence[dict[str, Any]],
    nodes: Nodes,
    routes: Routes,
    effect: int,
    recovered: int,
    old_primary: str | None,
    new_primary: str | None,
) -> dict[str, int | None]:
    """The milestones as they were seen, in ns, before they are put in order."""
    expired = next(
        (int(e["t"]) for e in events if e["kind"] == "leader-expired" and effect <= e["t"] <= recovered), None
    )
    elected, leader = new_leader(events, effect, recovered)
    leader = leader or new_primary
    since = elected if elected is not None else effect
    is_new = nodes.node.equals(leader) if leader else ~nodes.node.equals(old_primary or "")
    # A node that is primary again accepted writes before: only what was asked after its election counts.
    asked = nodes.sent if leader == old_primary else nodes.done
    promoted = first(nodes.done, is_new & nodes.accepts & (asked >= since))
    to_new = routes.server.equals(leader) if leader else ~routes.server.equals(old_primary or "")
    tried = routes.sent if leader == old_primary else routes.done
    routed = first(routes.done, to_new & routes.ok & (tried >= since))
    pooler = next((int(e["t"]) for e in events if e["kind"] == "pooler-connected" and e["t"] >= since), None)
    return {
        "expired": expired,
        "elected": elected,
        "promoted": promoted,
        "routed": routed,
        "pooler": pooler,
        "recovered": recovered,
    }


def breakdown(seen: dict[str, int | None], effect: int, times_elected: int = 1) -> Breakdown:
    """Parts that add up, from milestones in ns (``recovered`` must be known)."""
    recovered = seen["recovered"]
    if recovered is None:
        raise ValueError("a breakdown needs a recovery")
    if times_elected > 1:
        seen = {"recovered": recovered}
    at = effect
    previous: int | None = effect
    parts = []
    for name, milestone in zip(PARTS, MILESTONES, strict=True):
        moment = seen.get(milestone)
        if moment is not None:
            moment = min(max(moment, at), recovered)
            at = moment
        known = moment is not None and previous is not None
        parts.append(Part(name=name, seconds=(moment - previous) / NS if known else None))  # type: ignore[operator]
        previous = moment
    total = (recovered - effect) / NS
    missing = [name for name in MILESTONES if seen.get(name) is None]
    why = f"not seen: {', '.join(missing)}" if missing else ""
    if times_elected > 1:
        why = f"a leader was elected {times_elected} times before writes recovered: there is no one failover"
    return Breakdown(
        parts=tuple(parts),
        unattributed=max(0.0, total - sum(part.seconds or 0.0 for part in parts)),
        total=total,
        milestones={name: None if t is None else (t - effect) / NS for name, t in seen.items()},
        why=why,
    )
