"""``lab shrink``: the fewest faults of a failing run that still fail, each candidate run for real."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands import command_line

if TYPE_CHECKING:
    from lab.deploy.docker_driver import DockerLab
    from lab.scenario.models import Scenario
    from lab.scenario.shrink import Notes, Search, Steps, Tried


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("shrink")
    def shrink_command(
        run: Annotated[str, typer.Argument(help="A failing run's folder or name; latest is the newest.")],
        check: Annotated[
            list[str] | None,
            typer.Option("--check", help="Metric that has to be unsound; by default any that was."),
        ] = None,
        name: Annotated[
            str | None, typer.Option("--name", help="Name of the lab; the run's topology decides.")
        ] = None,
        tries: Annotated[
            int, typer.Option("--tries", min=1, help="Runs of a candidate before it counts as passing.")
        ] = 1,
        most_runs: Annotated[int, typer.Option("--runs-at-most", min=1, help="Runs of this command.")] = 30,
        minutes: Annotated[
            float, typer.Option("--minutes", min=0.1, help="No run is begun after so long.")
        ] = 120.0,
        runs: Annotated[Path, typer.Option(help="The folder of the run records.")] = Path("runs"),
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Leave out faults of a failing run's story for as long as it still fails.

        What was tried is kept in `shrink-RUN.json`; the same command goes on where it was stopped.

        Exit code: 0 no single fault can be left out any more, 2 stopped before that was known.
        """
        from lab.commands.run import open_lab
        from lab.errors import Exit, UsageError
        from lab.record.reader import RecordReader, find_run
        from lab.scenario.loader import recorded_scenario
        from lab.scenario.shrink import Notes

        record = RecordReader(find_run(run, runs))
        story = recorded_scenario(record.path)
        found = unsound(record.path)
        looked_for = frozenset(check or found)
        if not looked_for & found:
            what = f"not by {', '.join(sorted(looked_for))}" if check else "by no check"
            raise UsageError(
                f"run {record.manifest.run} fails {what}: there is nothing to shrink",
                hint=f"it fails by: {', '.join(sorted(found)) or 'nothing'}",
            )
        lab = open_lab(record.manifest.topology if name is None else None, name)
        notes = Notes(runs / f"shrink-{record.manifest.run}.json", looked_for)
        job = _Job(lab, story, record.manifest.seed, looked_for, tries, runs, notes)
        result = job.go(most_runs, time.monotonic() + minutes * 60)
        job.tell(result, runs / f"shrunk-{record.manifest.run}.yaml", as_json)
        raise typer.Exit(int(Exit.MET if result.ask is None else Exit.UNDECIDED))


def unsound(path: Path) -> frozenset[str]:
    """The checks of a run that found something wrong (as the report marks them)."""
    from reports.analysis import analyse
    from reports.view import checked

    return frozenset(finding.metric for finding, _, tone in checked(analyse(path)) if tone == "bad")


class _Job:
    """A search on one lab."""

    def __init__(
        self,
        lab: DockerLab,
        story: Scenario,
        seed: int,
        looked_for: frozenset[str],
        tries: int,
        runs: Path,
        notes: Notes,
    ) -> None:
        self._lab, self._story, self._seed, self._looked_for = lab, story, seed, looked_for
        self._tries, self._runs, self._notes = tries, runs, notes
        self._every = tuple(number for number, _ in story.faults)

    def go(self, most_runs: int, until: float) -> Search:
        """Try candidates until nothing is left to try, or the bounds are reached; how far it came."""
        from lab import terminal
        from lab.scenario.shrink import search

        while True:
            found = search(self._every, self._notes.known)
            if found.ask is None or most_runs < self._tries or time.monotonic() > until:
                return found
            terminal.say(
                f"trying {self._words(found.ask)}; {len(found.best)} of {len(self._every)} needed so far"
            )
            tried = self._try(found.ask)
            most_runs -= len(tried.runs)
            self._notes.add(tried)
            said = f"still fails: {', '.join(tried.failed)}" if tried.failed else "does not fail"
            terminal.say(said, "red" if tried.failed else "green")

    def _try(self, steps: Steps) -> Tried:
        from lab.scenario.runner import run_scenario
        from lab.scenario.shrink import Tried, keep

        made: list[str] = []
        failed: frozenset[str] = frozenset()
        command = command_line()
        while not failed and len(made) < self._tries:
            story = keep(self._story, steps)
            done = run_scenario(self._lab, story, seed=self._seed, runs_dir=self._runs, command=command)
            made.append(done.path.name)
            failed = unsound(done.path) & self._looked_for
        return Tried(steps, tuple(sorted(failed)), tuple(made))

    def _words(self, steps: Steps) -> str:
        faults = dict(self._story.faults)
        return ", ".join(f"{n} ({faults[n].fault} on {faults[n].target})" for n in steps)

    def tell(self, result: Search, target: Path, as_json: bool) -> None:
        """Write the smallest story that failed, and say how to go on."""
        from lab import terminal
        from lab.scenario.loader import dump_scenario
        from lab.scenario.shrink import keep

        target.write_text(dump_scenario(keep(self._story, result.best)), encoding="utf-8")
        if as_json:
            terminal.print_json(
                {
                    "steps": list(result.best),
                    "of": list(self._every),
                    "minimal": result.ask is None,
                    "looked_for": sorted(self._looked_for),
                    "scenario": str(target),
                    "tried": str(self._notes.path),
                    "candidates": len(self._notes.tried),
                }
            )
            return
        console = terminal.out()
        console.print(
            f"{len(result.best)} of {len(self._every)} faults: {self._words(result.best)}", markup=False
        )
        if result.ask is None:
            terminal.say("no single one of them can be left out", "green")
        else:
            terminal.warn("stopped before the search was over; the same command goes on with it")
        console.print(f"lab run {target}", soft_wrap=True, markup=False)
