"""``lab env``: connection settings for clients on this host."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("env")
    def env_command(
        name: Annotated[
            str | None, typer.Option("--name", help="Name of the lab; not needed where there is one only.")
        ] = None,
        pool: Annotated[
            str | None, typer.Option("--pool", help="transaction, session or statement (or a pooler's name).")
        ] = None,
        reader: Annotated[bool, typer.Option("--reader", help="The pool's reader database.")] = False,
        role: Annotated[str | None, typer.Option("--role", help="Role to log in as.")] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Print export lines for libpq's clients: eval "$(lab env)"."""
        import shlex

        from lab import terminal
        from lab.deploy import connect, state
        from lab.deploy.docker_driver import DockerLab

        lab = DockerLab.open(state.the_lab(name))
        found = connect.host_environment(lab, connect.choose(lab, pool, None, reader, role))
        if as_json:
            terminal.print_json(found)
            return
        for key, value in found.items():
            print(f"export {key}={shlex.quote(value)}")
