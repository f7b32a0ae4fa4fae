"""``lab matrix``: scenarios × variants of a topology × pools under one load, as one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.commands import command_line

if TYPE_CHECKING:
    from lab.matrix import Cell, Matrix, Result


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("matrix")
    def matrix_command(
        matrix: Annotated[
            str | None, typer.Argument(help="A matrix of scenarios/matrix by name, or a YAML file.")
        ] = None,
        scenarios: Annotated[
            list[str] | None, typer.Option("--scenario", help="A scenario, in place of the file's.")
        ] = None,
        variants: Annotated[
            list[str] | None,
            typer.Option(
                "--variant",
                metavar="NAME[:KEY=VALUE,…]",
                help="A variant, in place of the file's; the first is the reference.",
            ),
        ] = None,
        pools: Annotated[
            list[str] | None, typer.Option("--pool", help="A pooler to connect to, in place of the file's.")
        ] = None,
        topology: Annotated[str | None, typer.Option("--topology", help="The topology.")] = None,
        trials: Annotated[int | None, typer.Option("--trials", min=1, help="Trials a run.")] = None,
        repeats: Annotated[int | None, typer.Option("--repeats", min=1, help="Runs a cell.")] = None,
        seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of all runs.")] = None,
        settings: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="A field of every scenario: load.rate=50."),
        ] = None,
        figures: Annotated[
            list[str] | None,
            typer.Option(
                "--figure", metavar="METRIC", help="A metric the table shows, in place of the file's."
            ),
        ] = None,
        name: Annotated[
            str | None, typer.Option("--name", help="Of the lab; made from the topology by default.")
        ] = None,
        runs: Annotated[Path, typer.Option(help="Where the folder of its run records goes.")] = Path("runs"),
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, run nothing.")] = False,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Run scenarios on variants of a topology, and say what each variant costs and saves.

        Goes on where it was interrupted: runs whose record exists are not made again. Exit code: 0, 3 wrong
        input, 4 a run failed.
        """
        from lab import terminal
        from lab.errors import Exit
        from lab.matrix import cells, finished

        asked = _asked(matrix, scenarios, variants, pools, {
            "topology": topology, "trials": trials, "repeats": repeats, "seed": seed,
        }, settings, figures)  # fmt: skip
        todo = cells(asked)
        folder = runs / f"matrix-{asked.name}"
        done = finished(folder, todo)
        if dry_run:
            _plan(asked, todo, set(done), folder, as_json)
            return
        results = _run(asked, todo, name, folder)
        found = _table(asked, results, folder, as_json)
        if as_json:
            terminal.print_json(found)
        if any(result.error for result in results):
            raise typer.Exit(int(Exit.FAILED))


def _asked(
    matrix: str | None,
    scenarios: Sequence[str] | None,
    variants: Sequence[str] | None,
    pools: Sequence[str] | None,
    fields: dict[str, Any],
    settings: Sequence[str] | None,
    figures: Sequence[str] | None,
) -> Matrix:
    from lab.errors import UsageError
    from lab.matrix import Matrix, load_matrix
    from lab.topology.document import Document, Mark, validate

    data: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    if scenarios:
        data["scenarios"] = list(scenarios)
    if variants:
        data["variants"] = [_variant(text) for text in variants]
    if pools:
        data["pools"] = list(pools)
    if matrix is not None:
        base = load_matrix(matrix).model_dump(mode="json")
    elif scenarios and variants:
        base = {"name": "ad-hoc", "title": f"{', '.join(scenarios)} on {len(variants)} variants"}
    else:
        raise UsageError(
            "no matrix", hint="Name one of scenarios/matrix, or give --scenario and --variant, twice or more."
        )
    if figures:
        data["figures"] = list(figures)
    if settings:
        data["settings"] = [*base.get("settings", ()), *settings]
    asked = validate(Document({**base, **data}, {(): Mark("matrix")}), Matrix)
    _check_figures(asked)
    return asked


def _check_figures(asked: Matrix) -> None:
    """UsageError where the table is to show a metric that no run yields."""
    from lab.errors import UsageError

    if not asked.figures:
        return
    from reports.checks import units
    from reports.targets import near

    known = units()
    for metric in asked.figures:
        if metric not in known:
            raise UsageError(
                f"matrix {asked.name}: figures: there is no metric {metric!r}; {near(metric, known)}"
            )


def _variant(text: str) -> dict[str, Any]:
    name, _, rest = text.partition(":")
    return {"name": name, "set": [one for one in rest.split(",") if one]}


def _plan(asked: Matrix, todo: Sequence[Cell], done: set[str], folder: Path, as_json: bool) -> None:
    from lab import terminal
    from lab.matrix import estimate_s, switches

    left = [cell for cell in todo if cell.key not in done]
    seconds = estimate_s(left)
    if as_json:
        terminal.print_json(
            {
                "matrix": asked.name, "folder": str(folder), "labs": switches(left),
                "estimate_s": round(seconds),
                "cells": [
                    {
                        "scenario": cell.story.name, "variant": cell.variant, "pool": cell.pool,
                        "repeat": cell.repeat, "trials": cell.story.trials, "seed": cell.seed,
                        "set": list(cell.settings), "done": cell.key in done,
                    }
                    for cell in todo
                ],
            }
        )  # fmt: skip
        return
    console = terminal.out()
    console.print(f"[bold]{asked.name}[/]: {asked.title}")
    table = terminal.table(">#", "Scenario", "Variant", "Pool", ">Repeat", ">Trials", ">Seed", "Settings")
    for number, cell in enumerate(todo, 1):
        table.add_row(
            str(number), cell.story.name, cell.variant, cell.pool or "", str(cell.repeat),
            str(cell.story.trials), str(cell.seed), ", ".join(cell.settings),
            style="dim" if cell.key in done else "",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"{len(left)} runs on {switches(left)} labs, about {seconds / 60:.0f} min; records in {folder}"
        + (f"; {len(done)} are there already" if done else "")
    )


def _run(asked: Matrix, todo: Sequence[Cell], name: str | None, folder: Path) -> list[Result]:
    from lab.labs import Labs
    from lab.matrix import estimate_s, finished, run_cells
    from lab.scenario.progress import Progress

    progress = Progress()
    done = finished(folder, todo)
    left = [cell for cell in todo if cell.key not in done]
    progress.say(f"{asked.title}: {len(left)} runs, about {estimate_s(left) / 60:.0f} min")
    command = command_line()
    labs = Labs(name, suffix="matrix")
    try:
        return list(run_cells(todo, labs, folder, progress, command=command))
    finally:
        labs.close()
        progress.close()


def _table(asked: Matrix, results: Sequence[Result], folder: Path, as_json: bool) -> dict[str, Any]:
    """Print the table, keep it beside the records; the document of ``--json``."""
    from lab import terminal
    from lab.errors import LabError
    from reports.matrix import Entry, MatrixTable, lines, markdown

    first = asked.variants[0].name
    # The reference leads, whichever variant came first in the first repeat.
    ordered = sorted(results, key=lambda r: (r.cell.variant != first, r.cell.repeat))
    found = lines(
        (
            Entry(
                scenario=r.cell.story.name, pool=r.cell.pool, variant=r.cell.variant, repeat=r.cell.repeat,
                record=r.record, error=r.error,
            )
            for r in ordered
        ),
        asked.figures,
    )  # fmt: skip
    document = {
        "matrix": asked.model_dump(mode="json"),
        "lines": [line.model_dump(mode="json") for line in found],
    }
    try:
        text = json.dumps(document, indent=1, default=str) + "\n"
        (folder / "matrix.json").write_text(text, encoding="utf-8")
        (folder / "matrix.md").write_text(markdown(asked.title, found), encoding="utf-8")
    except OSError as error:
        raise LabError(f"cannot write into {folder}: {error.strerror}") from error
    if not as_json:
        console = terminal.out()
        console.print(MatrixTable(found))
        console.print(str(folder / "matrix.md"), soft_wrap=True, markup=False)
    return document
