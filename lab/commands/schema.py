"""``lab schema``: the JSON schema of a file that users write."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """What has a schema."""

    TOPOLOGY = "topology"
    WORKLOAD = "workload"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("schema")
    def schema_command(kind: Annotated[Kind, typer.Argument(help="The kind of file.")]) -> None:
        """Print the JSON schema of a topology or a workload file; editors complete and check by it."""
        from lab.topology.schema import text

        print(text(kind.value), end="")
