"""Brings wall-clock time stamps of the record's logs onto the observer's clock."""

from __future__ import annotations

import datetime as dt
import re

from lab.record.schema import NS, Manifest

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def engine_offset(manifest: Manifest) -> int | None:
    """observer's monotonic = engine's wall clock + this, in ns; None where neither was measured."""
    measured = [one for one in manifest.offsets if one.clock == "engine"]
    if measured:
        return min(measured, key=lambda one: one.uncertainty_ns).offset_ns
    if manifest.anchor is not None:
        return manifest.anchor.monotonic_ns - manifest.anchor.wall_ns
    return None


def uncertainty_s(manifest: Manifest) -> float | None:
    """The worst stated uncertainty of any clock, in seconds."""
    worst = max((one.uncertainty_ns for one in manifest.offsets), default=None)
    return None if worst is None else worst / NS


def parse_stamp(line: str) -> int | None:
    """Wall-clock ns of the RFC 3339 time stamp that leads a line, None where there is none."""
    match = _STAMP.match(line)
    if match is None:
        return None
    whole, fraction, zone = match.groups()
    moment = dt.datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
    return int(moment.timestamp()) * NS + int((fraction or "0").ljust(9, "0"))
