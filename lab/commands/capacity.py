"""``lab capacity``: how much a lab carries within an objective, what ends it, and until when it lasts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lab.commands import command_line


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("capacity")
    def capacity_command(
        topology: Annotated[
            str, typer.Option("--topology", help="Brought up for the run unless a lab of it is up.")
        ] = "risk-prod",
        name: Annotated[
            str | None, typer.Option("--name", help="Of the lab; made from the topology by default.")
        ] = None,
        workload: Annotated[
            str | None,
            typer.Option(help="See `lab list workloads`; default: mixed; tpcb where its schema is missing."),
        ] = None,
        slo: Annotated[
            str | None, typer.Option(help='What a step has to keep; default: "p99<100ms, errors<0.1%".')
        ] = None,
        rate: Annotated[
            float | None, typer.Option(min=1, help="Of the first step; default: the workload's own.")
        ] = None,
        users: Annotated[
            int | None, typer.Option(min=1, help="Most requests under way; default: the instances.")
        ] = None,
        pool: Annotated[str | None, typer.Option(help="Pooler, pool mode, router or endpoint.")] = None,
        workers: Annotated[int, typer.Option(min=1, max=64, help="Locust processes.")] = 1,
        quick: Annotated[
            bool, typer.Option("--quick", help="4 to 5 minutes, for a knee within a quarter.")
        ] = False,
        step: Annotated[str | None, typer.Option(help="Length of a step; default: 12s (quick: 6s).")] = None,
        repeats: Annotated[
            int | None, typer.Option(min=1, help="Steps at each rate; default: 2 (quick: 1).")
        ] = None,
        precision: Annotated[
            float | None,
            typer.Option(
                min=0.01, max=1, help="First bad ÷ last good − 1 to stop at; default: 0.05 (quick: 0.25)."
            ),
        ] = None,
        levels: Annotated[
            str | None, typer.Option(help="Concurrency of the closed loop: 1,2,4,…; none: leave it out.")
        ] = None,
        now: Annotated[
            float | None,
            typer.Option("--now", min=0, help="Rate that production carries now, for the forecast."),
        ] = None,
        growth: Annotated[
            str | None, typer.Option(help="Per month, such as 5%, or a CSV: date,requests_per_second.")
        ] = None,
        settings: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="A field of the topology."),
        ] = None,
        resume: Annotated[
            Path | None, typer.Option(help="Go on with an interrupted run; its steps count.")
        ] = None,
        seed: Annotated[int, typer.Option(help="Equal seeds give equal schedules.")] = 1,
        keep: Annotated[
            bool, typer.Option("--keep", help="Leave a lab up that was brought up for it.")
        ] = False,
        runs: Annotated[Path, typer.Option(help="The folder of the run records.")] = Path("runs"),
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Measure how much a lab carries within an objective, and report it with a forecast.

        Offered rate rises in steps until one fails, then the knee is found by bisection, and every rate is
        repeated; a closed loop over rising concurrency gives the scalability law. Takes 10 to 13 minutes on a
        quiet machine, with --quick 4 to 5. Ctrl-C ends it, --resume goes on.
        """
        from dataclasses import replace

        from lab import labs, terminal
        from lab.commands.run import report_run
        from lab.durations import parse_duration
        from lab.experiment.capacity import earlier_cells, estimate_s, plan_for, run_capacity
        from lab.topology.loader import load_topology
        from reports.capacity.growth import parse_growth

        # What is wrong with the question is said before a lab is brought up for it.
        wanted = load_topology(topology, tuple(settings or ()))
        plan = plan_for(wanted, workload=workload, slo=slo, quick=quick)
        asked: dict[str, Any] = {"rate": rate, "users": users, "pool": pool, "now": now}
        depth: dict[str, Any] = {
            "step_s": parse_duration(step) if step is not None else None,
            "repeats": repeats,
            "precision": precision,
            "levels": _levels(levels) if levels is not None else None,
        }
        plan = replace(
            plan,
            workers=workers,
            depth=replace(plan.depth, **{k: v for k, v in depth.items() if v is not None}),
            **{k: v for k, v in asked.items() if v is not None},
        )
        forecast = parse_growth(growth, now) if growth is not None else None
        if resume is not None:
            earlier_cells(resume, plan, wanted.name)
        terminal.say(
            f"{plan.workload} on {wanted.name} within {plan.slo}: about {estimate_s(plan) / 60:.0f} min on a "
            "quiet machine",
            "dim",
        )
        mine = labs.Labs(name, keep=keep, suffix="capacity")
        try:
            lab = mine.get(topology, tuple(settings or ()))
            path = run_capacity(lab, plan, seed=seed, runs=runs, command=command_line(), resume=resume)
        finally:
            mine.close()
        if forecast is not None:
            (path / "growth.json").write_text(forecast.model_dump_json(indent=1), encoding="utf-8")
        terminal.say(
            f"the record is {path}; `lab simulate --from {path}` asks the model about what was not measured"
        )
        raise typer.Exit(report_run(path, as_json))


def _levels(text: str) -> tuple[int, ...]:
    from lab.errors import UsageError

    if text.strip() == "none":
        return ()
    try:
        found = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        raise UsageError(f"{text!r} is no list of concurrencies", hint="Such as 1,2,4,8,12,16.") from None
    if not found or found[0] < 1:
        raise UsageError("a concurrency is at least 1")
    return found
