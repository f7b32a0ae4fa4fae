"""``lab verify``: run the least that answers every promise of a system, and give each its verdict."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.commands import command_line

if TYPE_CHECKING:
    from lab.topology.models import Topology
    from lab.verify import Asked, Chosen, Need, State
    from reports.scorecard import Scorecard
    from reports.scorecard_changes import Change


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("verify")
    def verify_command(
        systems: Annotated[
            list[str] | None, typer.Argument(metavar="[SYSTEM]…", help="Systems: `lab list targets`.")
        ] = None,
        env: Annotated[
            list[str] | None, typer.Option("--env", help="An environment, such as prod; all by default.")
        ] = None,
        every: Annotated[bool, typer.Option("--all", help="All systems.")] = False,
        quick: Annotated[
            bool, typer.Option("--quick/--full", help="One trial a run, or as many as each promise asks for.")
        ] = False,
        against: Annotated[
            str | None,
            typer.Option(
                "--against", metavar="RUN", help="An earlier verification: show what changed since."
            ),
        ] = None,
        extra: Annotated[
            list[str] | None,
            typer.Option(
                "--with", metavar="RUN", help="A run that also answers promises, or all of a verification."
            ),
        ] = None,
        settings: Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="KEY=VALUE",
                help="A field of every topology (postgres.synchronous=off) or scenario (load.rate=50).",
            ),
        ] = None,
        only: Annotated[
            list[str] | None, typer.Option("--target", metavar="ID", help="Only this promise, or this row.")
        ] = None,
        name: Annotated[
            str | None, typer.Option("--name", help="Of the labs; made from the topologies by default.")
        ] = None,
        runs: Annotated[Path, typer.Option(help="Where the folder of its run records goes.")] = Path("runs"),
        fresh: Annotated[
            bool, typer.Option("--fresh", help="Begin anew, even where one was interrupted.")
        ] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, do nothing.")] = False,
        no_run: Annotated[
            bool, typer.Option("--no-run", help="Judge on paper and by the records of --with; needs no lab.")
        ] = False,
        show: Annotated[bool, typer.Option("--open", help="Open the scorecard in a browser.")] = False,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Answer every promise of a system: run the least that does, judge, and write a scorecard.

        Goes on where it was interrupted. Exit code: 0 all met, 1 something not met, 2 something inconclusive,
        invalid or not run, 3 wrong input, 4 the lab failed.
        """
        from lab import terminal
        from lab.verify import Asked, Chosen, choose

        topologies = _topologies(systems or [], env or [], every, settings or [])
        asked = Asked(
            name=_name(systems or [], env or [], every),
            topologies=tuple(topology.name for topology in topologies),
            quick=quick,
            settings=tuple(settings or ()),
        )
        with_runs = [record for one in extra or [] for record in records_of(one, runs)]
        old = _earlier(against, runs) if against else None
        needs = needs_of(topologies, only or [])
        chosen = Chosen((), {}) if no_run else choose(needs, asked)
        if dry_run:
            _plan(asked, chosen, as_json)
            return
        folder, state = _run(asked, needs, chosen, runs, name, fresh or no_run)
        card, changes = _report(folder, state, topologies, with_runs, old, only or [])
        _print(card, changes, folder, as_json)
        if show:
            webbrowser.open((folder / "report" / "scorecard.html").resolve().as_uri())
        from reports import view

        if any(job.error for job in state.jobs) and not card.runs:
            terminal.fail("no run of this verification succeeded")
            raise typer.Exit(4)
        raise typer.Exit(int(view.exit_code(card.verdicts)))


def _topologies(
    systems: Sequence[str], environments: Sequence[str], every: bool, settings: Sequence[str]
) -> list[Topology]:
    """The topologies of these systems and environments, with their settings. UsageError: there is none."""
    from lab.errors import UsageError
    from lab.scenario.loader import split_overrides
    from lab.topology.loader import list_topologies, load_topology
    from reports.targets import list_targets

    known = list_targets()
    if bool(systems) == every:
        raise UsageError(
            "name the systems, or say --all",
            hint=f"There are: {', '.join(known)}. lab verify risk --env prod",
        )
    for system in systems:
        if system not in known:
            raise UsageError(f"no targets of a system {system!r}", hint=f"There are: {', '.join(known)}.")
    wanted = known if every else systems
    shipped = [load_topology(name) for name in list_topologies()]
    found = [topology for system in wanted for topology in shipped if topology.system == system]
    there = sorted({topology.environment for topology in found})
    for environment in environments:
        if environment not in there:
            raise UsageError(f"no environment {environment!r}", hint=f"There are: {', '.join(there)}.")
    chosen = [one for one in found if not environments or one.environment in environments]
    if not chosen:
        raise UsageError(
            f"no topology of {', '.join(wanted)}", hint="`lab list topologies` shows what there is."
        )
    of_topologies = split_overrides(list(settings))[1]
    return [load_topology(one.name, of_topologies) for one in chosen] if of_topologies else chosen


def _name(systems: Sequence[str], environments: Sequence[str], every: bool) -> str:
    return "-".join([*(["all"] if every else dict.fromkeys(systems)), *environments])


def needs_of(topologies: Sequence[Topology], only: Sequence[str] = ()) -> list[Need]:
    """What has to be run for the promises of these topologies.

    Args:
        only: ids of targets, or rows (``R16``); empty: all. UsageError where one names nothing.
    """
    from lab.errors import UsageError
    from lab.verify import Need
    from reports.targets import targets_of

    found = []
    named = set()
    targets = {system: targets_of(system) for system in dict.fromkeys(one.system for one in topologies)}
    for topology in topologies:
        for target in targets[topology.system]:
            named |= {target.id, target.id.partition(".")[0]}
            if not target.concerns(topology.environment) or not _chosen(target.id, only):
                continue
            if target.scenarios:
                found.append(
                    Need(
                        topology=topology.name,
                        target=target.id,
                        scenarios=target.proven_by or target.scenarios,
                        trials=target.min_trials,
                    )
                )
    for one in only:
        if one not in named:
            raise UsageError(f"no target {one!r}", hint="`lab list targets` shows what there is.")
    return found


def records_of(reference: str, runs: Path) -> list[Path]:
    """The run record of a name or path, or those of a verification. Errors as of ``find_run``."""
    from lab.record.reader import find_run
    from lab.verify import STATE, read_state

    for folder in (Path(reference), runs / reference):
        if (folder / STATE).is_file():
            return [folder / job.record for job in read_state(folder).jobs if job.record]
    return [find_run(reference, runs)]


def _chosen(target: str, only: Sequence[str]) -> bool:
    return not only or target in only or target.partition(".")[0] in only


def _plan(asked: Asked, chosen: Chosen, as_json: bool) -> None:
    from lab import terminal
    from lab.matrix import switches
    from lab.verify import runs_text, total_s

    seconds = total_s(chosen.cells)
    if as_json:
        terminal.print_json(
            {
                "asked": asked.model_dump(mode="json"),
                "labs": switches(chosen.cells),
                "estimate_s": round(seconds),
                "runs": [
                    {"topology": c.topology.name, "scenario": c.story.name, "trials": c.story.trials}
                    for c in chosen.cells
                ],
                "unanswered": chosen.unanswered,
            }
        )
        return
    table = terminal.table(">#", "Topology", "Scenario or experiment", ">Trials", "Settings")
    for number, cell in enumerate(chosen.cells, 1):
        row = (cell.topology.name, cell.story.name, str(cell.story.trials), ", ".join(cell.settings))
        table.add_row(str(number), *row)
    console = terminal.out()
    console.print(table)
    for what, why in chosen.unanswered.items():
        console.print(f"[yellow]nothing can answer {what}[/]: {why}", highlight=False)
    console.print(f"{runs_text(chosen.cells)}, about {seconds / 60:.0f} min")


def _run(
    asked: Asked, needs: Sequence[Need], chosen: Chosen, runs: Path, name: str | None, fresh: bool
) -> tuple[Path, State]:
    from lab.labs import Labs
    from lab.scenario.progress import Progress
    from lab.verify import now_wall, open_folder, run, write_state

    folder = open_folder(asked, runs, fresh=fresh)
    progress = Progress()
    labs = Labs(name, suffix="verify")
    try:
        state = run(asked, needs, chosen, folder, labs, progress, command=command_line())
    except KeyboardInterrupt:
        progress.say("interrupted; the same command goes on from here", "yellow")
        raise
    finally:
        labs.close()
        progress.close()
    # What failed is tried again by the same command: only a verification without failures is closed.
    if not any(job.error for job in state.jobs):
        state = state.model_copy(update={"state": "closed", "ended_wall": now_wall()})
        write_state(folder, state)
    return folder, state


def _report(
    folder: Path,
    state: State,
    topologies: Sequence[Topology],
    extra: Sequence[Path],
    old: tuple[Scorecard, Path] | None,
    only: Sequence[str],
) -> tuple[Scorecard, list[Change]]:
    from lab import terminal
    from reports import scorecard_html
    from reports.scorecard import save
    from reports.scorecard_changes import changes
    from reports.verified import scorecard

    card = scorecard(folder, state, topologies, extra, lambda text: terminal.say(text, "dim"))
    if only:
        rows = tuple(row for row in card.rows if _chosen(row.verdict.target.id.partition(" ")[0], only))
        card = card.model_copy(update={"rows": rows})
    moved = changes(old[0], card, old[1], folder) if old else []
    save(card, folder)
    scorecard_html.write(card, folder, moved, old[1].name if old else "")
    return card, moved


def _earlier(name: str, runs: Path) -> tuple[Scorecard, Path]:
    """An earlier verification, by its folder or its name. UsageError where there is none."""
    from reports.scorecard import load

    folder = next((path for path in (Path(name), runs / name) if path.is_dir()), runs / name)
    return load(folder), folder


def _print(card: Scorecard, changes: Sequence[Any], folder: Path, as_json: bool) -> None:
    from lab import terminal
    from reports.scorecard import as_json as document
    from reports.scorecard_text import ScorecardText

    if as_json:
        terminal.print_json({**document(card, changes), "folder": str(folder)})
        return
    console = terminal.out()
    console.print(ScorecardText(card, changes))
    console.print(str(folder / "report" / "scorecard.html"), soft_wrap=True, markup=False)
