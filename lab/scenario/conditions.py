"""Conditions of a story, looked at live: what holds at this moment, and what held all the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.record.schema import NS
from lab.scenario.cluster import Cluster
from lab.scenario.live import LiveWrites
from lab.scenario.models import CONDITIONS

STALE_S = 3.0
"""A look at the cluster that is older says nothing of this moment."""


@dataclass(frozen=True)
class Seen:
    """One look at a condition."""

    holds: bool | None
    """None: it could not be told."""
    how: str


def look(condition: str, cluster: Cluster | None, live: LiveWrites, leader_before: str, now: int) -> Seen:
    """Whether a condition holds now (ns of the observer's clock). ``leader_before``: at the trial's start."""
    if condition in ("writes healthy", "writes failing"):
        why = live.unhealthy(now)
        return Seen((why == "") == (condition == "writes healthy"), why or "writes are acknowledged")
    if cluster is None or now - cluster.t > STALE_S * NS:
        return Seen(None, "the cluster was not seen for some seconds")
    leader = cluster.leader
    if condition == "replicas streaming":
        why = cluster.missing()
        return Seen(not why, why or "every node streams")
    if condition == "synchronous":
        name = cluster.synchronous
        return Seen(name is not None, f"{name} is synchronous" if name else "no standby is synchronous")
    said = f"{leader} leads" if leader else "nobody leads, or more than one"
    if condition == "leader changed":
        return Seen(leader is not None and leader != leader_before, said)
    if condition == "leader unchanged":
        return Seen(leader in (leader_before, None), said)
    raise ValueError(f"unknown condition {condition!r}: one of {', '.join(CONDITIONS)}")


@dataclass
class Assertion:
    """Something that must hold from ``begin`` on, until ``end`` (ns; None: until the window ends)."""

    step: int
    condition: str
    begin: int
    end: int | None
    looks: int = 0
    failed_at: int | None = None
    why: str = ""
    last_look: int = 0
    gap: int = 0
    """Longest time without a look that could tell, ns."""

    def take(self, seen: Seen, now: int) -> bool:
        """Take a look into account. True where it is the first that does not hold."""
        if seen.holds is None:
            return False
        self.looks += 1
        self.gap = max(self.gap, now - (self.last_look or self.begin))
        self.last_look = now
        if seen.holds or self.failed_at is not None:
            return False
        self.failed_at, self.why = now, seen.how
        return True

    def over(self, now: int, window_end: int | None) -> bool:
        """Whether its time has passed."""
        end = self.end if self.end is not None else window_end
        return end is not None and now >= end

    def result(self, now: int) -> dict[str, Any]:
        """For the event ``assert-end``. ``held`` null: too few looks to tell."""
        gap = max(self.gap, now - (self.last_look or self.begin))
        held: bool | None = self.failed_at is None
        why = self.why
        if held and gap > STALE_S * NS:
            held, why = None, f"it was not looked at for {gap / NS:.1f} s"
        return {
            "step": self.step,
            "condition": self.condition,
            "held": held,
            "why": why,
            "looks": self.looks,
            "gap_s": round(gap / NS, 3),
            "begin": self.begin,
        }
