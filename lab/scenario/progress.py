"""What a run is doing, for the person who waits: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.text import Text

from lab.terminal import line


class Progress:
    """Prints to standard error; standard output stays clean for ``--json``."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._status = self.console.status("") if self.console.is_terminal else None
        self._started = time.monotonic()
        self._phase = ""
        self._live = False

    def phase(self, text: str) -> None:
        """A new phase begins."""
        self._phase = text
        if self._status is None:
            self.say(text)
            return
        if not self._live:
            self._status.start()
            self._live = True
        self._status.update(text)

    def tick(self, text: str) -> None:
        """Something moved within the phase; shown on a terminal only."""
        if self._status is not None and self._live:
            self._status.update(Text.assemble(self._phase, (f"  {text}", "dim")))

    def say(self, text: str, style: str = "") -> None:
        """A line that stays."""
        passed = time.monotonic() - self._started
        line(self.console, Text.assemble((f"{passed:6.1f} s  ", "dim"), (text, style)))

    def close(self) -> None:
        """End the live line. Idempotent."""
        if self._status is not None and self._live:
            self._status.stop()
            self._live = False
