"""Errors that reach a user as one clear message, and the exit codes of every command.

    LabError                    the lab failed (4)
    ├── UsageError              wrong usage or input: YAML, option, name (3)
    ├── EngineError             no engine, no Compose, an engine that stopped answering (4)
    │   └── NetworkKept         all of a lab is gone but a network that the engine keeps (4)
    ├── NotReady                a service did not come up in time (4)
    └── RecordError             a run record is missing, damaged or of a newer schema (3)

The command line prints ``str(error)`` and ``error.hint``; a traceback is for our own bugs only.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of ``lab`` commands."""

    MET = 0
    """All targets met, or the command did what was asked."""
    NOT_MET = 1
    """At least one target is not met."""
    UNDECIDED = 2
    """None is *not met*, at least one is inconclusive, invalid or not run."""
    USAGE = 3
    """Wrong usage or wrong input."""
    FAILED = 4
    """The lab itself failed."""


class LabError(Exception):
    """Something went wrong that is not the user's input.

    Args:
        message: what happened, in one sentence, naming the thing (service, file, node).
        hint: what to do about it; printed on a line of its own.
    """

    exit_code = Exit.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(LabError):
    """The input is wrong: the message gives file, line, field and what was expected."""

    exit_code = Exit.USAGE


class EngineError(LabError):
    """The container engine, or Compose, is absent or does not answer."""


class NetworkKept(EngineError):
    """A lab is gone but for networks that the engine does not let go of."""


class NotReady(LabError):
    """A service did not come up; the message names it, with its last log lines and likely cause."""


class RecordError(LabError):
    """A run record cannot be read."""

    exit_code = Exit.USAGE
