"""``lab psql``: a session in the lab, through a pool or straight to a node."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("psql")
    def psql_command(
        arguments: Annotated[
            list[str] | None,
            typer.Argument(metavar="[-- PSQL ARGUMENTS]", help="Passed to psql, after `--`."),
        ] = None,
        name: Annotated[
            str | None, typer.Option("--name", help="Name of the lab; not needed where there is one only.")
        ] = None,
        pool: Annotated[
            str | None, typer.Option("--pool", help="transaction, session or statement (or a pooler's name).")
        ] = None,
        direct: Annotated[
            str | None, typer.Option("--direct", metavar="NODE", help="Straight to a database node.")
        ] = None,
        reader: Annotated[bool, typer.Option("--reader", help="The pool's reader database.")] = False,
        role: Annotated[str | None, typer.Option("--role", help="Role to log in as.")] = None,
    ) -> int:
        """Open psql in the lab. Its exit code is psql's."""
        import os
        import subprocess
        import sys

        from lab.deploy import connect, state
        from lab.deploy.docker_driver import DockerLab
        from lab.errors import EngineError

        lab = DockerLab.open(state.the_lab(name))
        target = connect.choose(lab, pool, direct, reader, role)
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        argv = connect.psql_command(lab, target, arguments or (), terminal=interactive)
        environment = {**os.environ, "PGPASSWORD": lab.secret(f"password_{target.role}")}
        try:
            return subprocess.run(argv, env=environment, check=False).returncode
        except FileNotFoundError as error:
            raise EngineError("the `docker` command is not installed") from error
