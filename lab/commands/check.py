"""``lab check``: contradictions between a document's promises and its settings, on paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lab.topology.models import Topology


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("check")
    def check_command(
        names: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="[SYSTEM]…", help="Systems, topologies or topology files; all by default."
            ),
        ] = None,
        settings: Annotated[
            list[str] | None,
            typer.Option(
                "--set", metavar="KEY=VALUE", help="A field of every topology: postgres.patroni.ttl=300."
            ),
        ] = None,
        every: Annotated[bool, typer.Option("--all", help="Also show what holds.")] = False,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Find contradictions on paper: cost, connections, backups, recovery times, standbys. Needs no lab.

        Exit code: 0 no contradiction, 1 a contradiction, 2 something could not be reckoned, 3 wrong input.
        """
        from lab import terminal
        from reports import view
        from reports.paper import check, paper_of
        from reports.paper.text import PaperTable

        found = {}
        for topology in _topologies(names or [], settings or []):
            found[topology.name] = check(paper_of(topology))
        verdicts = [verdict for one in found.values() for verdict in one]
        code = view.exit_code(verdicts) if verdicts else 0
        if as_json:
            terminal.print_json(
                {
                    "topologies": {
                        name: [verdict.model_dump(mode="json") for verdict in one]
                        for name, one in found.items()
                    },
                    "exit_code": int(code),
                }
            )
        else:
            for name, one in found.items():
                terminal.out().print(PaperTable(name, one, every=every))
        raise typer.Exit(int(code))


def _topologies(names: list[str], settings: list[str]) -> list[Topology]:
    """The topologies that are meant. UsageError where a name is neither a system nor a topology."""
    from lab.topology.loader import list_topologies, load_topology

    shipped = [load_topology(name, settings) for name in list_topologies()]
    if not names:
        return shipped
    found: dict[str, Topology] = {}
    for name in names:
        of_system = [topology for topology in shipped if topology.system == name]
        for topology in of_system or [load_topology(name, settings)]:
            found[topology.name] = topology
    return list(found.values())
