"""``lab load``: load a lab, without a scenario, and say what clients saw."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Arrivals(StrEnum):
    """When requests are sent."""

    POISSON = "poisson"
    CONSTANT = "constant"
    CLOSED = "closed"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("load")
    def load_command(
        name: Annotated[
            str | None, typer.Option("--name", help="Name of the lab; not needed where there is one only.")
        ] = None,
        topology: Annotated[
            str | None, typer.Option("--topology", help="Instead of the name: the topology that the lab has.")
        ] = None,
        workload: Annotated[str, typer.Option(help="See `lab list workloads`.")] = "risk-api",
        rate: Annotated[
            float | None,
            typer.Option(min=0.01, help="Requests per second offered; default: the workload's own."),
        ] = None,
        users: Annotated[
            int | None,
            typer.Option(
                min=1, help="Most requests under way at once; default: the topology's application instances."
            ),
        ] = None,
        duration: Annotated[
            str | None, typer.Option(help="Such as 30s or 5m; with --ui it may be left out.")
        ] = None,
        arrivals: Annotated[
            Arrivals, typer.Option(help="Open loop (poisson, constant), or closed: as fast as answers come.")
        ] = Arrivals.POISSON,
        pool: Annotated[
            str | None,
            typer.Option(help="Pooler, pool mode, router or endpoint; default: transaction pooling."),
        ] = None,
        workers: Annotated[
            int, typer.Option(min=1, max=64, help="Locust processes; more than one: a master and workers.")
        ] = 1,
        seed: Annotated[int, typer.Option(help="Equal seeds give equal schedules.")] = 1,
        ui: Annotated[bool, typer.Option("--ui", help="Serve Locust's web interface meanwhile.")] = False,
        runs: Annotated[Path, typer.Option(help="The folder of the run records.")] = Path("runs"),
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Load a lab and print what clients saw; everything is recorded in a run record.

        Ctrl-C ends the load; what was recorded up to then is kept and summarised.
        """
        from lab import terminal
        from lab.deploy.docker_driver import DockerLab
        from lab.durations import parse_duration
        from lab.errors import UsageError
        from lab.load import LoadSpec
        from lab.load_run import find_lab, run_load
        from loadtests.workloads import list_workloads

        known = list_workloads()
        if workload not in known:
            raise UsageError(
                f"there is no workload {workload!r}", hint=f"There are: {', '.join(sorted(known))}."
            )
        seconds = parse_duration(duration) if duration is not None else None if ui else 30.0
        spec = LoadSpec(
            workload=workload,
            rate=rate if rate is not None else known[workload].rate,
            users=users,
            duration_s=seconds,
            arrivals=arrivals.value,
            pool=pool,
            workers=workers,
            seed=seed,
            ui=ui,
        )
        lab = DockerLab.open(find_lab(name, topology))
        document = run_load(lab, spec, runs, quiet=as_json)
        if as_json:
            terminal.print_json(document)
