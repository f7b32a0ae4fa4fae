"""What a command prints: results on standard output, everything else on standard error.

With ``--json`` a command prints one JSON document on standard output and nothing else there.
Colours follow the terminal, ``NO_COLOR`` and ``FORCE_COLOR`` (rich's rules).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def out() -> Console:
    """Results, for people."""
    return Console(highlight=False)


def err() -> Console:
    """Progress, warnings and errors."""
    return Console(stderr=True, highlight=False)


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """The one document of a command that was given ``--json``."""
    sys.stdout.write(json.dumps(document, indent=2, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def say(message: str, style: str = "") -> None:
    """One line of progress or news, on standard error."""
    line(err(), Text(message, style=style))


def warn(message: str) -> None:
    """Something that the user should know and that does not stop the command."""
    line(err(), Text.assemble(("warning: ", "yellow bold"), message))


def fail(message: str, hint: str | None = None) -> None:
    """One error, and what to do about it."""
    console = err()
    line(console, Text.assemble(("error: ", "red bold"), message))
    if hint:
        line(console, Text.assemble((" hint: ", "cyan bold"), hint))


def line(console: Console, text: Text) -> None:
    """Wrapped on a terminal; in a log it stays one line, which ``grep`` finds whole."""
    console.print(text, soft_wrap=not console.is_terminal)


def table(*columns: str, title: str | None = None) -> Table:
    """A table in the one style of the lab; a column whose name begins with ``>`` is right-aligned."""
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for column in columns:
        right = column.startswith(">")
        made.add_column(
            column.removeprefix(">"),
            justify="right" if right else "left",
            header_style="bold dim",
            overflow="fold",
        )
    return made


def bytes_text(count: float | None) -> str:
    """1536 → ``1.5 KiB``; None → an en dash."""
    if count is None:
        return "–"
    value = float(count)
    for unit in BYTE_UNITS:
        if abs(value) < 1024 or unit == BYTE_UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")
