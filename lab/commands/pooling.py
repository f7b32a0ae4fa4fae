"""``lab pooling``, ``lab pool-compat``: experiments with the pools of a running lab."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Literal

import typer

from lab.commands import command_line

Topology = Annotated[str | None, typer.Option("--topology", help="The topology that the lab must run.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the lab; the topology's name by default.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything random.")]
Runs = Annotated[Path, typer.Option(help="The folder of the run records.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @app.command()
    def pooling(
        topology: Topology = None,
        name: Name = None,
        clients: Annotated[
            list[int] | None, typer.Option("--clients", min=1, help="Clients at once; give it several times.")
        ] = None,
        repeats: Annotated[int, typer.Option(min=1, help="How often; intervals take 6.")] = 6,
        seconds: Annotated[float, typer.Option(min=1, help="Length of a cell.")] = 2.5,
        groups: Annotated[
            list[str] | None,
            typer.Option(
                "--group",
                help="statement, single, prepared, authentication, transaction, control, memory, timeouts; "
                "give it several times.",
            ),
        ] = None,
        minutes: Annotated[
            float | None, typer.Option("--minutes", min=0.1, help="Begin no further repeat after so long.")
        ] = None,
        seed: Seed = None,
        runs: Runs = Path("runs"),
        as_json: Json = False,
    ) -> None:
        """What pooling is worth: the same transactions direct and through every pool mode.

        Connections for each transaction and lasting ones, statements prepared or not, 1, 20 and 100 clients,
        SCRAM and md5, in cells that take turns; memory of idle connections; the pooler's timeouts; and a
        pooler that keeps no connection, whose efficiency has to come out low. About 15 minutes.

        Exit code: as `lab run`.
        """
        from lab.commands.run import open_lab, report_run
        from lab.experiment.pooling import GROUPS, check_groups, run_pooling

        check_groups(groups or GROUPS)
        lab = open_lab(topology, name)
        path = run_pooling(
            lab,
            clients=tuple(clients or (20, 100)),
            repeats=repeats,
            seconds=seconds,
            groups=tuple(groups or GROUPS),
            minutes=minutes,
            seed=_seed(seed),
            runs_dir=runs,
            command=command_line(),
        )
        raise typer.Exit(report_run(path, as_json))

    @app.command("pool-compat")
    def pool_compat(
        topology: Topology = None,
        name: Name = None,
        modes: Annotated[
            list[str] | None,
            typer.Option("--mode", help="session, transaction or statement; all by default."),
        ] = None,
        features: Annotated[
            list[str] | None, typer.Option("--feature", help="Only this one; give it several times.")
        ] = None,
        runs: Runs = Path("runs"),
        as_json: Json = False,
    ) -> None:
        """Which session features work through which pool mode, fail loudly, or leak to another client.

        Found by using each of them with two clients, of whom the second is given the first one's server
        connection; beside it what PgBouncer's documentation says.
        """
        from lab.commands.run import open_lab
        from lab.experiment.compat import MODES, check, run_compat
        from reports.experiments.pool_compat import print_matrix

        check(modes or MODES, features or ())
        lab = open_lab(topology, name)
        path = run_compat(
            lab,
            modes=tuple(modes or MODES),
            features=tuple(features or ()),
            runs_dir=runs,
            command=command_line(),
        )
        raise typer.Exit(print_matrix(path, as_json=as_json))

    @app.command("pool-size")
    def pool_size(
        topology: Topology = None,
        name: Name = None,
        mode: Annotated[
            Literal["transaction", "session", "statement"], typer.Option(help="Which pool.")
        ] = "transaction",
        sizes: Annotated[list[int] | None, typer.Option("--size", min=1, help="A pool size to try.")] = None,
        rates: Annotated[
            list[float] | None, typer.Option("--rate", min=1, help="Offered transactions per second.")
        ] = None,
        workload: Annotated[str, typer.Option(help="What the clients do.")] = "trade-booking",
        clients: Annotated[int, typer.Option(min=1, help="How many can be under way or wait.")] = 100,
        latency: Annotated[float, typer.Option("--latency-ms", min=0.1, help="p99 that must hold.")] = 100.0,
        repeats: Annotated[int, typer.Option(min=1, help="How often each size meets each rate.")] = 3,
        seconds: Annotated[float, typer.Option(min=1, help="Length of a cell.")] = 8.0,
        seed: Seed = None,
        runs: Runs = Path("runs"),
        as_json: Json = False,
    ) -> None:
        """The smallest pool that holds the latency at each rate, and PgBouncer's settings for it.

        Each size is a further PgBouncer beside the lab's own, which stay as they are.
        """
        from lab.commands.run import open_lab, report_run
        from lab.experiment.sizing import RATES, SIZES, run_sizing
        from lab.load import find_workload
        from reports.experiments.pool_size import print_advice

        find_workload(workload)  # before a lab is looked for
        path = run_sizing(
            open_lab(topology, name),
            mode=mode,
            sizes=tuple(sizes or SIZES),
            rates=tuple(rates or RATES),
            workload=workload,
            clients=clients,
            latency_ms=latency,
            repeats=repeats,
            seconds=seconds,
            seed=_seed(seed),
            runs_dir=runs,
            command=command_line(),
        )
        if not as_json:
            print_advice(path)
        raise typer.Exit(report_run(path, as_json))

    @app.command("pool-report")
    def pool_report(
        topology: Annotated[
            str | None, typer.Option("--topology", help="By default that of the newest record.")
        ] = None,
        runs: Runs = Path("runs"),
        out: Annotated[
            Path | None, typer.Option("--out", metavar="FILE", help="By default pooling.html in that folder.")
        ] = None,
        show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    ) -> None:
        """One page to decide from: which mode, how large, what breaks; from the newest records.

        It joins `lab pooling`, `lab pool-size`, `lab pool-compat` and `lab latency` of one topology. No lab
        is needed. Exit code: 0, 3 no record, 4 it could not be written.
        """
        import webbrowser

        from lab import terminal
        from reports.pools import write

        page = write(runs, topology, out)
        terminal.out().print(str(page), soft_wrap=True, markup=False)
        if show:
            webbrowser.open(page.resolve().as_uri())


def _seed(given: int | None) -> int:
    return given if given is not None else secrets.randbelow(2**31)
