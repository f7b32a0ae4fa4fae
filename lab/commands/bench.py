"""``lab bench``: figures of the lab itself, printed and kept as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lab.bench.figure import Figure
    from lab.deploy.docker_driver import DockerLab

PARTS = ("up", "load", "collectors", "yardstick", "analysis")
TOPOLOGY = "risk-prod"
Say = Callable[[str], None]


def register(app: typer.Typer) -> None:
    @app.command()
    def bench(
        parts: Annotated[
            list[str] | None, typer.Argument(help=f"Which: {', '.join(PARTS)}. None: all.")
        ] = None,
        quick: Annotated[
            bool, typer.Option("--quick", help="Few repetitions: a look, not a figure.")
        ] = False,
        runs: Annotated[Path, typer.Option(help="The folder of the run records.")] = Path("runs"),
        as_json: Annotated[
            bool, typer.Option("--json", help="Print one JSON document, nothing else.")
        ] = False,
    ) -> None:
        """Measure the lab itself: its start, its load generator, its collectors, its yardstick, its analysis.

        Writes runs/bench/latest.json. Exit code 1: a figure misses its aim; 2: one could not be had.
        """
        from lab import terminal
        from lab.errors import Exit, UsageError

        chosen = tuple(parts or PARTS)
        wrong = [part for part in chosen if part not in PARTS]
        if wrong:
            raise UsageError(f"there is no bench {', '.join(wrong)}", hint=f"There are: {', '.join(PARTS)}.")
        figures: list[Figure] = []
        for part in PARTS:
            if part in chosen:
                figures += _measure(part, quick, terminal.say)
                _save(runs / "bench", figures, quick)
        if as_json:
            terminal.print_json([figure.model_dump(mode="json") for figure in figures])
        else:
            _show(figures)
            terminal.out().print(str(runs / "bench" / "latest.json"), soft_wrap=True, markup=False)
        if any(figure.holds is False for figure in figures):
            raise typer.Exit(int(Exit.NOT_MET))
        if any(figure.value is None for figure in figures):
            raise typer.Exit(int(Exit.UNDECIDED))


def _measure(part: str, quick: bool, say: Say) -> list[Figure]:
    """One part; each brings up what it needs, and takes it down."""
    if part == "up":
        from lab.bench import up
        from lab.topology.loader import load_topology

        return up.run(load_topology(TOPOLOGY), 1 if quick else 3, say)
    if part == "load":
        from lab.bench import load

        return load.run(2 if quick else 6, say)
    if part == "collectors":
        from lab.bench import collectors

        with _lab(say) as lab:
            return collectors.run(lab, 3 if quick else collectors.PAIRS, say)
    if part == "yardstick":
        from lab.bench import yardstick

        with _lab(say) as lab:
            return yardstick.run(lab, 2 if quick else 10, say)
    from lab.bench import analysis

    return analysis.run((1_000_000,) if quick else analysis.SIZES, say)


@contextmanager
def _lab(say: Say) -> Iterator[DockerLab]:
    """A lab of its own, whatever else runs."""
    from lab.deploy.down import down
    from lab.deploy.up import Silent, up
    from lab.topology.loader import load_topology

    name = f"bench-{os.getpid()}"
    say(f"bringing up {TOPOLOGY} as {name}")
    try:
        yield up(name, load_topology(TOPOLOGY), Silent()).lab
    finally:
        down(name)


def _save(folder: Path, figures: list[Figure], quick: bool) -> None:
    """Keep what there is after every part: a bench that is interrupted loses nothing."""
    from lab.deploy.allocate import look_at_machine

    machine = look_at_machine()
    folder.mkdir(parents=True, exist_ok=True)
    told = {"cores": machine.cores, "memory_bytes": machine.memory_bytes, "quick": quick}
    document = [{**figure.model_dump(mode="json"), "machine": told} for figure in figures]
    partial = folder / "latest.json.new"
    partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / "latest.json")


def _show(figures: list[Figure]) -> None:
    from lab import terminal

    table = terminal.table("figure", "value", "unit", "aim", "", "note", title="Bench")
    for figure in figures:
        mark = {True: "[green]holds[/]", False: "[red]misses[/]", None: "–"}[figure.holds]
        value = "not measured" if figure.value is None else f"{figure.value:g}"
        table.add_row(figure.name, value, figure.unit, figure.aim, mark, figure.note)
    terminal.out().print(table)
