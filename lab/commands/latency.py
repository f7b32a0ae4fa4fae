"""``lab latency``: the mixed load at a stated rate for a stated time, judged."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from lab.commands import command_line


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("latency")
    def latency_command(
        topology: Annotated[
            str | None, typer.Option("--topology", help="The topology that the lab must run.")
        ] = None,
        name: Annotated[
            str | None, typer.Option("--name", help="Name of the lab; the topology's name by default.")
        ] = None,
        rate: Annotated[
            float | None, typer.Option("--rate", min=0.1, help="Requests per second offered; default 40.")
        ] = None,
        duration: Annotated[
            str, typer.Option("--duration", help="How long it is measured, such as 60s or 5m.")
        ] = "60s",
        workload: Annotated[
            str | None,
            typer.Option(help="See `lab list workloads`; default: mixed; tpcb where its schema is missing."),
        ] = None,
        users: Annotated[
            int | None, typer.Option(min=1, help="Clients; default: the topology's application instances.")
        ] = None,
        cache: Annotated[
            bool, typer.Option("--cache/--no-cache", help="Whether the load uses the topology's cache.")
        ] = True,
        clock: Annotated[
            float, typer.Option(min=1, help="How many times faster the cache's TTL runs than the document's.")
        ] = 1.0,
        seed: Annotated[int | None, typer.Option("--seed", min=0, help="Random by default.")] = None,
        runs: Annotated[Path, typer.Option(help="The folder of the run records.")] = Path("runs"),
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Load a lab, and hold latency, pools, CPU, cache and alarms against the document.

        First the generator's own ceiling is measured (5 s in a closed loop); a result within 20 % of it is
        inconclusive. Exit code as of `lab run`.
        """
        from lab import terminal
        from lab.ceiling import SCENARIO, file_for
        from lab.commands.run import open_lab, report_run
        from lab.durations import parse_duration
        from lab.load import default_workload, find_workload
        from lab.scenario.loader import load_scenario
        from lab.scenario.runner import run_scenario

        length = parse_duration(duration)
        if workload is not None:
            find_workload(workload)  # before a lab is looked for: it may have to be brought up first
        lab = open_lab(topology, name)
        if workload is None:
            workload = default_workload(lab.topology)
        asked = {
            "settle": length,
            "load.workload": workload,
            "load.rate": rate,
            "load.users": users,
            "load.clock": clock,
            "load.cache": str(cache).lower(),
        }
        story = load_scenario(SCENARIO, [f"{field}={v}" for field, v in asked.items() if v is not None])
        chosen = seed if seed is not None else secrets.randbelow(2**31)
        load = story.load
        if not as_json:
            terminal.say(f"measuring the generator's ceiling for {load.workload}", style="dim")
        done = run_scenario(
            lab,
            story,
            seed=chosen,
            runs_dir=runs,
            command=command_line(),
            files=file_for(lab, load, chosen),
        )
        raise typer.Exit(report_run(done.path, as_json))
