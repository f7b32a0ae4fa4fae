"""Ending a process made of threads."""

from __future__ import annotations

import signal
import threading


def stop_event() -> threading.Event:
    """Set by SIGTERM and SIGINT. Call it in the main thread."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
