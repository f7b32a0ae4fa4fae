"""One process of the load: its users, its schedule, its record."""

from __future__ import annotations

import gc
import json
import os
import random
import resource
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any

import gevent
from gevent import GreenletExit
from gevent.event import Event

from loadtests.alarm import Alarm
from loadtests.arrivals import NS, schedule
from loadtests.cache import Cache, Keys
from loadtests.clock import measure
from loadtests.config import LoadConfig
from loadtests.dispatch import Dispatcher, Work
from loadtests.gauges import Gauges
from loadtests.outcomes import DROPPED, STOPPED
from loadtests.proof import prove_concurrency
from loadtests.recorder import FLUSH_S, Recorder
from loadtests.session import Session, read_password
from loadtests.user import PostgresUser, Request, requests_of

CONNECT_S = 15.0
"""How long all users may take to connect before the load gives up."""
DRAIN_S = 10.0
"""How long requests under way may take after the schedule's end."""
CLOCK_S = 10.0
"""Time between measurements of the offset to the observer's clock."""
GAUGES_S = 0.5
"""Time between rows of what the load counts of itself."""
START_DELAY_NS = 20_000_000
"""Between the decision to start and the first arrival."""


class Runtime:
    """What users, recorder and schedule of one process share; ``environment.runtime``."""

    def __init__(self, config: LoadConfig, worker: int, user_class: type[PostgresUser]) -> None:
        self.config = config
        self.worker = worker
        self.requests: list[Request] = requests_of(user_class)
        if not self.requests:
            raise ValueError(f"workload {config.workload}: no method is marked with @request")
        self.out = Path(config.out)
        self.recorder = Recorder(str(self.out / f"requests.{worker}.bin"), config.run, worker, self._told)
        self.on_rows: Callable[[memoryview], None] | None = None
        self.dispatcher = Dispatcher(round(config.drop_after_s * NS), self._dropped)
        self.finished: Any = Event()
        self.failure: str | None = None
        self.proof: dict[str, float] = {}
        self.setup = 0
        """Statements that were sent before the first request."""
        self.clocks: list[dict[str, int]] = []
        self._user_class = user_class
        self._users: set[PostgresUser] = set()
        self._number = 0
        self.gauges = Gauges(str(self.out / f"metrics.load-{worker}.jsonl"), config.node, worker)
        self._roles = {route: role for route, role in (config.roles or {}).items() if role != config.user}
        self._passwords = {role: read_password(config, role) for role in (None, *self._roles.values())}
        self._keys = Keys(config.cache, self.gauges) if config.cache else None
        self._go = Event()
        self._stopping = False
        self._errors: dict[str, tuple[int, str]] = {}
        self._cpu = self._begun = 0.0
        self._end_ns: int | None = None
        rng = random.Random(f"{config.seed}/{worker}/mix")
        bounds = list(accumulate(request.weight for request in self.requests))
        self._choose: Callable[[], int] = lambda: bisect(bounds, rng.random() * bounds[-1])
        self.take: Callable[[], Work | None] = (
            self._take_closed if config.arrivals == "closed" else self.dispatcher.take
        )

    def open(self, route: str, rng: random.Random) -> Session:
        """A session (not connected yet) to where a route leads, as the role that the route has."""
        role = self._roles.get(route)
        return Session(self.config, self.config.route(route), self._passwords[role], rng, role)

    def lasting_sessions(self, rng: random.Random) -> dict[str, Session]:
        """Route → session, for every route of a request that is not ``fresh``."""
        made: dict[tuple[str, str | None], Session] = {}
        found: dict[str, Session] = {}
        for route in dict.fromkeys(request.route for request in self.requests if not request.fresh):
            key = self.config.route(route).name, self._roles.get(route)
            found[route] = made[key] = made.get(key) or self.open(route, rng)
        return found

    @property
    def clock(self) -> float:
        """How many times faster than the document's the application's timeouts run."""
        return self.config.cache.clock if self.config.cache else 1.0

    def new_cache(self) -> Cache | None:
        """One client of the cache, None where the load has none."""
        return Cache(self._keys, self.recorder) if self._keys else None

    def next_user(self) -> int:
        """A number for a new user, unique in this process."""
        self._number += 1
        return self._number

    def joined(self, user: PostgresUser) -> None:
        """A user begins: open its sessions. They come back by themselves should that fail later."""
        deadline = monotonic() + CONNECT_S
        for session in set(user.lasting.values()):
            while not session.connected:
                try:
                    session.connect()
                except Exception as error:
                    self.note_error(session.failed(error), error)
                    if monotonic() > deadline:
                        self.fail(f"no connection to {session.target.name}: {_first_line(error)}")
                        raise GreenletExit from None
                    session.back_off()
        if user.cache is not None:
            user.cache.connect()
        self._users.add(user)
        if self._go.is_set() or self._stopping:
            return
        self._go_if_all()
        # A user that waits here is woken by the start (closed) or by its first work (open).
        if self.config.arrivals == "closed":
            self._go.wait()

    def left(self, user: PostgresUser) -> None:
        """A user is gone."""
        self._users.discard(user)

    def expect(self, users: int) -> None:
        """Spawning is complete, with this many users in this process: start once all are connected."""
        self._expected = users
        self._go_if_all()

    _expected: int | None = None
    _starting = False

    def _go_if_all(self) -> None:
        if not self._starting and self._expected is not None and len(self._users) >= self._expected:
            self._starting = True
            gevent.spawn(self._start)

    def _start(self) -> None:
        try:
            self._prove(list(self._users))
            self.measure_clock()
        except Exception as error:
            self.fail(f"{type(error).__name__}: {_first_line(error)}")
            return
        gevent.spawn(self._every, FLUSH_S, self.recorder.flush)
        gevent.spawn(self._every, GAUGES_S, self.write_gauges)
        self.write_gauges()
        if self.config.clock:
            gevent.spawn(self._every, CLOCK_S, self.measure_clock)
        # What was made so far stays; a full collection over Locust's modules would stop all users for 50 ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 1000)
        self._cpu, self._begun = _cpu_seconds(), monotonic()
        self._go.set()
        start = monotonic_ns() + START_DELAY_NS
        (self.out / f"started.{self.worker}").write_text(f"{start}\n", encoding="ascii")
        if self.config.arrivals == "closed":
            if self.config.duration_s is not None:
                self._end_ns = start + round(self.config.duration_s * NS)
                gevent.sleep(self.config.duration_s)
                self.stop()
            return
        alarm = Alarm()
        try:
            self.dispatcher.run(schedule(self.config, self.worker), self._choose, start, alarm)
        finally:
            alarm.close()
        self._drain()

    def _prove(self, users: list[PostgresUser]) -> None:
        """Prepare the workload, and prove that its users run at the same time."""
        first = self.requests[0]
        rng = random.Random(0)
        opened = self.open(first.route, rng)
        # Where a workload has no lasting connections, those of the proof go at its end.
        sessions = [next(iter(u.lasting.values()), None) or self.open(first.route, rng) for u in users]
        try:
            opened.tag = f"/* {first.service} prepare */ "
            self._user_class.prepare(opened)
            # In session pooling it would keep a server connection that the proof may need.
            opened.close()
            self.proof = prove_concurrency([_sleeper(session) for session in sessions], self.config.proof)
            self.setup = sum(session.executed for session in {opened, *sessions})
        finally:
            for session in (opened, *sessions):
                if not any(session in user.lasting.values() for user in users):
                    session.close()

    def write_gauges(self) -> None:
        """Put what the load counts of itself into the record."""
        self.gauges.write(self.clocks[-1]["offset_ns"] if self.clocks else 0)

    def _drain(self) -> None:
        """After the schedule's end: queued work is done or dropped, what is under way is awaited."""
        deadline = monotonic() + self.config.drop_after_s + 1
        while self.dispatcher.queued and monotonic() < deadline and not self._stopping:
            gevent.sleep(0.05)
        self.stop()

    def stop(self) -> None:
        """End: nothing new begins; requests under way get ``DRAIN_S``. Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        now = monotonic_ns()
        for work in self.dispatcher.end():
            self._unserved(work, now, STOPPED)
        self._go.set()
        gevent.spawn(self._await_users)

    def _await_users(self) -> None:
        deadline = monotonic() + DRAIN_S
        while self._users and monotonic() < deadline:
            gevent.sleep(0.02)
        self.finished.set()

    def fail(self, why: str) -> None:
        """Give up: the load says nothing."""
        self.failure = self.failure or why
        self.stop()

    def measure_clock(self) -> None:
        """Measure the offset to the observer's clock and put it into the record."""
        if self.config.clock and (offset := measure(self.config.clock)):
            self.recorder.clock(offset.offset_ns, offset.uncertainty_ns, offset.at_ns)
            self.clocks.append(
                {
                    "offset_ns": offset.offset_ns,
                    "uncertainty_ns": offset.uncertainty_ns,
                    "at_ns": offset.at_ns,
                }
            )

    def note_error(self, outcome: str, error: BaseException) -> None:
        """Keep one message of each kind of error, and how often it came."""
        count, message = self._errors.get(outcome, (0, ""))
        self._errors[outcome] = (count + 1, message or _first_line(error))

    def close(self) -> dict[str, Any]:
        """End the record; returns (and writes) the summary of this process."""
        self.recorder.flush()
        self.write_gauges()
        self.gauges.close()
        self.measure_clock()
        self.recorder.close()
        seconds = monotonic() - self._begun if self._begun else 0.0
        summary = {
            "worker": self.worker,
            "pid": os.getpid(),
            "failure": self.failure,
            "requests": self.recorder.rows,
            "served": self.gauges.in_flight.ended,
            "offered": self.dispatcher.offered,
            "dropped": self.dispatcher.dropped,
            "errors": {k: {"count": n, "example": text} for k, (n, text) in sorted(self._errors.items())},
            "lag": self.dispatcher.lag.to_json(),
            "cpu_seconds": _cpu_seconds() - self._cpu if self._begun else 0.0,
            "seconds": seconds,
            "proof": self.proof,
            "setup": self.setup,
            "clocks": self.clocks,
        }
        (self.out / f"summary.{self.worker}.json").write_text(json.dumps(summary), encoding="utf-8")
        return summary

    def _take_closed(self) -> Work | None:
        if self._stopping:
            return None
        now = monotonic_ns()
        if self._end_ns is not None and now >= self._end_ns:
            return None
        return now, self._choose()

    def _dropped(self, work: Work, now: int) -> None:
        self._unserved(work, now, DROPPED)

    def _unserved(self, work: Work, now: int, outcome: str) -> None:
        request, record = self.requests[work[1]], self.recorder
        endpoint = self.config.route(request.route).name
        record.dropped(
            work[0],
            now,
            record.id("name", request.name),
            record.id("endpoint", endpoint),
            record.id("outcome", outcome),
        )

    def _told(self, rows: memoryview) -> None:
        if self.on_rows:
            self.on_rows(rows)

    def _every(self, seconds: float, action: Callable[[], None]) -> None:
        while not self.finished.wait(seconds):
            action()


def _sleeper(session: Session) -> Callable[[float], object]:
    return lambda seconds: session.one("SELECT pg_sleep(%s)", (seconds,))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
