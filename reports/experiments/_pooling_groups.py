"""Cells of the experiment ``pooling`` by kind, and what connecting costs on each path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from reports.analysis.pool_cells import Figures

MODES = ("transaction", "session", "statement")
DIRECT = "direct"
STORED = "stored secrets"


@dataclass(frozen=True)
class Group:
    """All repeats of one kind of cell."""

    path: str
    workload: str
    connections: str
    clients: int
    prepared: bool
    authentication: str
    cells: tuple[Figures, ...]

    @property
    def valid(self) -> dict[int, Figures]:
        """Repeat → cell, of those that may be compared."""
        return {c.repeat: c for c in self.cells if not c.invalid and not c.not_run}

    def middle(self, pick: Callable[[Figures], float | None]) -> float | None:
        known = [value for cell in self.valid.values() if (value := pick(cell)) is not None]
        return median(known) if known else None


@dataclass(frozen=True)
class Overhead:
    """What connecting costs on one path; one value a repeat."""

    path: str
    authentication: str
    clients: int
    ms: dict[int, float]
    reduction: tuple[float, ...]
    """Percent against direct, paired by repeat; empty for direct itself."""
    limited: bool = False
    """Whether the generator was within a fifth of what it can do, in half of the repeats or more."""

    @property
    def label(self) -> str:
        return self.path if self.authentication == STORED else f"{self.path}, {self.authentication}"


def grouped(found: Sequence[Figures]) -> list[Group]:
    """Cells by kind, in the order in which kinds first came; without the generator's own."""
    kinds: dict[tuple[Any, ...], list[Figures]] = {}
    names = ("path", "workload", "connections", "clients", "prepared", "authentication")
    for cell in found:
        if cell.parameters["group"] != "ceiling":
            kinds.setdefault(tuple(cell.parameters[name] for name in names), []).append(cell)
    order = (DIRECT, *MODES)
    groups = [
        Group(**dict(zip(names, kind, strict=True)), cells=tuple(members)) for kind, members in kinds.items()
    ]
    return sorted(
        groups, key=lambda g: (g.workload, g.clients, order.index(g.path), g.authentication, g.connections)
    )


def overheads(groups: Sequence[Group], workload: str = "limit-check") -> list[Overhead]:
    """Per path, way to log in and number of clients; direct leads."""
    found: list[Overhead] = []
    direct: dict[int, dict[int, float]] = {}
    for group in groups:
        if group.workload != workload or group.connections != "per-request" or not group.prepared:
            continue
        kept = lasting(groups, group.path, workload, group.clients)
        if kept is None:
            continue
        ms = {
            repeat: cell.mean_ms - kept.valid[repeat].mean_ms
            for repeat, cell in group.valid.items()
            if repeat in kept.valid
        }
        if group.path == DIRECT:
            direct[group.clients] = ms
        base = direct.get(group.clients, {})
        shares = tuple(
            100 * (1 - ms[r] / base[r]) for r in sorted(ms) if group.path != DIRECT and base.get(r, 0) > 0
        )
        limited = 2 * sum(group.valid[r].limited for r in ms) >= len(ms) > 0
        found.append(Overhead(group.path, group.authentication, group.clients, ms, shares, limited))
    return found


def judged(over: Sequence[Overhead], clients: int | None = None) -> Overhead | None:
    """The transaction pool with stored secrets: with so many clients, or the fewest beyond one."""
    mine = [o for o in over if o.path == "transaction" and o.authentication == STORED and o.reduction]
    several = [o for o in mine if o.clients == clients or (clients is None and o.clients > 1)]
    return min(several or (mine if clients is None else []), key=lambda o: o.clients, default=None)


def lasting(groups: Sequence[Group], path: str, workload: str, clients: int) -> Group | None:
    """The lasting clients on a path, as the lab's own pooler serves them."""
    return next(
        (
            g
            for g in groups
            if (g.path, g.workload, g.clients, g.connections) == (path, workload, clients, "lasting")
            and g.prepared
            and g.authentication == STORED
        ),
        None,
    )


def prepared_gain(groups: Sequence[Group], path: str) -> tuple[float, ...]:
    """Percent of the mean time that preparing saves on a path, one value a repeat."""
    off = next((g for g in groups if g.path == path and not g.prepared), None)
    on = lasting(groups, path, off.workload, off.clients) if off else None
    if off is None or on is None:
        return ()
    return tuple(
        100 * (1 - on.valid[r].mean_ms / off.valid[r].mean_ms) for r in sorted(off.valid) if r in on.valid
    )
