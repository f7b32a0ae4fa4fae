"""``lab status``: nodes with role, timeline, lag and limits, and the endpoints."""

from __future__ import annotations

from typing import Annotated

import typer

_STYLES = {"up": "green", "degraded": "yellow", "down": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("status")
    def status_command(
        name: Annotated[
            str | None, typer.Option("--name", help="Name of the lab; not needed where there is one only.")
        ] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Show what a lab looks like now."""
        from rich.text import Text

        from lab import terminal
        from lab.commands._views import endpoint_lines
        from lab.deploy import state
        from lab.deploy.docker_driver import DockerLab
        from lab.deploy.status import status

        chosen = state.the_lab(name)
        seen = status(chosen)
        if as_json:
            terminal.print_json(seen.document())
            return
        console = terminal.out()
        console.print(
            Text.assemble(
                "lab ", (seen.lab, "bold"), f" · topology {seen.topology} · ",
                (seen.health, _STYLES[seen.health]), f" · instance classes × {seen.scale:g}",
            )
        )  # fmt: skip
        for warning in seen.warnings:
            terminal.warn(warning)
        console.print()
        table = terminal.table("Node", "Role", "State", ">TL", ">Lag", "AZ", "Class", ">CPU", ">Memory")
        for node in seen.nodes:
            good = node.state in ("running", "streaming")
            table.add_row(
                node.name,
                Text(node.role, style="bold" if node.role == "primary" else ""),
                Text(node.state, style="green" if good else "red"),
                str(node.timeline or ""),
                terminal.bytes_text(node.lag_bytes) if node.lag_bytes is not None else "",
                node.zone,
                node.instance_class or "",
                f"{node.cpus:g}" if node.cpus else "",
                terminal.bytes_text(node.memory_bytes) if node.memory_bytes else "",
            )
        console.print(table)
        endpoint_lines(console, DockerLab.open(chosen))
