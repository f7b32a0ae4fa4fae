"""``lab render``: the files exactly as they will run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("render")
    def render_command(
        topology: Annotated[str, typer.Argument(help="A topology's name (`lab list topologies`) or file.")],
        out: Annotated[
            Path | None,
            typer.Option("--out", help="Write the files into this folder instead of printing them."),
        ] = None,
        name: Annotated[str | None, typer.Option("--name", help="Name of the lab.")] = None,
        settings: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="Override, such as postgres.patroni.ttl=30."),
        ] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Show the Compose project and every configuration file.

        Addresses, ports and limits are those of the lab of that name where it is up with this topology,
        else a sample's. Secrets appear as references only.
        """
        from lab import terminal
        from lab.deploy import state
        from lab.deploy.allocate import sample_allocation
        from lab.deploy.render import render
        from lab.errors import LabError
        from lab.topology.loader import load_topology

        wanted = load_topology(topology, settings or ())
        lab_name = state.check_name(name or wanted.name)
        sample = True
        allocation = sample_allocation(lab_name, wanted)
        if (state.lab_dir(lab_name) / state.READY).exists() and state.load_topology(lab_name) == wanted:
            allocation, sample = state.load_allocation(lab_name), False
        files = render(wanted, allocation)
        whose = "a sample allocation" if sample else f"the allocation of lab {lab_name}"
        if out is not None:
            for relative, text in files.items():
                path = out / relative
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text, encoding="utf-8")
                except OSError as error:
                    raise LabError(f"cannot write {path}: {error.strerror}") from error
        if as_json:
            terminal.print_json({"lab": lab_name, "topology": wanted.name, "sample": sample, "files": files})
        elif out is not None:
            terminal.out().print(f"{len(files)} files in {out}, with {whose}")
        else:
            terminal.say(f"{len(files)} files, with {whose}", "dim")
            console = terminal.out()
            for relative, text in files.items():
                if console.is_terminal:
                    console.rule(f"[bold]{relative}", align="left", style="dim")
                else:
                    print(f"# ==== {relative}")
                print(text, end="" if text.endswith("\n") else "\n")
