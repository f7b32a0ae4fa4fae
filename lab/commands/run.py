"""``lab run``: run a scenario on a running lab, then analyse, judge and report."""

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
    """Add the command."""

    @app.command("run")
    def run_command(
        scenario: Annotated[str, typer.Argument(help="A scenario's name (`lab list scenarios`) or file.")],
        topology: Annotated[
            str | None, typer.Option("--topology", help="The topology that the lab must run.")
        ] = None,
        name: Annotated[
            str | None, typer.Option("--name", help="Name of the lab; the topology's name by default.")
        ] = None,
        trials: Annotated[int | None, typer.Option("--trials", min=1, help="How many trials.")] = None,
        rate: Annotated[
            float | None, typer.Option("--rate", min=0.001, help="Load in requests per second.")
        ] = None,
        users: Annotated[int | None, typer.Option("--users", min=1, help="Users of the load.")] = None,
        seed: Annotated[
            int | None, typer.Option("--seed", min=0, help="Seed of everything random; random by default.")
        ] = None,
        settings: Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="KEY=VALUE",
                help="A field of the scenario (load.rate=50), or of the topology that the lab must have.",
            ),
        ] = None,
        runs: Annotated[Path, typer.Option(help="The folder of the run records.")] = Path("runs"),
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print the plan and do nothing; needs no lab.")
        ] = False,
        report: Annotated[bool, typer.Option("--report/--no-report", help="Write the report.")] = True,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Run a scenario: load, break, measure, heal, judge.

        Exit code: 0 all met, 1 something not met, 2 inconclusive, invalid or not run, 3 wrong usage or
        input, 4 the lab failed.
        """
        from lab import terminal
        from lab.scenario.loader import load_scenario, split_overrides
        from lab.scenario.runner import run_scenario

        mine, theirs = split_overrides(settings or [])
        for field, value in (("trials", trials), ("load.rate", rate), ("load.users", users)):
            if value is not None:
                mine.append(f"{field}={value}")
        story = load_scenario(scenario, mine)
        if theirs:
            asked = {**story.overrides, **dict(_pair(text) for text in theirs)}
            story = story.model_copy(update={"overrides": asked})
        if dry_run:
            _dry_run(story, topology, name, seed, as_json)
            return
        lab = open_lab(topology, name)
        command = command_line()
        chosen = seed if seed is not None else secrets.randbelow(2**31)
        done = run_scenario(lab, story, seed=chosen, runs_dir=runs, command=command)
        if not report:
            if as_json:
                terminal.print_json({"run": str(done.path), "trials": done.trials})
            else:
                terminal.out().print(str(done.path), soft_wrap=True, markup=False)
            return
        raise typer.Exit(report_run(done.path, as_json))


def _dry_run(
    story: Scenario, topology: str | None, name: str | None, seed: int | None, as_json: bool
) -> None:
    """Print what would be done, on the lab's topology or on the one that is named."""
    from lab import terminal
    from lab.commands._outline import plan_table
    from lab.deploy import state
    from lab.deploy.allocate import sample_allocation
    from lab.errors import UsageError
    from lab.scenario.loader import override_texts
    from lab.scenario.outline import as_json as outline_json
    from lab.scenario.plan import make_plan
    from lab.topology.loader import load_topology

    if topology is not None:
        paper = load_topology(topology, override_texts(story.overrides))
    elif name is not None or state.lab_names():
        paper = state.load_topology(state.the_lab(name))
    else:
        raise UsageError("no lab is up, so the topology is not known", hint="--topology risk-prod")
    chosen = seed if seed is not None else 0
    plan = make_plan(story, paper, sample_allocation("dry-run", paper), chosen)
    if as_json:
        terminal.print_json(outline_json(plan))
        return
    console = terminal.out()
    for part in plan_table(plan, seed_known=seed is not None):
        console.print(part)


def _pair(text: str) -> tuple[str, str]:
    from lab.errors import UsageError

    field, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"override {text!r}: expected field=value", hint="postgres.patroni.ttl=30")
    return field.strip(), value.strip()


def open_lab(topology: str | None, name: str | None) -> DockerLab:
    """The lab that is meant: by its name, or the only one of a topology."""
    from lab.deploy import state
    from lab.deploy.docker_driver import DockerLab
    from lab.errors import UsageError
    from lab.topology.loader import load_topology

    wanted = load_topology(topology).name if topology else None
    chosen = name
    if chosen is None and wanted is not None:
        fitting = [found for found in state.lab_names() if _runs(found, wanted)]
        if not fitting:
            raise UsageError(
                f"no lab of topology {wanted} is up", hint=f"Bring it up first: lab up {topology}"
            )
        chosen = wanted if wanted in fitting else fitting[0] if len(fitting) == 1 else None
    lab = DockerLab.open(state.the_lab(chosen))
    if wanted is not None and lab.topology.name != wanted:
        raise UsageError(
            f"lab {lab.name} runs topology {lab.topology.name}, not {wanted}",
            hint=f"lab up {topology} --name <another name>",
        )
    return lab


def _runs(name: str, topology: str) -> bool:
    """Whether a lab was brought up with a topology of this name."""
    from lab.deploy import state
    from lab.errors import LabError

    try:
        return state.load_topology(name).name == topology
    except LabError:
        return False


def report_run(path: Path, as_json: bool) -> int:
    """Analyse, judge, print; the exit code."""
    from lab import terminal
    from reports import pipeline
    from reports.terminal import verdict_table

    done = pipeline.analyse_and_report(path, quiet=as_json)
    if as_json:
        terminal.print_json(pipeline.summary_json(done))
    else:
        console = terminal.out()
        console.print(verdict_table(done.verdicts))
        console.print(str(done.paths["html"]), soft_wrap=True, markup=False)
    return int(done.exit_code)
