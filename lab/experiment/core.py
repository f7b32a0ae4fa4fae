"""An experiment on a running lab: the observer's clock and collectors, cells, loads.

    with experiment(lab, "pooling", title="…", claim="…", seed=7, deadline_s=900) as run:
        for repeat in (1, 2, 3):
            with run.cell("direct", repeat=repeat, clients=20) as cell:
                run.load(cell, LoadSpec(workload="point-select", arrivals="closed", duration_s=5))
                cell.result["anything"] = …

The lab is held alone meanwhile. Whatever ends the block (its end, an exception, Ctrl-C, SIGTERM), what was
started in the lab is stopped and the record is closed; after SIGKILL the next ``lab`` command does it (the
journal), and what runs in the lab ends itself at its deadline.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.driver import Lab
from lab.errors import LabError, UsageError
from lab.load import LoadHandle, LoadResult, LoadSpec, first_that_fits, start_load
from lab.observe.config import Probes
from lab.record.schema import ClockOffset
from lab.scenario import facts
from lab.scenario.journal import Journal, heal_all, hold
from lab.scenario.models import Load, Scenario
from lab.scenario.plan import Plan, make_plan
from lab.scenario.progress import Progress
from lab.scenario.remote import Program, fetch_rest
from lab.scenario.runner import abort, describe, note_changes, open_record, shielded, sigterm_interrupts
from lab.scenario.session import Session

QUIET = Probes(
    writer_interval_s=0,
    fresh_writer_interval_s=0,
    reader_interval_s=0,
    fresh_reader_interval_s=0,
    node_interval_s=0,
    redis_writer_interval_s=0,
    fresh_redis_writer_interval_s=0,
    router_interval_s=0,
)
"""Collectors and the watch on the leader only: a probe's writes would be part of what is measured."""
POLL_S = 0.3
LOAD_SLACK_S = 60.0
"""What a load may take beyond its duration: to connect, to drain."""


@dataclass
class Cell:
    """One measurement. Times in ns of the observer's clock."""

    number: int
    name: str
    repeat: int
    parameters: dict[str, Any]
    begin: int
    result: dict[str, Any] = field(default_factory=dict)
    """To be filled: what was found, beside the requests and metrics between begin and end. JSON."""


@dataclass(frozen=True)
class Running:
    """A load under way."""

    handle: LoadHandle
    program: Program
    entry: int
    """Of the journal."""


class Experiment:
    """An open experiment; see ``experiment``."""

    def __init__(self, session: Session, journal: Journal, progress: Progress) -> None:
        self.lab: Lab = session.lab
        self.session = session
        self.record = session.record
        self.journal = journal
        self.progress = progress
        self.seed = session.plan.seed
        self.rng = random.Random(self.seed)
        """For the order of the cells, so that the seed in the manifest repeats it."""
        self._cells = self._loads = self._numbers = 0

    def now(self) -> int:
        """ns of the observer's clock."""
        return self.session.clock.now()

    @contextlib.contextmanager
    def cell(self, name: str, *, repeat: int = 1, **parameters: Any) -> Iterator[Cell]:
        """Measure one cell; it enters the record when the block ends, unless by an exception."""
        self.session.check()
        self._cells += 1
        self.progress.phase(f"cell {self._cells}: {name}, repeat {repeat}")
        cell = Cell(self._cells, name, repeat, dict(parameters), self.now())
        yield cell
        row = {
            "cell": cell.number,
            "name": name,
            "repeat": repeat,
            "begin": cell.begin,
            "end": self.now(),
            "parameters": json.dumps(cell.parameters),
            "result": json.dumps(cell.result),
        }
        self.record.rows("cells", [row])

    def load(self, cell: Cell, spec: LoadSpec) -> LoadResult:
        """Run one load to its end within a cell.

        Its requests go to the table ``requests``, what it says of itself to ``cell.result["load"]``.

        Raises:
            UsageError: the spec does not fit the lab, or has no duration.
            LabError: the load could not run.
        """
        if spec.duration_s is None:
            raise UsageError("a load within a cell needs a duration")
        running = self.start(spec)
        until = time.monotonic() + spec.duration_s + LOAD_SLACK_S
        while not running.handle.ended():
            self.session.check()
            if time.monotonic() > until:
                raise LabError(
                    f"the load of cell {cell.name} did not end within {LOAD_SLACK_S:g} s of its time"
                )
            time.sleep(POLL_S)
        result = self.end(running)
        cell.result.setdefault("load", result.detail)
        return result

    def start(self, spec: LoadSpec) -> Running:
        """Start a load beside others; ``end`` ends it. Errors as ``load``."""
        self._loads += 1
        part = f"load{self._loads}"
        client = self.session.client.name
        program = Program(client, f"{self.session.base}/{part}/load", f"client-{part}")
        entry = self.announce(program)
        return Running(start_load(self.lab, spec, f"{self.session.run}/{part}"), program, entry)

    def end(self, running: Running) -> LoadResult:
        """Stop a load (nothing, where it ended by itself), fetch its requests. LabError where it failed."""
        running.handle.stop()
        fetch_rest(running.handle.node, running.program, self.record)
        result = running.handle.result()
        self._offsets(running)
        running.handle.node.run(["rm", "-rf", running.program.out.rpartition("/")[0]], check=False)
        self.ended(running.entry)
        return result

    def announce(self, program: Program) -> int:
        """Before a program is started in the lab: should the runner be killed, the journal has it ended.

        It is found by the pid in its folder, with the folder's parent in its command line. The number is
        for ``ended``.
        """
        remote = [*self.session.remote(), asdict(program)]
        return self.journal.begin("run", record=str(self.record.path.resolve()), remote=remote)

    def ended(self, entry: int) -> None:
        """What was announced runs no more."""
        self.journal.done(entry)

    def number(self) -> int:
        """Another number each time, from 0."""
        self._numbers += 1
        return self._numbers - 1

    def _offsets(self, running: Running) -> None:
        clocks = json.loads(running.handle.node.get(f"{running.program.out}/clock.json"))
        found = [
            ClockOffset(
                clock=f"{running.program.part}:{clock.partition(':')[2]}", when=when, **_two(ends[when])
            )
            for clock, ends in clocks.items()
            for when in ("start", "end")
        ]
        self.record.update(offsets=[*self.record.manifest.offsets, *found])


def _two(measured: dict[str, int]) -> dict[str, int]:
    return {name: measured[name] for name in ("offset_ns", "uncertainty_ns")}


@contextlib.contextmanager
def experiment(
    lab: Lab,
    name: str,
    *,
    title: str,
    claim: str,
    seed: int,
    deadline_s: float,
    pool: str | None = None,
    probes: Probes = QUIET,
    runs_dir: Path = Path("runs"),
    command: str = "",
    progress: Progress | None = None,
) -> Iterator[Experiment]:
    """Open an experiment on a lab; its record is ``<runs_dir>/<UTC time>-<name>``.

    Args:
        title, claim: for the reader of the report, as a scenario's.
        deadline_s: after this, whatever it started inside the lab ends itself.
        pool: where the probes ask, should any be wanted.

    Raises:
        UsageError: the lab lacks what is asked for.
        LabError: another run uses the lab; something could not be started or recorded.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after everything was stopped and closed.
    """
    progress = progress or Progress()
    plan = replace(plan_on(lab, name, title, claim, pool, seed), deadline_s=deadline_s, probes=probes)
    with hold(lab) as journal, sigterm_interrupts():
        for told in heal_all(lab, journal):
            progress.say(f"left behind by a killed run, now undone: {told}", "yellow")
        record, entry = open_record(lab, plan, runs_dir, command, journal)
        session = Session(lab, plan, record)
        try:
            _begin(session, progress)
            yield Experiment(session, journal, progress)
            _finish(session, progress)
        except BaseException as error:
            with shielded(progress):
                abort(session, journal, error, progress)
            raise
        journal.done(entry)
        journal.clear()
        progress.close()


def plan_on(lab: Lab, name: str, title: str, claim: str, pool: str | None, seed: int) -> Plan:
    """An experiment as the run of a scenario without a fault. UsageError where the lab lacks the pool.

    Cells name their own loads; the scenario's has to fit the topology's schema all the same.
    """
    workload = first_that_fits(lab.topology, "risk-api", "tpcb")
    load = Load(workload=workload, pool=pool)
    scenario = Scenario(name=name, title=title, claim=claim, load=load, settle=0)
    return make_plan(scenario, lab.topology, lab.allocation, seed)


def _begin(session: Session, progress: Progress) -> None:
    record = session.record
    progress.phase("starting the collectors")
    session.start_observer()
    clock = session.clock
    record.update(anchor=clock.reading.anchor, offsets=clock.offsets("start"))
    record.event("run-start", clock.now(), uncertainty=clock.uncertainty, detail={"seed": session.plan.seed})
    describe(session)


def _finish(session: Session, progress: Progress) -> None:
    record, clock = session.record, session.clock
    progress.phase("stopping the collectors and closing the record")
    started_wall = session.started_wall()
    clock.refresh()
    record.update(offsets=[*record.manifest.offsets, *clock.offsets("end")])
    note_changes(session)
    with contextlib.suppress(LabError):
        record.put("statements.json", json.dumps(session.inside("statements", 30), indent=1))
    session.stop_observer()
    for node in facts.logs(session.lab, started_wall, lambda n, text: record.put(f"logs/{n}.log", text)):
        record.note(f"the log of {node} could not be read")
    record.event("run-end", clock.now(), uncertainty=clock.uncertainty)
    session.clean()
    record.close("closed")


__all__ = ["QUIET", "Cell", "Experiment", "Running", "experiment"]
