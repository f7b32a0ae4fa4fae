"""The fewest faults of a failing story that still fail: delta debugging over its fault steps.

``search`` is Zeller and Hildebrandt's *ddmin* ("Simplifying and Isolating Failure-Inducing Input", IEEE TSE
28(2), 2002) as a pure function of what is known so far: it names the next subset to try, or says that it is
done. So a search that was interrupted goes on by asking again, and costs no run twice. What it ends with
failed when it was run, and with any single step of it left out it did not (*1-minimal*).
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.errors import RecordError
from lab.scenario.models import Scenario

Steps = tuple[int, ...]
"""Numbers of fault steps that are kept, ascending, from 1 as they stand in the story."""


@dataclass(frozen=True)
class Search:
    """How far a search is."""

    best: Steps
    """The smallest subset so far that fails."""
    ask: Steps | None
    """What to try next; None: ``best`` is 1-minimal."""


def search(every: Steps, known: Mapping[Steps, bool]) -> Search:
    """Where the search is. ``every`` is known to fail; ``known``: subset → whether it failed."""
    course = _ddmin(every)
    ask = next(course, None)
    best = every
    while ask is not None:
        if ask not in known:
            return Search(best, ask)
        if known[ask]:
            best = ask
        try:
            ask = course.send(known[ask])
        except StopIteration:
            break
    return Search(best, None)


def _ddmin(kept: Steps) -> Generator[Steps, bool, None]:
    """Yields subsets, is sent whether they fail. One step is the least: a story has a fault."""
    parts = 2
    while len(kept) > 1:
        chunks = [kept[len(kept) * i // parts : len(kept) * (i + 1) // parts] for i in range(parts)]
        rests = [tuple(n for n in kept if n not in chunk) for chunk in chunks]
        smaller, granularity = None, 2
        for one in chunks:
            if (yield one):
                smaller = one
                break
        if smaller is None and parts > 2:
            for one in rests:
                if (yield one):
                    smaller, granularity = one, max(parts - 1, 2)
                    break
        if smaller is not None:
            kept, parts = smaller, min(granularity, max(2, len(smaller)))
        elif parts >= len(kept):
            return
        else:
            parts = min(2 * parts, len(kept))


def keep(scenario: Scenario, steps: Steps) -> Scenario:
    """The story with only these of its fault steps; waits and assertions stay, and every moment as it was."""
    faults = {number for number, _ in scenario.faults}
    kept = [step for n, step in enumerate(scenario.steps, 1) if n not in faults or n in steps]
    return scenario.model_copy(update={"steps": tuple(kept)})


@dataclass(frozen=True)
class Tried:
    """One candidate that was run."""

    steps: Steps
    failed: tuple[str, ...]
    """Metrics that were unsound; empty where none of those looked for was."""
    runs: tuple[str, ...]
    """Names of its run records."""


class Notes:
    """What was tried, on disk after each candidate."""

    def __init__(self, path: Path, looked_for: frozenset[str]) -> None:
        """RecordError where the file is damaged, or is of a search for something else."""
        self.path, self._wanted, self.tried = path, sorted(looked_for), list[Tried]()
        if not path.exists():
            return
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            wanted = data["looked_for"]
            self.tried = [
                Tried(tuple(one["steps"]), tuple(one["failed"]), tuple(one["runs"])) for one in data["tried"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{path} cannot be read: {error}", hint="remove it to begin anew") from error
        if wanted != self._wanted:
            raise RecordError(
                f"{path} is of a search for {', '.join(wanted)}", hint="remove it, or name the same --check"
            )

    @property
    def known(self) -> dict[Steps, bool]:
        return {one.steps: bool(one.failed) for one in self.tried}

    def add(self, one: Tried) -> None:
        self.tried.append(one)
        data = {"looked_for": self._wanted, "tried": [asdict(each) for each in self.tried]}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        part.replace(self.path)
