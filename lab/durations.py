"""Durations as people write them: ``30s``, ``5m``, ``1.5h``, ``200ms``, or a number of seconds."""

from __future__ import annotations

import re

from lab.errors import UsageError

_DURATION = re.compile(r"^(\d+(?:\.\d+)?) ?(ms|s|m|h)?$")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def seconds_in(text: str) -> float | None:
    """What a text means in seconds; None where it is no duration."""
    match = _DURATION.match(text.strip())
    return float(match[1]) * _UNITS[match[2]] if match else None


def parse_duration(text: str) -> float:
    """What a text means in seconds. UsageError where it is none, or not above 0, or above a day."""
    seconds = seconds_in(text)
    if seconds is None or not 0 < seconds <= 86_400:
        raise UsageError(f"{text!r} is not a duration", hint="Use 30s, 5m or 1h, at most a day.")
    return seconds
