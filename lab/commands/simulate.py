"""``lab simulate``: the model of clients, pools, nodes and cache, calibrated from a run record."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lab.experiment.slo import Objective
    from reports.capacity.calibrate import Calibration
    from reports.capacity.whatif import Question

SHARES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1)
"""Of the knee: the rates of the table."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("simulate")
    def simulate_command(
        source: Annotated[
            Path,
            typer.Option("--from", help="Run record to calibrate from, such as a capacity run."),
        ] = Path("runs/latest"),
        what_if: Annotated[
            str,
            typer.Option(
                "--what-if",
                help="instances, concurrency, pool, pool.transaction (…session, …statement), replicas, "
                "class, replica.class, cache.hit, rate, outage; with commas between.",
            ),
        ] = "",
        slo: Annotated[
            str | None, typer.Option(help="Default: the record's, else that of `lab capacity`.")
        ] = None,
        validate: Annotated[
            bool, typer.Option("--validate", help="Compare the model with the steps of the capacity run.")
        ] = False,
        search: Annotated[
            float | None,
            typer.Option("--search", min=0.1, metavar="RATE", help="Cheapest configuration for this rate."),
        ] = None,
        as_lab: Annotated[
            bool, typer.Option("--as-lab", help="With the lab's own limits, not the classes' full size.")
        ] = False,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Ask the model what the lab did not measure. Takes seconds, needs no lab.

        What it has not been shown to predict is marked *extrapolated*; far beyond, it refuses. Exit code 1:
        no configuration holds the objective, or the validation fails.
        """
        from lab.errors import Exit, UsageError
        from lab.experiment.slo import DEFAULT, parse_slo
        from lab.record.reader import RecordReader
        from reports.capacity.calibrate import calibrate
        from reports.capacity.whatif import as_measured, ask, on_paper

        record = RecordReader(source)
        known = (record.manifest.load or {}).get("slo")
        objective = parse_slo(slo or str(known or DEFAULT))
        calibration = calibrate(record)
        if validate:
            good = _validate(record, calibration, as_json)
            raise typer.Exit(int(Exit.MET if good else Exit.NOT_MET))
        base = as_measured(calibration) if as_lab else on_paper(calibration)
        question = ask(base, what_if, calibration)
        if search is not None:
            if question.rate is not None:
                raise UsageError("--search has its rate already", hint="Leave rate out of --what-if.")
            raise typer.Exit(
                int(Exit.MET if _search(question, calibration, objective, search, as_json) else Exit.NOT_MET)
            )
        _answer(question, calibration, objective, as_json)


def _answer(question: Question, calibration: Calibration, slo: Objective, as_json: bool) -> None:
    from dataclasses import asdict

    from lab import terminal
    from reports.capacity.answer import at, bottleneck, failover, knee
    from reports.capacity.whatif import ASSUMES

    system, demands = question.system, calibration.demands
    carried, least = knee(system, demands, slo)
    rates = (question.rate,) if question.rate else tuple((carried or 0) * share for share in SHARES)
    points = [at(system, demands, rate) for rate in rates if rate] or ([least] if least else [])
    document: dict[str, Any] = {
        "run": calibration.run,
        "what_if": list(question.changed),
        "slo": slo.text,
        "knee_per_s": carried,
        "extrapolated": list(question.far),
        "assumes": list(ASSUMES),
        "calibrated_at_per_s": list(calibration.rates),
        "notes": list(calibration.notes),
        "points": [asdict(point) for point in points],
    }
    limit = slo.percentile[1] if slo.percentile else 1000.0
    after = None
    if question.outage_s is not None:
        rate = question.rate or (carried or 0) * 0.5
        connect = calibration.connect_s if calibration.connect_s is not None else ASSUMED_CONNECT_S
        after = failover(system, demands, rate, question.outage_s, connect, limit)
        document["failover"] = {**asdict(after), "rate_per_s": rate}
    if as_json:
        terminal.print_json(document)
        return
    console = terminal.out()
    title = ", ".join(question.changed) or "the topology on paper"
    table = terminal.table(
        "offered/s", "answered/s", "p50 ms", "p95 ms", "p99 ms", "pool wait ms", "errors", "dropped",
        "most used", title=title,
    )  # fmt: skip
    for point in points:
        where, used = bottleneck(point)
        times = [_ms(point.response[name]) for name in ("p50", "p95", "p99")]
        table.add_row(
            f"{point.rate:.0f}", f"{point.throughput:.0f}", *times, f"{point.wait:.2f}",
            f"{point.errors:.2%}", f"{point.dropped:.2%}", f"{where} {used:.0%}",
        )  # fmt: skip
    console.print(table)
    if carried is None:
        console.print(f"Nothing holds {slo.text}: it is broken even where nothing queues.", style="red")
    else:
        console.print(f"Carries {carried:.0f} requests/s within {slo.text}.")
    if after is not None:
        back = "not within the simulation" if after.recovered is None else f"after {after.recovered:.1f} s"
        console.print(
            f"Outage of {after.length:g} s at {document['failover']['rate_per_s']:.0f}/s: {after.backlog} "
            f"requests wait at the worst, {after.dropped} are given up, {after.failed} break; "
            f"{after.connections} connections come back; the objective is held again {back}."
        )
        if calibration.connect_s is None:
            console.print(
                f"A connection is assumed to cost {1000 * ASSUMED_CONNECT_S:g} ms of CPU.", style="dim"
            )
    for text in question.far:
        terminal.warn(f"extrapolated: {text}")
    for text in calibration.notes:
        terminal.warn(text)
    console.print(f"Assumes that {'; '.join(ASSUMES)}.", style="dim")


ASSUMED_CONNECT_S = 0.005
"""CPU of one new connection (TLS, SCRAM, a new backend) where the record does not tell."""


def _search(question: Question, calibration: Calibration, slo: Objective, rate: float, as_json: bool) -> bool:
    from lab import terminal
    from lab.errors import UsageError
    from reports.capacity.cost import cheapest, dated, hourly
    from reports.capacity.system import mean_service

    if "primary" not in question.classes or hourly(question.classes["primary"]) is None:
        raise UsageError(
            "there is no price for the topology's instance class", hint="Name one: class=db.r5.large."
        )
    found = cheapest(
        question.system, question.classes, calibration.demands, slo, rate, calibration.memory_gib
    )
    if as_json:
        terminal.print_json(
            {
                "rate_per_s": rate,
                "slo": slo.text,
                "prices": dated(),
                "found": None
                if found is None
                else {
                    "primary": found[0].primary,
                    "replica": found[0].replica,
                    "replicas": found[0].replicas,
                    "server_connections": found[0].system.pool.writer + found[0].system.pool.reader,
                    "dollars_a_month": found[0].cost,
                    "p99_ms": found[1].response["p99"],
                },
                "extrapolated": True,
            }
        )
        return found is not None
    if found is None:
        terminal.out().print(
            f"No configuration of the price table holds {slo.text} at {rate:g}/s.", style="red"
        )
        most = question.system.clients / mean_service(calibration.demands)
        if most < rate:
            terminal.out().print(
                f"{question.system.clients} requests under way are {most:.0f}/s at the most: ask with "
                f'--what-if "instances={math.ceil(2 * question.system.instances * rate / most)}".'
            )
        return False
    one, point = found
    terminal.out().print(
        f"{one.said}: {one.cost:,.0f} $ a month ({dated()}), p99 {_ms(point.response['p99'])} ms "
        f"at {rate:g}/s; extrapolated."
    )
    return True


def _validate(record: Any, calibration: Calibration, as_json: bool) -> bool:
    from dataclasses import asdict

    from lab import terminal
    from reports.capacity.steps import read_run
    from reports.capacity.validate import FIGURES, validate

    found = validate(read_run(record), calibration)
    good = found.shown_to is not None and all(one.shown for one in found.points)
    if as_json:
        points = [{**asdict(one), "shown": one.shown} for one in found.points]
        terminal.print_json(
            {"points": points, "shown_to_per_s": found.shown_to, "lab_knee_per_s": found.lab_knee,
             "model_knee_per_s": found.model_knee, "knee_error": found.knee_error, "notes": calibration.notes}
        )  # fmt: skip
        return good
    table = terminal.table("rate", *FIGURES, "shown", title="Model against lab: lab → model, error")
    for one in found.points:
        cells = [f"{_ms(one.lab[n])} → {_ms(one.model[n])}\n{_share(one.error[n])}" for n in FIGURES]
        said = "yes" if one.shown else "[yellow]no[/]"
        table.add_row(f"{one.rate:g}{' *' if one.calibrated else ''}", *cells, said)
    console = terminal.out()
    console.print(table)
    console.print(
        "rates per second, times in ms; * service times are from this rate; the wait's error is a share of "
        "the mean response; a rate that is not shown is extrapolated",
        style="dim",
    )
    console.print(
        f"Shown to predict up to {found.shown_to:g}/s."
        if found.shown_to
        else "Not shown to predict any rate."
    )
    if found.knee_error is not None:
        console.print(f"Knee: model {found.model_knee:.0f}/s, {_share(found.knee_error)} off the lab's.")
    for text in calibration.notes:
        terminal.warn(text)
    return good


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.0f} %"
