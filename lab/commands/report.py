"""``lab report [RUN]``: analyse a run record, judge it, write the report, print the verdicts."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def report(
        run: Annotated[str, typer.Argument(help="A run: its folder, its name, or 'latest'.")] = "latest",
        runs: Annotated[Path, typer.Option(help="The folder of the run records.")] = Path("runs"),
        as_json: Annotated[
            bool, typer.Option("--json", help="Print one JSON document, nothing else.")
        ] = False,
        show: Annotated[bool, typer.Option("--open", help="Open the HTML report in a browser.")] = False,
    ) -> None:
        """Analyse a run, judge it against its targets, and write the report.

        Exit code: 0 all met, 1 something not met, 2 inconclusive, invalid or not run, 3 wrong usage or
        record, 4 the lab failed.
        """
        from lab import terminal
        from lab.record.reader import find_run
        from reports import pipeline
        from reports.terminal import verdict_table

        folder = find_run(run, runs)
        done = pipeline.analyse_and_report(folder, quiet=as_json)
        if as_json:
            terminal.print_json(pipeline.summary_json(done))
        else:
            console = terminal.out()
            console.print(verdict_table(done.verdicts))
            # The path goes last and unwrapped, so that a script or a terminal can pick it up.
            console.print(str(done.paths["html"]), soft_wrap=True, markup=False)
        if show:
            webbrowser.open(done.paths["html"].resolve().as_uri())
        raise typer.Exit(int(done.exit_code))
