"""What can be broken. One module a fault: a module of this package that defines ``FAULT`` registers it.

A fault is one package: how to inject it, how to see that it took effect, how to undo it, how to see
that it was undone, and its colour in charts. Modules whose name begins with ``_`` are none.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache

from lab.errors import UsageError
from lab.faults._base import Effect, Evidence, Fault, Instructions

__all__ = ["Effect", "Evidence", "Fault", "Instructions", "faults", "find"]


@cache
def faults() -> dict[str, Fault]:
    """Every fault by its name, sorted."""
    found: dict[str, Fault] = {}
    for info in pkgutil.iter_modules(__path__):
        if info.name.startswith("_"):
            continue
        fault: Fault = importlib.import_module(f"{__name__}.{info.name}").FAULT
        if fault.name in found:
            raise ValueError(f"two faults are named {fault.name}")
        found[fault.name] = fault
    return dict(sorted(found.items()))


def find(name: str) -> Fault:
    """A fault by its name. UsageError, with the names that there are, where there is none."""
    known = faults()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"no fault {name!r}", hint=f"{guess}There are: {', '.join(known)}.")
    return known[name]
