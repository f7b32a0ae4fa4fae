"""Plays the steps of a trial: faults that overlap, waits with limits, assertions; heals what it broke.

Only one thread decides. What takes time in the lab (injecting, verifying, healing) is done by workers, so
that a fault is healed on time and an assertion is looked at while another fault is being verified.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TypeVar

from lab.errors import LabError
from lab.faults import Effect, Fault, Instructions, find
from lab.faults._base import Moves, plan_for, sort_of, traits
from lab.record.schema import NS
from lab.scenario import targets
from lab.scenario.cluster import Cluster
from lab.scenario.conditions import STALE_S, Assertion, Seen, look
from lab.scenario.journal import Journal
from lab.scenario.models import Step
from lab.scenario.plan import need_s
from lab.scenario.progress import Progress
from lab.scenario.session import Session
from lab.topology.models import Topology

POLL_S = 0.2
HEAL_ATTEMPTS = 3
WORKERS = 8
DEADLINE_MARGIN_S = 60.0
"""How long after the runner would have healed a node undoes its fault by itself."""

_T = TypeVar("_T")


@dataclass
class Hit:
    """A fault on one node."""

    step: int
    fault: Fault
    node: str
    instructions: Instructions
    entry: int
    """Of the journal."""
    effect: Effect | None = None
    due: int | None = None
    """When it is to be healed: ns of the observer's clock; None: after the window."""
    healing: Future[None] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the fault is healed, or put back."""
    over: bool = False
    """It is being healed, and must not be put back any more."""


@dataclass
class _Begun:
    """A fault step that took effect."""

    hits: list[Hit]
    at: int


class Story:
    """One trial's steps. A context: leaving it waits for its workers, and heals nothing by itself."""

    def __init__(
        self, session: Session, journal: Journal, before: Cluster, number: int, progress: Progress
    ) -> None:
        self.session, self.journal, self.progress = session, journal, progress
        self.record, self.clock, self.plan = session.record, session.clock, session.plan
        self.number = number
        self.name = f"trial {number} of {self.plan.trials}"
        self.leader_before = before.leader or ""
        self.hits: list[Hit] = []
        self.assertions: list[Assertion] = []
        self.effective = True
        """False: an independent look did not find a fault in effect."""
        self.complete = True
        """False: a step did not come about."""
        self.first_effect: int | None = None
        self.moved_at: int | None = None
        """When the first fault began that may move the leader."""
        self.window_end: int | None = None
        self._zero = self.clock.now()
        self._told: int | None = None
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="story")

    def __enter__(self) -> Story:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    # --- the story

    def play(self, steps: Sequence[Step]) -> None:
        """Every step in order. What did not come about in its time ends the story (``complete``)."""
        for number, step in enumerate(steps, 1):
            due = self._zero + round((step.at or 0.0) * NS)
            while (left := due - self.clock.now()) > 0:
                self._turn(f"{left / NS:.0f} s until step {number}", left)
            done = step.when is None or self._until(number, step.when, step.within)
            if done and step.fault:
                done = self._inject(number, step, find(step.fault))
            elif done and step.until:
                done = self._until(number, step.until, step.within)
            elif done and step.claim:
                self._assert(number, step)
            if not done:
                self.complete = False
                return

    def _until(self, number: int, condition: str, within_s: float) -> bool:
        limit = self.clock.now() + round(within_s * NS)
        self.progress.phase(f"{self.name}: step {number}, until {condition}")
        while True:
            seen = self._see(condition)
            if seen.holds:
                self._event("condition", detail={"step": number, "condition": condition, "how": seen.how})
                return True
            left = limit - self.clock.now()
            if left <= 0:
                return self._failed(number, f"{condition}: not within {within_s:g} s ({seen.how})")
            self._turn(f"{left / NS:.0f} s left; {seen.how}", left)

    def _assert(self, number: int, step: Step) -> None:
        now = self.clock.now()
        end = now + round(step.throughout * NS) if isinstance(step.throughout, float) else None
        self.assertions.append(Assertion(number, str(step.claim), now, end))
        if end is not None:
            self._extend(end)
        detail = {"step": number, "condition": step.claim, "throughout": step.throughout}
        self._event("assert-begin", at=now, detail=detail)
        self._look_at_assertions()

    def _failed(self, number: int, why: str) -> bool:
        self._event("step-failed", detail={"step": number, "why": why})
        self.record.note(f"trial {self.number}: step {number} did not come about: {why}")
        self.progress.say(f"{self.name}: step {number} did not come about: {why}", "yellow")
        self.complete = False
        return False

    # --- faults

    def _inject(self, number: int, step: Step, fault: Fault) -> bool:
        nodes = self._find(number, step)
        if not nodes:
            return False
        lab, known = self.session.lab, traits(fault)
        what = f"{fault.name} on {', '.join(nodes)}"
        self.progress.phase(f"{self.name}: {what}; clients are watched")
        deadline = (step.duration if step.duration is not None else self.plan.longest_s) + DEADLINE_MARGIN_S
        plans = self._together([partial(plan_for, fault, lab, node, nodes) for node in nodes])
        # All of them are on disk before the first is injected.
        hits = []
        for node, plan in zip(nodes, plans, strict=True):
            instructions = {**plan, "deadline_s": round(deadline, 1)}
            entry = self.journal.begin("heal", fault=fault.name, instructions=instructions,
                                       trial=self.number, step=number)  # fmt: skip
            hits.append(Hit(number, fault, node, instructions, entry))
        self.hits += hits
        moves = effective_moves(fault, nodes, lab.topology, self._leader())
        if moves != "no" and self.moved_at is None:
            self.moved_at = self.clock.now()
        self._event("fault-begin", node=nodes[0] if len(nodes) == 1 else None, detail={
            "fault": fault.name, "target": step.target, "resolved": ", ".join(nodes), "targets": list(nodes),
            "kind": known.kind, "moves_leader": moves, "step": number, "for": step.duration,
        })  # fmt: skip
        try:
            effects = self._together([partial(self._hit, hit) for hit in hits])
        except LabError as error:
            if self.first_effect is None:
                raise
            return self._failed(number, f"{what}: {error}")
        begun = self._took_effect(number, fault, hits, effects)
        given = self.plan.scenario.recovery.window
        if given == "auto":
            self._extend(begun.at + round(need_s(step, lab.topology) * NS))
        elif begun.at == self.first_effect:
            self._extend(begun.at + round(given * NS))
        verified = self._verify(fault, number, begun.hits)
        # Not before: a fault that is being healed would not be found in effect.
        if step.duration is not None and not known.ends_itself:
            for hit in hits:
                hit.due = begun.at + round(step.duration * NS)
        return verified

    def _find(self, number: int, step: Step) -> tuple[str, ...]:
        """The nodes of a target. From the second fault on there may be none for a while."""
        limit = self.clock.now() + round(step.within * NS)
        while True:
            try:
                cluster = self._cluster()
                if cluster is None:
                    raise LabError("the cluster was not seen for some seconds")
                find_them = partial(targets.find, step.target, self.session.lab, cluster)
                return self._together([find_them])[0]
            except LabError as error:
                if self.first_effect is None:
                    raise
                left = limit - self.clock.now()
                if left <= 0:
                    self._failed(number, f"no target {step.target} within {step.within:g} s: {error}")
                    return ()
                self._turn(f"step {number}: {error}", left)

    def _hit(self, hit: Hit) -> Effect:
        hit.effect = hit.fault.inject(self.session.lab, hit.node, hit.instructions)
        return hit.effect

    def _took_effect(self, number: int, fault: Fault, hits: list[Hit], effects: list[Effect]) -> _Begun:
        # Both clocks anew: the moment comes as wall clock, and that may have been stepped meanwhile.
        self.clock.refresh()
        moments = []
        for effect in effects:
            middle = (effect.wall_earliest + effect.wall_latest) / 2
            half = round((effect.wall_latest - effect.wall_earliest) / 2 * NS)
            at = self.clock.from_wall(middle)
            moments.append(at)
            self.record.event("fault-effect", at, trial=self.number, node=effect.node, source="engine",
                              uncertainty=half + self.clock.wall_uncertainty,
                              detail={"fault": fault.name, "step": number})  # fmt: skip
        begun = _Begun(hits, min(moments))
        if self.first_effect is None:
            self.first_effect = begun.at
            self.session.live.fault(begun.at)
        return begun

    def _verify(self, fault: Fault, number: int, hits: list[Hit]) -> bool:
        found = self._together([partial(fault.verify, self.session.lab, _effect(hit)) for hit in hits])
        for hit, evidence in zip(hits, found, strict=True):
            kind = "fault-verified" if evidence.found else "fault-absent"
            self._event(kind, node=_effect(hit).node, detail={"how": evidence.how, "step": number})
            if not evidence.found:
                self.effective = False
                self.record.note(f"trial {self.number}: the fault did not take effect: {evidence.how}")
                self.progress.say(f"{self.name}: the fault did not take effect: {evidence.how}", "yellow")
        return self.effective

    # --- the window

    def watch(self) -> None:
        """Until the window ends, and every assertion and healing within it."""
        while True:
            now = self.clock.now()
            end = self.window_end if self.window_end is not None else now
            if now >= end and all(hit.healing is None or hit.healing.done() for hit in self.hits):
                break
            self._turn(self._seen(max(0, end - now)), end - now)
        self._look_at_assertions(last=True)
        self._say_recovery()

    def heal(self) -> None:
        """Heal what is still in force, the newest first, and see that all is healed. LabError where not."""
        self._look_at_assertions(last=True)
        waiting = [hit for hit in self.hits if hit.healing is None]
        for step in sorted({hit.step for hit in waiting}, reverse=True):
            mine = [hit for hit in waiting if hit.step == step]
            names = ", ".join(hit.node for hit in mine)
            self.progress.phase(f"{self.name}: healing {mine[0].fault.name} on {names}")
            for hit in mine:
                self._start_healing(hit)
            self._wait([hit.healing for hit in mine if hit.healing])
        self._wait([hit.healing for hit in self.hits if hit.healing])
        for hit in self.hits:
            assert hit.healing is not None
            hit.healing.result()
        # A node that was killed lost its agent.
        names = ", ".join(sorted({hit.node for hit in self.hits if hit.effect and hit.effect.node}))
        if names:
            self.session.start_agents(names.split(", "))

    def _start_healing(self, hit: Hit) -> None:
        hit.healing = self._pool.submit(self._heal, hit)

    def _heal(self, hit: Hit) -> None:
        """Undo one fault and see that it is undone. LabError where it is not, after some attempts."""
        node = hit.effect.node if hit.effect else hit.node
        instructions = hit.effect.heal if hit.effect else hit.instructions
        self._event("heal-begin", node=node, detail={"step": hit.step})
        how = ""
        for attempt in range(HEAL_ATTEMPTS):
            try:
                with hit.lock:
                    hit.over = True
                    hit.fault.heal(self.session.lab, instructions)
                if attempt == 0:
                    self._event("heal-end", node=node, detail={"step": hit.step})
                self._reapply(hit)
                evidence = hit.fault.verify_healed(self.session.lab, instructions)
            except LabError as error:
                how = str(error)
                time.sleep(1)
                continue
            how = evidence.how
            if evidence.found:
                self.journal.done(hit.entry)
                self._event("heal-verified", node=node, detail={"how": how, "step": hit.step})
                return
        raise LabError(f"{hit.fault.name} on {hit.node} could not be healed: {how}")

    def _reapply(self, healed: Hit) -> None:
        """What another step did to the node goes on, though healing this one may have started it anew."""
        for hit in self.hits:
            again = getattr(hit.fault, "reapply", None)
            if hit is healed or again is None or hit.effect is None or hit.effect.node != healed.node:
                continue
            with hit.lock:
                put_back = not hit.over and again(self.session.lab, hit.effect)
            if put_back:
                self._event(
                    "fault-again", node=hit.effect.node, detail={"fault": hit.fault.name, "step": hit.step}
                )
                self.record.note(
                    f"trial {self.number}: {hit.fault.name} was put back on {healed.node}, which "
                    f"had been started anew by the healing of {healed.fault.name}"
                )

    # --- one turn

    def _turn(self, said: str, left: int = NS) -> None:
        """Heal what is due, look at assertions, tell the user, wait a moment (at most ``left`` ns)."""
        self.session.check()
        now = self.clock.now()
        wait = min(POLL_S, max(0.0, left / NS))
        for hit in self.hits:
            if hit.due is None or hit.healing is not None:
                if hit.healing is not None and hit.healing.done():
                    hit.healing.result()
                continue
            if hit.due <= now:
                self.progress.say(f"{self.name}: healing {hit.fault.name} on {hit.node}, its time is over")
                self._start_healing(hit)
            else:
                wait = min(wait, (hit.due - now) / NS)
        self._look_at_assertions()
        self.progress.tick(said)
        time.sleep(wait)

    def _together(self, jobs: Sequence[Callable[[], _T]]) -> list[_T]:
        """Do things at once, each by a worker, and keep the story going meanwhile."""
        futures = [self._pool.submit(job) for job in jobs]
        self._wait(futures)
        return [future.result() for future in futures]

    def _wait(self, futures: Sequence[Future[_T]]) -> None:
        while not all(future.done() for future in futures):
            self._turn(self._seen(None), NS // 20)

    def _look_at_assertions(self, *, last: bool = False) -> None:
        now = self.clock.now()
        for one in list(self.assertions):
            if one.take(self._see(one.condition), now):
                detail = {"step": one.step, "condition": one.condition, "why": one.why}
                self._event("assert-failed", at=now, detail=detail)
                self.progress.say(f"{self.name}: {one.condition} did not hold: {one.why}", "yellow")
            if last or one.over(now, self.window_end):
                self._event("assert-end", at=now, detail=one.result(now))
                self.assertions.remove(one)

    # --- small things

    def _extend(self, end: int) -> None:
        self.window_end = max(self.window_end or end, end)

    def _cluster(self) -> Cluster | None:
        """The newest look at the cluster, None where there is no recent one."""
        newest = self.session.watch.newest() if self.session.watch is not None else None
        return newest if newest and self.clock.now() - newest.t <= STALE_S * NS else None

    def _leader(self) -> str | None:
        cluster = self._cluster()
        return cluster.leader if cluster else None

    def _see(self, condition: str) -> Seen:
        return look(condition, self._cluster(), self.session.live, self.leader_before, self.clock.now())

    def _event(
        self,
        kind: str,
        *,
        at: int | None = None,
        node: str | None = None,
        detail: Mapping[str, object] | None = None,
    ) -> None:
        self.record.event(kind, self.clock.now() if at is None else at, trial=self.number, node=node,
                          uncertainty=self.clock.uncertainty, detail=detail)  # fmt: skip

    def _seen(self, left: int | None) -> str:
        """What clients see now, as far as can be told live."""
        recovery = self.session.live.recovery()
        if recovery.first_good is not None and recovery.first_good != self._told:
            self._told = recovery.first_good
        said = "no write failed yet"
        if recovery.bad:
            said = f"{recovery.bad} writes failed, still down"
        if self._told is not None and recovery.first_good is not None and self.first_effect is not None:
            said = f"writes again after {(self._told - self.first_effect) / NS:.2f} s"
        return said if left is None else f"{left / NS:.0f} s left; {said}"

    def _say_recovery(self) -> None:
        recovery = self.session.live.recovery()
        if recovery.first_good is not None and self.first_effect is not None:
            took = (recovery.first_good - self.first_effect) / NS
            self.progress.say(f"{self.name}: writes again {took:.2f} s after the fault (estimate)")
        elif recovery.bad:
            self.progress.say(f"{self.name}: writes did not recover within the window", "yellow")
        else:
            self.progress.say(f"{self.name}: no write failed or was slow")


def _effect(hit: Hit) -> Effect:
    assert hit.effect is not None
    return hit.effect


def effective_moves(fault: Fault, nodes: Sequence[str], topology: Topology, leader: str | None) -> Moves:
    """Whether a fault on these nodes changes the leader: what it says of itself, where it can reach it.

    On other nodes than the leader and etcd's members nothing but an operator's action does; a proxy may stand
    on any path.
    """
    known = traits(fault)
    if known.moves_leader == "no" or known.kind == "operator" or leader is None or leader in nodes:
        return known.moves_leader
    sorts = {sort_of(topology, node) for node in nodes}
    return "maybe" if sorts & {"etcd", "proxy", None} else "no"
