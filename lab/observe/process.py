"""What every process of the observer shares: its configuration, the clock, the trial, and when to end."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.observe.config import Config
from lab.observe.schedule import NS


@dataclass(frozen=True)
class Context:
    """Given to a process when it is forked.

    ``base`` is when the schedules begin and ``end`` is the deadline, ns of the monotonic clock.
    ``shared_trial`` is memory shared with the supervisor (a C long long).
    """

    config: Config
    base: int
    end: int
    shared_trial: Any

    @property
    def trial(self) -> int:
        return int(self.shared_trial.value)


def now() -> int:
    """The observer's monotonic clock, ns (CLOCK_MONOTONIC: one for all processes of a machine)."""
    return time.monotonic_ns()


def die_with_parent() -> None:
    """Let the kernel end this process when the supervisor is gone, however it went (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        os.kill(os.getpid(), signal.SIGTERM)


class Stop:
    """Set by SIGTERM, SIGINT and the deadline."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self.event = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.event.set)
        loop.call_later(max(0.0, (context.end - now()) / NS), self.event.set)

    def __bool__(self) -> bool:
        return self.event.is_set()

    async def wait(self, seconds: float) -> bool:
        """Sleep, at most until the stop; true where it has come."""
        if seconds > 0:
            try:
                await asyncio.wait_for(self.event.wait(), seconds)
            except TimeoutError:
                return False
        return self.event.is_set()


def ticks(
    loop: asyncio.AbstractEventLoop, start: int, interval: int, call: Callable[[int, int], None]
) -> Callable[[], None]:
    """Call ``call(k, intended)`` for every k at start + k * interval, catching up after a stall.

    Returns a function that ends it. asyncio's clock is the monotonic one, so the times agree.
    """
    state: dict[str, Any] = {"k": 0, "handle": None}

    def run() -> None:
        moment = now()
        while (intended := start + state["k"] * interval) <= moment:
            k = state["k"]
            state["k"] = k + 1
            call(k, intended)
        state["handle"] = loop.call_at((start + state["k"] * interval) / NS, run)

    state["handle"] = loop.call_at(start / NS, run)
    return lambda: state["handle"].cancel()
