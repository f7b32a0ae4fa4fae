"""The commands of the lab, one module each: it defines ``register(app)``."""

from __future__ import annotations

import shlex
import sys


def command_line() -> str:
    """What the user typed, as a record keeps it."""
    return shlex.join(["lab", *sys.argv[1:]])
