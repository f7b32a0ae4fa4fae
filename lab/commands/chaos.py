"""``lab chaos``: a random, bounded schedule of faults; ``lab replay``: the scenario of a run once more."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands import command_line

if TYPE_CHECKING:
    from lab.deploy.docker_driver import DockerLab
    from lab.scenario.models import Scenario


def register(app: typer.Typer) -> None:
    """Add both commands."""

    @app.command("chaos")
    def chaos_command(
        seed: Annotated[
            int | None, typer.Option("--seed", min=0, help="Seed of the schedule; random by default.")
        ] = None,
        duration: Annotated[
            float, typer.Option("--duration", min=10, max=3600, help="Seconds in which faults happen.")
        ] = 120.0,
        faults: Annotated[
            list[str] | None, typer.Option("--fault", help="Draw from these faults only; may be repeated.")
        ] = None,
        topology: Annotated[
            str | None, typer.Option("--topology", help="The topology that the lab must run.")
        ] = None,
        name: Annotated[
            str | None, typer.Option("--name", help="Name of the lab; the topology's name by default.")
        ] = None,
        rate: Annotated[
            float, typer.Option("--rate", min=0.001, help="Load in requests per second.")
        ] = 100.0,
        workload: Annotated[
            str | None, typer.Option("--workload", help="Of the load; one that fits the schema by default.")
        ] = None,
        settle: Annotated[
            float, typer.Option("--settle", min=0, help="Seconds of steady state first.")
        ] = 10.0,
        runs: Annotated[Path, typer.Option(help="The folder of the run records.")] = Path("runs"),
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Run a random schedule of the faults that this machine can perform.

        Exit code: as of `lab run`.
        """
        from lab.commands.run import open_lab
        from lab.faults import find
        from lab.scenario.chaos import story
        from lab.scenario.needs import unmet
        from lab.scenario.targets import candidates

        lab = open_lab(topology, name)
        chosen = seed if seed is not None else secrets.randbelow(2**31)

        def possible(fault: str, target: str) -> bool:
            return not unmet(lab, find(fault), candidates(target, lab.topology))

        made = story(
            lab.topology, chosen, duration, rate=rate, settle=settle, workload=workload,
            names=faults, possible=possible,
        )  # fmt: skip
        raise typer.Exit(_play(lab, made, chosen, runs, as_json))

    @app.command("replay")
    def replay_command(
        run: Annotated[str, typer.Argument(help="A run's folder or name; latest is the newest.")] = "latest",
        name: Annotated[
            str | None, typer.Option("--name", help="Name of the lab; the run's topology decides.")
        ] = None,
        runs: Annotated[Path, typer.Option(help="The folder of the run records.")] = Path("runs"),
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Run the scenario of a run once more, with its seed: the same steps at the same moments.

        Exit code: as of `lab run`.
        """
        from lab.commands.run import open_lab
        from lab.record.reader import RecordReader, find_run
        from lab.scenario.loader import recorded_scenario

        record = RecordReader(find_run(run, runs))
        lab = open_lab(record.manifest.topology if name is None else None, name)
        raise typer.Exit(_play(lab, recorded_scenario(record.path), record.manifest.seed, runs, as_json))


def _play(lab: DockerLab, scenario: Scenario, seed: int, runs: Path, as_json: bool) -> int:
    from lab.commands.run import report_run
    from lab.scenario.runner import run_scenario

    command = command_line()
    done = run_scenario(lab, scenario, seed=seed, runs_dir=runs, command=command)
    return report_run(done.path, as_json)
