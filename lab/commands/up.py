"""``lab up``: bring a lab up and say how to reach it."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("up")
    def up_command(
        topology: Annotated[str, typer.Argument(help="A topology's name (`lab list topologies`) or file.")],
        name: Annotated[
            str | None, typer.Option("--name", help="Name of the lab; the topology's name by default.")
        ] = None,
        settings: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="Override, such as postgres.patroni.ttl=30."),
        ] = None,
        timeout: Annotated[
            float, typer.Option("--timeout", min=1, help="Limit for becoming ready, in seconds.")
        ] = 180.0,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Bring a topology up, and wait until it works."""
        from lab import terminal
        from lab.commands._progress import UpProgress
        from lab.commands._views import endpoint_lines, how_to_connect
        from lab.deploy.endpoints import endpoints
        from lab.deploy.up import up
        from lab.topology.loader import load_topology

        wanted = load_topology(topology, settings or ())
        lab_name = name or wanted.name
        with UpProgress(lab_name) as progress:
            result = up(lab_name, wanted, progress, timeout_s=timeout)
        lab = result.lab
        if as_json:
            found = endpoints(lab.topology, lab.allocation)
            terminal.print_json(
                {
                    "lab": lab_name,
                    "topology": wanted.name,
                    "created": result.created,
                    "seconds": {stage: round(took, 3) for stage, took in result.seconds.items()},
                    "notes": progress.notes,
                    "endpoints": [endpoint.model_dump() for endpoint in found.values()],
                }
            )
            return
        console = terminal.out()
        if result.created:
            took = result.seconds
            console.print(
                f"[bold green]✓[/] lab [bold]{lab_name}[/] is up: "
                f"{len(lab.nodes)} nodes in {took['total']:.1f} s "
                f"[dim](started in {took['compose']:.1f} s, worked {took['ready']:.1f} s later)[/]"
            )
        else:
            console.print(
                f"[bold green]✓[/] lab [bold]{lab_name}[/] is up already with this topology; nothing changed"
            )
        endpoint_lines(console, lab)
        how_to_connect(console, lab)
