"""``lab compare RUN RUN``: the same metrics of two runs, or groups of runs, and whether they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("compare")
    def compare_command(
        first: Annotated[str, typer.Argument(help="The reference: a run, or several (RUN,RUN,…).")],
        second: Annotated[str, typer.Argument(help="What is held against it: a run, or several.")],
        runs: Annotated[Path, typer.Option(help="The folder of the run records.")] = Path("runs"),
        force: Annotated[
            bool, typer.Option("--force", help="Compare runs that were made differently, and say so.")
        ] = False,
        fail_on_worse: Annotated[
            bool, typer.Option("--fail-on-worse", help="Exit code 1 where a metric is worse.")
        ] = False,
        seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
        markdown: Annotated[
            Path | None, typer.Option("--markdown", metavar="FILE", help="Also write it as Markdown.")
        ] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Compare two runs, or two groups of runs, of one scenario: better, worse, or not to be told.

        Exit code: 0; 1 something is worse (with --fail-on-worse); 3 the runs cannot be compared.
        """
        from lab import terminal
        from lab.errors import Exit, LabError, UsageError
        from lab.record.reader import find_run
        from reports.compare import compare
        from reports.compare_text import ComparisonTable
        from reports.compare_text import markdown as as_markdown

        groups = []
        for text in (first, second):
            names = list(dict.fromkeys(name for name in text.split(",") if name))
            if not names:
                raise UsageError(f"{text!r} names no run", hint="lab compare RUN RUN, or RUN,RUN RUN,RUN")
            groups.append([find_run(name, runs) for name in names])
        found = compare(groups[0], groups[1], force=force, seed=seed)
        if markdown is not None:
            try:
                markdown.write_text(as_markdown(found), encoding="utf-8")
            except OSError as error:
                raise LabError(f"cannot write {markdown}: {error.strerror}") from error
        if as_json:
            document = found.model_dump(mode="json")
            terminal.print_json({**document, "false_alarms_expected": found.false_alarms})
        else:
            terminal.out().print(ComparisonTable(found))
        if fail_on_worse and found.word("worse"):
            raise typer.Exit(int(Exit.NOT_MET))
