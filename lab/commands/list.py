"""``lab list``: what there is to choose from."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

_TOO_LONG = {"description"}
"""Columns for ``--json`` only."""


class Kind(StrEnum):
    """What can be listed."""

    TOPOLOGIES = "topologies"
    SCENARIOS = "scenarios"
    FAULTS = "faults"
    WORKLOADS = "workloads"
    TARGETS = "targets"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("list")
    def list_command(
        kind: Annotated[Kind, typer.Argument(help="What to list.")],
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """List topologies, scenarios, faults, workloads or targets."""
        from lab import terminal
        from lab.commands._catalogue import catalogue

        rows: list[dict[str, Any]] = catalogue(kind.value)
        if as_json:
            terminal.print_json({kind.value: rows})
            return
        if not rows:
            terminal.out().print(f"there are no {kind.value}")
            return
        columns = [key for key in rows[0] if key not in _TOO_LONG]
        table = terminal.table(*(column.capitalize() for column in columns))
        table.columns[0].no_wrap = True
        for row in rows:
            table.add_row(*(str(row.get(column) or "") for column in columns))
        terminal.out().print(table)
