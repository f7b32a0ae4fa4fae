"""What the senders ask of a connection, whatever it speaks: PostgreSQL's protocol or Redis's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lab.observe.outcomes import Notice, Trouble

Row = tuple[str | None, ...]


@dataclass(frozen=True)
class Answer:
    """Rows as text, and the notices that came with them."""

    rows: list[Row]
    notices: tuple[Notice, ...]


class Link(Protocol):
    """A connection; every method is called in the loop's thread. Used for one thing at a time.

    ``connect`` stops once the network let the connection through and calls ``on_open``; ``log_in`` goes
    on to a usable session and calls ``on_ready``. Whatever goes wrong calls ``on_trouble`` once and
    closes the connection, except an error of a statement that leaves the session usable (``alive``).
    """

    on_closed: Callable[[Trouble], None] | None
    """Called where the other end closes the session while nothing is asked of it."""

    @property
    def alive(self) -> bool: ...

    def connect(self, on_open: Callable[[], None], on_trouble: Callable[[Trouble], None]) -> None: ...

    def log_in(self, on_ready: Callable[[], None]) -> None:
        """TLS and authentication; the caller limits how long it takes, by ``close``."""

    def query(
        self,
        statement: bytes,
        on_answer: Callable[[Answer], None],
        on_trouble: Callable[[Trouble], None],
        /,
    ) -> None: ...

    def close(self) -> None: ...


Connect = Callable[[], Link]
"""Makes a connection that has not been begun yet."""
