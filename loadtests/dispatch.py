"""Hands arrivals to users that are free.

An arrival goes to the user that has been free the longest. Where none is, it queues, and counts as
*dropped* once it has waited for ``drop_after``. Its intended time never changes. The *schedule lag*
is how late the generator itself was: from the intended time to the moment at which a free user had
the arrival, or, where none was free, at which the arrival was queued (the wait that follows is the
system's doing, and part of the response time).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import TYPE_CHECKING

from gevent import get_hub, getcurrent

from loadtests.histogram import Histogram

if TYPE_CHECKING:
    from loadtests.alarm import Alarm

Work = tuple[int, int]
"""Intended time (ns of the monotonic clock), and the number of the request to make."""


class _Waiter:
    """A user that is free."""

    __slots__ = ("switch", "work")

    def __init__(self, switch: Callable[[], object]) -> None:
        self.switch = switch
        self.work: Work | None = None


class Dispatcher:
    """One process's queue of arrivals and of users that are free."""

    def __init__(
        self,
        drop_after_ns: int,
        on_drop: Callable[[Work, int], None],
        *,
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        self.lag = Histogram()
        self.offered = 0
        self.dropped = 0
        self._drop_after = drop_after_ns
        self._on_drop = on_drop
        self._clock = clock
        self._queue: deque[Work] = deque()
        self._free: deque[_Waiter] = deque()
        self._ended = False

    @property
    def queued(self) -> int:
        """Arrivals that wait for a user."""
        return len(self._queue)

    @property
    def ended(self) -> bool:
        """Whether nothing more will be handed out."""
        return self._ended

    def take(self) -> Work | None:
        """The next piece of work, waiting for it; None once there is no more. Called by users."""
        self._drop_old()
        if self._queue:
            return self._queue.popleft()
        if self._ended:
            return None
        waiter = _Waiter(getcurrent().switch)
        self._free.append(waiter)
        try:
            get_hub().switch()
        except BaseException:
            # The user is being killed: it must not be given anything any more.
            if waiter.work is not None:
                self._on_drop(waiter.work, self._clock())
            elif waiter in self._free:
                self._free.remove(waiter)
            raise
        if waiter.work is not None:
            self.lag.add(self._clock() - waiter.work[0])
        return waiter.work

    def offer(self, work: Work) -> None:
        """An arrival whose time has come."""
        self.offered += 1
        self._drop_old()
        if self._free and not self._queue:
            waiter = self._free.popleft()
            waiter.work = work
            get_hub().loop.run_callback(waiter.switch)
        else:
            self.lag.add(max(0, self._clock() - work[0]))
            self._queue.append(work)

    def run(self, arrivals: Iterator[int], choose: Callable[[], int], start_ns: int, alarm: Alarm) -> None:
        """Offer arrivals (ns after ``start_ns``) at their time until they end, or ``end`` was called."""
        for at in arrivals:
            intended = start_ns + at
            alarm.sleep_until(intended)
            if self._ended:
                return
            self.offer((intended, choose()))

    def end(self) -> list[Work]:
        """Hand out nothing more: free users get None. Returns what was still queued."""
        self._ended = True
        left = list(self._queue)
        self._queue.clear()
        while self._free:
            get_hub().loop.run_callback(self._free.popleft().switch)
        return left

    def _drop_old(self) -> None:
        queue = self._queue
        if queue:
            now = self._clock()
            oldest = now - self._drop_after
            while queue and queue[0][0] <= oldest:
                self.dropped += 1
                self._on_drop(queue.popleft(), now)
