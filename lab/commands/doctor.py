"""``lab doctor``: what the machine lacks, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(json: bool) -> int:
    """Examine the machine, print the findings, and return the exit code: 0, or 4 where a check failed."""
    from rich.text import Text

    from lab import terminal
    from lab.deploy.doctor import as_document, examine
    from lab.errors import Exit

    styles = {"ok": "green", "notice": "yellow", "failure": "red bold"}
    findings = examine()
    failed = any(finding.state == "failure" for finding in findings)
    if json:
        terminal.print_json(as_document(findings))
    else:
        table = terminal.table("check", "state", "found")
        for finding in findings:
            found = Text(finding.detail)
            if finding.advice:
                found.append(f"\n→ {finding.advice}", style="cyan")
            table.add_row(finding.name, Text(finding.state, style=styles[finding.state]), found)
        terminal.out().print(table)
    return int(Exit.FAILED if failed else Exit.MET)


def register(app: typer.Typer) -> None:
    @app.command("doctor")
    def command(
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document only.")] = False,
    ) -> None:
        """Check what a lab needs of this machine, and say what to do about what is missing.

        Exit code: 0 where a lab can come up (notices are no failures), 4 where it cannot.
        """
        raise typer.Exit(doctor(as_json))
