"""The PostgreSQL user class that workloads are written on.

    class Shop(PostgresUser):
        @request("GET /orders/{id}", weight=9, reads=True)
        def order(self, db: Session) -> None:
            db.one("SELECT … WHERE id = %s", (self.rng.randrange(1000),))

        @request("POST /orders")
        def place(self, db: Session) -> None:
            with db.transaction():
                …

A method is one request of the application: it is recorded under its name, with one outcome, whatever
the number of its statements. ``reads=True`` sends it to the reader endpoint, where there is one.
An exception that leaves the method makes the request fail, classed by ``outcomes.classify``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from gevent import GreenletExit
from locust import User, task
from locust.user.task import LOCUST_STATE_RUNNING

from loadtests.outcomes import OK, STOPPED
from loadtests.session import Session

if TYPE_CHECKING:
    from loadtests.runtime import Runtime

F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True)
class Request:
    """What the decorator ``request`` noted of a method."""

    method: str
    name: str
    weight: int
    reads: bool


def request(name: str, *, weight: int = 1, reads: bool = False) -> Callable[[F], F]:
    """Make a method a request of the workload.

    Args:
        name: what it is called everywhere; keep identifiers out of it (``GET /trades/{id}``).
        weight: its share in the mix, relative to the other weights.
        reads: it only reads, and may see a replica's slightly older state.
    """

    def mark(function: F) -> F:
        cast(Any, function).request = Request(function.__name__, name, weight, reads)
        return cast(F, task(weight)(function))

    return mark


def requests_of(user_class: type) -> list[Request]:
    """The requests of a workload, in the order in which they are defined."""
    found: dict[str, Request] = {}
    for base in reversed(user_class.__mro__):
        for name, value in vars(base).items():
            noted = getattr(value, "request", None)
            if isinstance(noted, Request):
                found[name] = noted
    return list(found.values())


class PostgresUser(User):  # type: ignore[misc,unused-ignore]
    """One client: lasting sessions to writer and reader, one request at a time."""

    abstract = True
    transactions: ClassVar[bool] = True
    """Whether the workload needs transactions of several statements (statement pooling has none)."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        runtime: Runtime = environment.runtime
        self.runtime = runtime
        number = runtime.next_user()
        self.rng = random.Random(f"{runtime.config.seed}/{runtime.worker}/user/{number}")
        self.writer = runtime.session(runtime.config.writer, self.rng)
        self.reader = (
            runtime.session(runtime.config.reader, self.rng) if runtime.config.reader else self.writer
        )

    @classmethod
    def prepare(cls, db: Session) -> None:
        """Look up what the workload must know of the data. Called once a process, before the load."""

    def run(self) -> None:  # type: ignore[misc,unused-ignore]
        """Serve work until there is no more. Locust calls it in the user's own greenlet.

        Replaces Locust's own loop (marked final), which knows no schedule.
        """
        self._state = LOCUST_STATE_RUNNING
        try:
            self.runtime.joined(self)
            self._serve()
        except GreenletExit:
            pass
        finally:
            self.runtime.left(self)
            self.writer.close()
            self.reader.close()

    def _serve(self) -> None:
        runtime = self.runtime
        take, add = runtime.take, runtime.recorder.add
        plan: list[tuple[Callable[[Session], None], Session, int, int]] = []
        for noted in runtime.requests:
            session = self.reader if noted.reads else self.writer
            name = runtime.recorder.id("name", noted.name)
            endpoint = runtime.recorder.id("endpoint", session.target.name)
            plan.append((getattr(self, noted.method), session, name, endpoint))
        ok = runtime.recorder.id("outcome", OK)
        clock = monotonic_ns
        while self._state is LOCUST_STATE_RUNNING:
            work = take()
            if work is None:
                return
            intended, number = work
            function, session, name, endpoint = plan[number]
            started = clock()
            try:
                function(session)
            except GreenletExit:
                add(intended, started, clock(), name, endpoint, runtime.recorder.id("outcome", STOPPED))
                raise
            except Exception as error:
                outcome = session.failed(error)
                add(intended, started, clock(), name, endpoint, runtime.recorder.id("outcome", outcome))
                runtime.note_error(outcome, error)
                session.warned = None
                session.back_off()
            else:
                if session.warned is None:
                    add(intended, started, clock(), name, endpoint, ok)
                else:
                    warned = runtime.recorder.id("outcome", session.warned)
                    add(intended, started, clock(), name, endpoint, warned)
                    session.warned = None
                if session.failures:
                    session.failures = 0
