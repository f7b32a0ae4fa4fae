"""What the connection to the engine promises when the user interrupts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from lab.deploy import engine


class _Client:
    """An engine that is read from slowly, and interrupted while that goes on."""

    def __init__(self) -> None:
        self.sent = 0

    def get_archive(self, container: str, path: str) -> tuple[Iterator[bytes], dict[str, str]]:
        def chunks() -> Iterator[bytes]:
            for number in range(3):
                if number == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.05)
                self.sent += 1
                yield b"%d" % number

        return chunks(), {"container": container, "path": path}


def test_an_archive_is_read_to_its_end_although_ctrl_c_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    client = _Client()
    monkeypatch.setattr(engine, "api", lambda: client)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.read_archive("pg1", "/etc/hostname")
    finally:
        signal.signal(signal.SIGINT, before)
    assert client.sent == 3


def test_an_archive_is_what_the_engine_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    client = _Client()
    monkeypatch.setattr(engine, "api", lambda: client)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert engine.read_archive("pg1", "/etc/hostname") == b"012"
    finally:
        signal.signal(signal.SIGINT, before)
