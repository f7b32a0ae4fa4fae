"""Runs a scenario on a lab: from the first probe to the closed run record.

Whatever ends a run (its end, an exception, Ctrl-C, SIGTERM): faults are healed, what was started in the
lab is stopped, and the record is closed. After SIGKILL the next ``lab`` command does it (the journal).
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import yaml

from lab.deploy.differences import stand_ins, substitutions
from lab.driver import Lab
from lab.errors import LabError, UsageError
from lab.faults import find
from lab.record.schema import NS
from lab.record.writer import RecordWriter
from lab.scenario import facts
from lab.scenario.audit import audit, audit_redis
from lab.scenario.journal import Journal, heal_all, hold
from lab.scenario.loader import check_overrides, dump_scenario
from lab.scenario.models import Scenario
from lab.scenario.needs import unmet
from lab.scenario.plan import Plan, estimate_s, load_summary, make_plan
from lab.scenario.progress import Progress
from lab.scenario.session import Session, announce_run
from lab.scenario.story import POLL_S
from lab.scenario.targets import candidates
from lab.scenario.trial import run_trial, settle

UNINJECTED = "the leader changed from {old} to {new} though no fault was injected"


@dataclass(frozen=True)
class Done:
    """A finished run."""

    path: Path
    trials: int
    """Trials that ran to their end."""


def run_scenario(
    lab: Lab,
    scenario: Scenario,
    *,
    seed: int,
    runs_dir: Path = Path("runs"),
    command: str = "",
    progress: Progress | None = None,
    files: Mapping[str, str] | None = None,
) -> Done:
    """Run it. ``files`` (name → text) go into the record as they are.

    Raises:
        UsageError: the scenario does not fit the lab.
        LabError: another run uses the lab; the lab did not settle; a fault could not be healed; …
        KeyboardInterrupt: Ctrl-C or SIGTERM, after everything was healed, stopped and closed.
    """
    progress = progress or Progress()
    check_overrides(lab.topology, scenario.overrides, lab.name)
    plan = make_plan(scenario, lab.topology, lab.allocation, seed)
    with hold(lab) as journal, sigterm_interrupts():
        for told in heal_all(lab, journal):
            progress.say(f"left behind by a killed run, now undone: {told}", "yellow")
        progress.phase("asking what the machine can do")
        why = plan.not_run or cannot(lab, scenario)
        record, entry = open_record(lab, plan, runs_dir, command, journal)
        for name, text in (files or {}).items():
            record.put(name, text)
        if why:
            journal.done(entry)
            return _not_run(record, why, progress)
        session = Session(lab, plan, record)
        try:
            trials = _run(session, journal, progress)
        except BaseException as error:
            with shielded(progress):
                abort(session, journal, error, progress)
            raise
        journal.done(entry)
        journal.clear()
        progress.close()
        return Done(record.path, trials)


def cannot(lab: Lab, scenario: Scenario) -> str:
    """Why a fault of the scenario cannot be performed here, "" where all can."""
    for number, step in scenario.faults:
        why = unmet(lab, find(str(step.fault)), candidates(step.target, lab.topology))
        if why:
            return f"step {number}: {why}"
    return ""


def _not_run(record: RecordWriter, why: str, progress: Progress) -> Done:
    """Close a record that says why nothing was done."""
    record.update(not_run=why)
    record.note(f"not run: {why}")
    record.close("closed")
    progress.say(f"not run: {why}", "yellow")
    progress.close()
    return Done(record.path, 0)


def open_record(
    lab: Lab, plan: Plan, runs_dir: Path, command: str, journal: Journal
) -> tuple[RecordWriter, int]:
    """A new record, and its entry of the journal, which is written first."""
    entries: list[int] = []
    topology, allocation, scenario = lab.topology, lab.allocation, plan.scenario
    own_targets = _read(topology.targets) if topology.targets else None
    record = RecordWriter.create(
        runs_dir,
        scenario.name,
        topology=topology.name,
        lab=lab.name,
        seed=plan.seed,
        trials_asked=plan.trials,
        announce=lambda path: entries.append(announce_run(lab, journal, path)),
        fault=scenario.step.fault if scenario.step else None,
        faults=[step.fault for _, step in scenario.faults],
        command=command,
        predicted=plan.predicted,
        slow_after_s=scenario.slow_after,
        window_s=plan.window_s if scenario.step else None,
        overrides=dict(scenario.overrides),
        scale=allocation.scale,
        resources={name: limits.model_dump() for name, limits in allocation.resources.items()},
        substitutions=substitutions(topology, allocation),
        stand_ins=stand_ins(topology),
        not_built=list(topology.not_built),
        addresses={
            address: node for node, networks in allocation.addresses.items() for address in networks.values()
        },
    )
    for path, text in lab.rendered().items():
        record.put(f"rendered/{path}", text)
    dumped = yaml.safe_dump(topology.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    record.put("topology.yaml", dumped)
    record.put("scenario.yaml", dump_scenario(scenario))
    if own_targets is not None:
        record.put("targets.yaml", own_targets)
    return record, entries[0]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read the targets file: {error}") from error


def _run(session: Session, journal: Journal, progress: Progress) -> int:
    record, plan = session.record, session.plan
    scenario = plan.scenario
    names = " + ".join(str(step.fault) for _, step in scenario.faults)
    fault = f"{plan.trials} × {names}" if names else "no fault"
    progress.say(f"{scenario.title} ({fault}); this takes about {estimate_s(plan):.0f} s")
    progress.phase("starting probes and collectors")
    session.start_observer()
    clock = session.clock
    started_wall = clock.reading.anchor.wall_ns / NS
    record.update(
        anchor=clock.reading.anchor,
        offsets=clock.offsets("start"),
        probe_interval_s=session.observe.probes.writer_interval_s,
    )
    record.event("run-start", clock.now(), uncertainty=clock.uncertainty, detail={"seed": plan.seed})
    # What does not change is asked while the load warms up.
    told = threading.Thread(target=describe, args=(session,), daemon=True)
    told.start()
    with contextlib.suppress(LabError):
        session.inside("baseline", 30)
    progress.phase(f"starting the load: {scenario.load.workload}, {scenario.load.rate:g} requests/s")
    session.start_load()
    load = load_summary(session.load)
    record.update(load=load)
    record.event("load-start", clock.now(), uncertainty=clock.uncertainty, detail=load)

    progress.phase("waiting until everything is whole and healthy")
    settle(session, progress)
    told.join()
    record.event("steady-start", clock.now(), uncertainty=clock.uncertainty)
    _steady(session, progress)
    record.event("steady-end", clock.now(), uncertainty=clock.uncertainty)

    done = 0
    for number in range(1, plan.trials + 1):
        session.look_for_files()
        outcome = run_trial(session, journal, number, progress)
        done += 1
        record.update(trials_done=done)
        if not outcome.redundant and number < plan.trials:
            record.note(f"the lab was not whole, so trials {number + 1} to {plan.trials} were not run")
            progress.say("the lab is not whole, so no further trial is run", "yellow")
            break
    _finish(session, done, started_wall, progress)
    return done


def _steady(session: Session, progress: Progress) -> None:
    scenario = session.plan.scenario
    progress.phase(f"steady state, {scenario.settle:g} s")
    end = time.monotonic() + scenario.settle
    while (left := end - time.monotonic()) > 0:
        session.check()
        progress.tick(f"{left:.0f} s left")
        time.sleep(min(POLL_S, left))


def describe(session: Session) -> None:
    """Machine and versions into the manifest; what cannot be had is left out and said."""
    try:
        machine = facts.machine(session.lab)
        session.record.update(machine=machine, versions=facts.versions(session.lab))
        if not machine["cores"]:
            session.record.note("the machine is not known: the observer did not say what it runs on")
    except (LabError, ValueError) as error:
        session.record.note(f"machine and versions are not known: {error}")


def _finish(session: Session, trials: int, started_wall: float, progress: Progress) -> None:
    record, clock, lab = session.record, session.clock, session.lab
    progress.phase("stopping the load and the probes")
    summary = session.stop_load()
    record.event("load-end", clock.now(), uncertainty=clock.uncertainty)
    clock.refresh()
    record.update(offsets=[*record.manifest.offsets, *clock.offsets("end"), *session.load_offsets()])
    note_changes(session)
    if summary.get("failure"):
        record.note(f"the load failed: {summary['failure']}")
    record.put("load.json", json.dumps(summary, indent=1))
    session.stop_observer()
    progress.phase("auditing every node")
    found = audit(session, trials)
    for node, result in found.items():
        if not result["caught_up"]:
            progress.say(f"audit of {node}: {result['why']}", "yellow")
    if session.observe.sentinels:
        for node, result in audit_redis(session).items():
            if not result["caught_up"]:
                progress.say(f"audit of {node}: {result['why']}", "yellow")
    progress.phase("collecting statements and logs")
    with contextlib.suppress(LabError):
        record.put("statements.json", json.dumps(session.inside("statements", 30), indent=1))
    for node in facts.logs(lab, started_wall, lambda n, text: record.put(f"logs/{n}.log", text)):
        record.note(f"the log of {node} could not be read")
    record.event("run-end", clock.now(), uncertainty=clock.uncertainty)
    session.clean()
    progress.phase("closing the record")
    record.close("closed")


def note_changes(session: Session) -> None:
    """Changes of leader that no fault of ours explains: outside trials, or of none that moves a leader."""
    if session.watch is None:
        return
    for at, old, new in session.watch.changes:
        if not any(begin <= at <= end for begin, end in session.faulty):
            session.record.note(UNINJECTED.format(old=old, new=new))


def abort(session: Session, journal: Journal, error: BaseException, progress: Progress) -> None:
    """Heal, stop, fetch, close. Every step is tried, whatever became of the ones before."""
    why = "interrupted by the user" if isinstance(error, KeyboardInterrupt) else str(error)
    progress.phase("healing and stopping everything")
    record = session.record
    with contextlib.suppress(LabError, AttributeError):
        clock = session.clock
        record.event("interrupted", clock.now(), uncertainty=clock.uncertainty, detail={"why": why})
    session.abandon()
    with contextlib.suppress(LabError, OSError):
        since = session.started_wall()
        facts.logs(session.lab, since, lambda node, text: record.put(f"logs/{node}.log", text))
    try:
        # Heals what is pending, stops what runs, fetches what is missing, closes the record.
        record.release()
        for told in heal_all(session.lab, journal, why):
            progress.say(told)
    except LabError as failure:
        progress.say(str(failure), "red")
    progress.say(f"the record of what was seen until then: {record.path}")
    progress.close()


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def shielded(progress: Progress) -> Iterator[None]:
    """While this runs Ctrl-C is answered, and not obeyed: healing must come to its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def answer(_: int, __: FrameType | None) -> None:
        progress.say("healing; this ends in a moment", "yellow")

    before = {number: signal.signal(number, answer) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
