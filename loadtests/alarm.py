"""Wakes a greenlet at a moment, to some ten microseconds.

gevent's timers end in ``epoll_wait``, whose timeout is whole milliseconds, rounded up: a schedule kept
with ``gevent.sleep`` lags by 0.5 ms in the median. A Linux timer descriptor has no such limit.
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from time import monotonic_ns
from typing import Any

import gevent
from gevent import get_hub

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK = 0o4000
_TFD_CLOEXEC = 0o2000000
_ABSOLUTE = 1
_NS = 1_000_000_000


class Alarm:
    """One timer. For one greenlet at a time."""

    def __init__(self) -> None:
        self._libc: Any = None
        self._fd = -1
        with suppress(OSError, AttributeError):
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        self._watcher = get_hub().loop.io(self._fd, 1) if self._fd >= 0 else None

    def sleep_until(self, at_ns: int) -> None:
        """Let others run until the monotonic clock shows ``at_ns``; returns at once where it does."""
        left = at_ns - monotonic_ns()
        if left <= 0:
            return
        if self._watcher is None:
            gevent.sleep(left / _NS)
            return
        setting = struct.pack("qqqq", 0, 0, at_ns // _NS, at_ns % _NS)
        if self._libc.timerfd_settime(self._fd, _ABSOLUTE, setting, None):
            gevent.sleep(left / _NS)
            return
        get_hub().wait(self._watcher)
        with suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        """Let go of the descriptor. Idempotent."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
