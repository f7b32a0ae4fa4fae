"""A link that comes and goes: cut off from everybody for some seconds, whole for some, and again."""

from __future__ import annotations

from lab.faults._packets import Partition, everyone

FAULT = Partition(
    name="flapping",
    summary="cut off from everybody for 5 s, whole for 5 s, and so on, until healed",
    colour="#d81b60",
    peers=everyone,
    on_s=5.0,
    off_s=5.0,
    lasts_s=40.0,
)
