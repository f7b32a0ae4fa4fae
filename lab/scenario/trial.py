"""One trial: whole and healthy, a random wait, the story, the rest of the window, healing, whole again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lab.errors import LabError
from lab.record.schema import NS
from lab.scenario.cluster import Cluster, Watch
from lab.scenario.journal import Journal
from lab.scenario.progress import Progress
from lab.scenario.session import Session
from lab.scenario.story import POLL_S, Story


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    effective: bool
    """Whether an independent look found every fault in effect."""
    redundant: bool
    """Whether the lab became whole again in time."""
    complete: bool
    """Whether every step of the story came about."""


def settle(session: Session, progress: Progress) -> Cluster:
    """Wait until every node streams, a standby is synchronous, and writes and load are healthy.

    LabError, naming what is missing, where that takes longer than the scenario allows.
    """
    limit = session.plan.scenario.settle_within
    deadline = time.monotonic() + limit
    postgres = session.plan.topology.postgres
    needs_sync = postgres.synchronous != "off" and len(postgres.nodes) > 1
    bytes_before, moved_at = session.requests_bytes(), time.monotonic()
    moved = False
    while True:
        session.check()
        cluster = _watch(session).latest(session.clock.now() - 3 * NS)
        if session.requests_bytes() > bytes_before:
            bytes_before, moved_at, moved = session.requests_bytes(), time.monotonic(), True
        why = cluster.missing()
        if not why and needs_sync and cluster.synchronous is None:
            why = "no standby is synchronous"
        why = why or session.live.unhealthy(session.clock.now())
        if not why and (not moved or time.monotonic() - moved_at > 5):
            why = "the load's requests do not come in"
        if not why:
            return cluster
        if time.monotonic() > deadline:
            raise LabError(f"the lab did not settle within {limit:g} s: {why}")
        progress.tick(why)
        time.sleep(POLL_S)


def run_trial(session: Session, journal: Journal, number: int, progress: Progress) -> Outcome:
    """Run one trial; every moment is an event of the record.

    The heal instructions are on disk before a fault is injected, and every fault is healed whatever
    happens (by ``journal`` where this raises).
    """
    record, clock, plan = session.record, session.clock, session.plan
    name = f"trial {number} of {plan.trials}"
    progress.phase(f"{name}: settling")
    settle(session, progress)

    phase = plan.phases_s[number - 1]
    session.tell_trial(number)
    record.event("trial-start", clock.now(), trial=number, uncertainty=clock.uncertainty,
                 detail={"phase_ms": round(phase * 1000, 3)})  # fmt: skip
    time.sleep(phase)
    before = _watch(session).latest()
    with Story(session, journal, before, number, progress) as story:
        story.play(plan.scenario.steps)
        if story.effective:
            story.watch()
            record.event("window-end", clock.now(), trial=number, uncertainty=clock.uncertainty)
        story.heal()
    at = story.first_effect if story.first_effect is not None else clock.now()
    redundant = _wait_redundant(session, before, at, number, name, progress)
    end = clock.now()
    if story.moved_at is not None:
        session.faulty.append((story.moved_at, end))
    record.event("trial-end", end, trial=number, uncertainty=clock.uncertainty)
    session.tell_trial(0)
    return Outcome(story.effective, redundant, story.complete)


def _wait_redundant(
    session: Session, before: Cluster, effect: int, number: int, name: str, progress: Progress
) -> bool:
    """Wait until every node streams and a standby is synchronous again; record when they stream.

    That replication is synchronous again the observer tells, from etcd and to the millisecond.
    """
    record, limit = session.record, session.plan.scenario.recovery.redundant_within
    deadline = time.monotonic() + limit
    needs_sync = before.synchronous is not None
    since = session.clock.now()
    progress.phase(f"{name}: waiting until every node streams again")
    while True:
        session.check()
        cluster = _watch(session).latest(since)
        why = cluster.missing()
        if not why and needs_sync and cluster.synchronous is None:
            why = "no standby is synchronous yet"
        if not why:
            break
        if time.monotonic() > deadline:
            record.note(f"trial {number}: the lab was not whole again within {limit:g} s: {why}")
            progress.say(f"{name}: not whole again within {limit:g} s: {why}", "yellow")
            break
        progress.tick(why)
        time.sleep(POLL_S)
    looks = [look for look in _watch(session).history() if look.t >= effect]
    moment = first_again(looks, lambda look: not look.missing())
    if moment is not None:
        record.event("redundant", moment[0], trial=number, source="observer", uncertainty=moment[1])
    return not why


def first_again(looks: list[Cluster], holds: Callable[[Cluster], bool]) -> tuple[int, int] | None:
    """When something held again for good: (t, ± ns) of the first look from which on it holds.

    None where it does not hold at the last look. It may have become true at any moment since the
    look before: that distance is the uncertainty.
    """
    if not looks or not holds(looks[-1]):
        return None
    first = len(looks) - 1
    while first > 0 and holds(looks[first - 1]):
        first -= 1
    earlier = looks[first - 1].t if first > 0 else looks[first].t
    middle = (earlier + looks[first].t) // 2
    return middle, (looks[first].t - earlier) // 2 + looks[first].uncertainty


def _watch(session: Session) -> Watch:
    assert session.watch is not None
    return session.watch
