"""Lines for people: wrapped on a terminal, whole in a log."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from lab import terminal

LONG = "cell 61: transaction limit-check per-request " * 5


@pytest.mark.parametrize("tell", [terminal.say, terminal.warn, terminal.fail])
def test_a_line_of_a_log_stays_one_line(tell: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(tell)
    tell(LONG)
    assert capsys.readouterr().err.rstrip("\n").count("\n") == 0


def test_a_line_on_a_terminal_is_wrapped_at_words() -> None:
    shown = StringIO()
    terminal.line(Console(file=shown, force_terminal=True, width=40), Text(LONG))
    lines = shown.getvalue().splitlines()
    assert len(lines) > 1
    assert all(len(one) <= 40 for one in lines)
