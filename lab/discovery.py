"""Parts that are found by being there: whatever the modules of a package define under one name.

So that adding one (a fault, a check, a chart, …) is adding a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def discover(package: str, attribute: str, kind: type[T], key: Callable[[T], str]) -> dict[str, T]:
    """What the modules of a package define as ``attribute``, by its key, in the order of the modules' names.

    Modules that define no such thing are passed over. Left unloaded are those whose name begins with ``_``
    and those that end in ``_inside`` (what runs within a container).

    Raises ValueError (a programming error) where two have one key.
    """
    found: dict[str, T] = {}
    folder = importlib.import_module(package).__path__
    for name in sorted(info.name for info in pkgutil.iter_modules(folder)):
        if name.startswith("_") or name.endswith("_inside"):
            continue
        part = getattr(importlib.import_module(f"{package}.{name}"), attribute, None)
        if not isinstance(part, kind):
            continue
        if key(part) in found:
            raise ValueError(f"{package}.{name}: there is another {attribute} called {key(part)}")
        found[key(part)] = part
    return found
