"""Views that several commands print."""

from __future__ import annotations

from rich.console import Console

from lab import terminal
from lab.deploy.docker_driver import DockerLab
from lab.deploy.endpoints import endpoints


def name_option(lab: DockerLab) -> str:
    """`` --name X`` where a command needs it to find this lab."""
    from lab.deploy.state import lab_names

    return f" --name {lab.name}" if len(lab_names()) > 1 else ""


def endpoint_lines(console: Console, lab: DockerLab) -> None:
    """The endpoints that people can reach, one a line."""
    table = terminal.table("Endpoint", "From this host", "Database", "Inside the lab")
    for endpoint in endpoints(lab.topology, lab.allocation).values():
        if endpoint.published_port is None or endpoint.name.endswith(".clock"):
            continue
        at = f"127.0.0.1:{endpoint.published_port}"
        if endpoint.name.endswith(".stats"):
            at = f"http://{at}/stats"
        table.add_row(
            endpoint.name, at, endpoint.database or "", f"{endpoint.host}:{endpoint.port}", style=""
        )
    console.print()
    console.print(table)


def how_to_connect(console: Console, lab: DockerLab) -> None:
    """The commands that come next."""
    name = name_option(lab)
    hints = [
        (f"lab psql{name}", "a session through the transaction pool"),
        (f'eval "$(lab env{name})"', "connection settings for any client on this host"),
        (f"lab status{name}", "roles, lag, endpoints"),
        (f"lab down{f' --name {lab.name}' if name else ''}", "remove it with everything that it owns"),
    ]
    width = max(len(command) for command, _ in hints)
    console.print()
    for command, what in hints:
        console.print(f"  [bold]{command.ljust(width)}[/]  [dim]{what}[/]", highlight=False)
