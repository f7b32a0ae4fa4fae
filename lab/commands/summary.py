"""``lab summary``: the runs of a folder as one table, a line a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("summary")
    def summary_command(
        chosen: Annotated[
            list[str] | None, typer.Argument(metavar="RUN", help="Runs; by default all of the folder.")
        ] = None,
        runs: Annotated[Path, typer.Option(help="The folder of the run records.")] = Path("runs"),
        every: Annotated[
            bool, typer.Option("--all", help="Every run, not only the newest of each scenario.")
        ] = False,
        markdown: Annotated[
            Path | None, typer.Option("--markdown", metavar="FILE", help="Also write it as Markdown.")
        ] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Sum up many runs: verdicts, outages, losses, predicted against measured.

        Exit code: 0, 3 no such run.
        """
        from lab import terminal
        from lab.errors import LabError
        from lab.record.reader import find_run
        from reports import overview

        folders = sorted(path.parent for path in runs.glob("*/manifest.json") if not path.parent.is_symlink())
        if chosen or not folders:
            folders = [find_run(name, runs) for name in chosen or ["latest"]]
        wanted = folders if every else overview.newest(folders)
        found = [overview.line(record) for record in wanted]
        lines = [line for line, _ in found]
        where = overview.setting([analysis for _, analysis in found])
        if markdown is not None:
            try:
                markdown.write_text(overview.markdown(lines, where), encoding="utf-8")
            except OSError as error:
                raise LabError(f"cannot write {markdown}: {error.strerror}") from error
        if as_json:
            terminal.print_json(
                {
                    "setting": where.model_dump(mode="json"),
                    "runs": [one.model_dump(mode="json") for one in lines],
                }
            )
            return
        console = terminal.out()
        console.print(overview.OverviewTable(lines))
        console.print(overview.about(where))
