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
``route`` sends it elsewhere: ``direct`` past the poolers to the primary, ``<mode>.writer`` and
``<mode>.reader`` to the pooler of a mode. ``fresh=True`` opens a connection for the request alone, whose
time is part of it; the others share the client's lasting ones.
An exception that leaves the method makes the request fail, classed by ``outcomes.classify``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from gevent import GreenletExit
from locust import User, task
from locust.user.task import LOCUST_STATE_RUNNING

from loadtests.outcomes import OK, STOPPED
from loadtests.session import Session

if TYPE_CHECKING:
    from loadtests.config import LoadConfig
    from loadtests.runtime import Runtime

F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True)
class Request:
    """What the decorator ``request`` noted of a method."""

    method: str
    name: str
    weight: float
    reads: bool
    route: str = "writer"
    fresh: bool = False
    service: str = ""
    """The workload that defines it."""

    @property
    def tag(self) -> str:
        """The comment that leads its statements."""
        return f"/* {self.service} {self.route} */ "


def request(
    name: str, *, weight: int = 1, reads: bool = False, route: str | None = None, fresh: bool = False
) -> Callable[[F], F]:
    """Make a method a request of the workload.

    Args:
        name: what it is called everywhere; keep identifiers out of it (``GET /trades/{id}``).
        weight: its share in the mix, relative to the other weights.
        reads: it only reads, and may see a replica's slightly older state.
        route: where it goes; by default ``reader`` if it ``reads``, else ``writer``.
        fresh: on a connection of its own.
    """

    def mark(function: F) -> F:
        where = route or ("reader" if reads else "writer")
        cast(Any, function).request = Request(function.__name__, name, weight, reads, where, fresh)
        return cast(F, task(weight)(function))

    return mark


def requests_of(user_class: type) -> list[Request]:
    """The requests of a workload, in the order in which they are defined.

    Where a workload is made of others, its ``shares`` say how large each one's part is, and ``via`` which
    poolers they use.
    """
    found: dict[str, Request] = {}
    for base in reversed(user_class.__mro__):
        service = base.__module__.rpartition(".")[2].replace("_", "-")
        for name, value in vars(base).items():
            noted = getattr(value, "request", None)
            if isinstance(noted, Request):
                found[name] = replace(noted, service=service)
    requests = [_moved(noted, getattr(user_class, "via", {})) for noted in found.values()]
    shares: Mapping[str, float] = getattr(user_class, "shares", {})
    whole: dict[str, float] = {}
    for noted in requests:
        whole[noted.service] = whole.get(noted.service, 0) + noted.weight
    if not shares:
        return requests
    return [replace(n, weight=n.weight * shares[n.service] / whole[n.service]) for n in requests]


def _moved(noted: Request, via: Mapping[str, str]) -> Request:
    """The request, at the pooler that its service goes through."""
    if noted.service in via and noted.route in ("writer", "reader"):
        return replace(noted, route=f"{via[noted.service]}.{noted.route}")
    return noted


class PostgresUser(User):  # type: ignore[misc,unused-ignore]
    """One client: a lasting session to each endpoint that it uses, one request at a time."""

    abstract = True
    uses_cache: ClassVar[bool] = False
    """Whether it looks into the cache, where there is one."""
    shares: ClassVar[Mapping[str, float]] = {}
    """Of a workload that is made of others: workload → its part in the mix, percent."""
    via: ClassVar[Mapping[str, str]] = {}
    """Of such a workload: workload → mode of the pooler that it goes through, where not the load's own."""
    interactive: ClassVar[bool] = True
    """Whether somebody waits for its requests. Reports and jobs run in the background: where a workload mixes
    both, an objective's percentiles are of the others."""
    transactions: ClassVar[bool] = True
    """Whether the workload needs transactions of several statements (statement pooling has none)."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        runtime: Runtime = environment.runtime
        self.runtime = runtime
        self.number = runtime.next_user()
        """From 1, unique in its worker."""
        self.rng = random.Random(f"{runtime.config.seed}/{runtime.worker}/user/{self.number}")
        self.lasting = runtime.lasting_sessions(self.rng)
        """Route → session; routes that lead to one endpoint share one."""
        self.cache = runtime.new_cache()
        """None where the topology has no cache, or the load is to do without."""

    @classmethod
    def configured(cls, config: LoadConfig) -> type[PostgresUser]:  # noqa: ARG003
        """The class for a configuration, where that decides what its requests are."""
        return cls

    @classmethod
    def prepare(cls, db: Session) -> None:
        """Look up what the workload must know of the data. Called once a process, before the load."""

    def cached(self, key: str, load: Callable[[], Any]) -> Any:
        """A value from the cache, or from ``load`` (which is then put there). Raises what ``load`` raises."""
        return load() if self.cache is None else self.cache.get(key, load)

    def forget(self, *keys: str) -> None:
        """Take values that were changed out of the cache."""
        if self.cache is not None:
            self.cache.forget(*keys)

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
            for session in self.lasting.values():
                session.close()
            if self.cache is not None:
                self.cache.close()

    def _serve(self) -> None:
        runtime = self.runtime
        take, add, user = runtime.take, runtime.recorder.add, self.number
        plan: list[tuple[Callable[[Session], None], Request, Session | None, int, int]] = []
        fresh = runtime.config.connections == "per-request"
        if fresh:
            for opened in self.lasting.values():
                opened.close()
        for noted in runtime.requests:
            session = None if noted.fresh or fresh else self.lasting[noted.route]
            name = runtime.recorder.id("name", noted.name)
            endpoint = runtime.recorder.id("endpoint", runtime.config.route(noted.route).name)
            plan.append((getattr(self, noted.method), noted, session, name, endpoint))
        ok = runtime.recorder.id("outcome", OK)
        clock = monotonic_ns
        in_flight = runtime.gauges.in_flight
        while self._state is LOCUST_STATE_RUNNING:
            work = take()
            if work is None:
                return
            intended, number = work
            function, noted, lasting, name, endpoint = plan[number]
            in_flight.add(1)
            started = clock()
            session = lasting or runtime.open(noted.route, self.rng)
            session.tag = noted.tag
            try:
                function(session)
                if fresh:
                    session.close()
            except GreenletExit:
                add(intended, started, clock(), name, endpoint, runtime.recorder.id("outcome", STOPPED), user)
                in_flight.add(-1)
                raise
            except Exception as error:
                outcome = session.failed(error)
                add(intended, started, clock(), name, endpoint, runtime.recorder.id("outcome", outcome), user)
                in_flight.add(-1)
                runtime.note_error(outcome, error)
                session.warned = None
                if lasting is not None:
                    session.back_off()
            else:
                if session.warned is None:
                    add(intended, started, clock(), name, endpoint, ok, user)
                else:
                    warned = runtime.recorder.id("outcome", session.warned)
                    add(intended, started, clock(), name, endpoint, warned, user)
                    session.warned = None
                in_flight.add(-1)
                if session.failures:
                    session.failures = 0
            if lasting is None:
                session.close()
