"""``lab down``: remove a lab with everything that it owns."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("down")
    def down_command(
        given: Annotated[
            str | None, typer.Argument(metavar="[LAB]", help="Name of the lab, as with --name.")
        ] = None,
        name: Annotated[
            str | None, typer.Option("--name", help="Name of the lab; not needed where there is one only.")
        ] = None,
        everything: Annotated[bool, typer.Option("--all", help="Every lab that was made here.")] = False,
        force: Annotated[
            bool, typer.Option("--force", help="Also while another command works on it.")
        ] = False,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Remove a lab: containers, networks, volumes, secrets, files."""
        from dataclasses import asdict

        from lab import terminal
        from lab.deploy import state
        from lab.deploy.down import down, existing_labs
        from lab.errors import LabError, UsageError

        chosen = name or given
        if name and given and name != given:
            raise UsageError(f"two names: {given} and {name}", hint="Give one of them.")
        if everything and chosen:
            raise UsageError("--all and a name exclude each other")
        if chosen:
            names = [state.check_name(chosen)]
        else:
            # Labs without a folder here may be another checkout's, or another user's: only by their name.
            names = state.lab_names()
            for stranger in existing_labs():
                if stranger not in names:
                    terminal.say(
                        f"lab {stranger} is on this engine, but was not made here: "
                        f"`lab down --name {stranger}` removes it"
                    )
            if len(names) > 1 and not everything:
                raise UsageError(
                    f"there are several labs: {', '.join(names)}",
                    hint="Say which one with `--name`, or `--all`.",
                )
        for one in names:
            if not force and state.is_held(state.lab_dir(one) / "lock"):
                raise LabError(
                    f"another command is working on lab {one}",
                    hint="End it first (Ctrl-C there), or take the lab from under it with `--force`.",
                )
        done = []
        for one in names:
            terminal.say(f"removing lab {one}", "dim")
            removed = down(one)
            done.append(removed)
            if not as_json:
                if removed:
                    terminal.out().print(f"[bold green]✓[/] lab [bold]{one}[/] is gone: removed {removed}")
                else:
                    terminal.out().print(f"there was nothing of a lab named {one}")
        if as_json:
            terminal.print_json({"removed": [asdict(removed) for removed in done]})
        elif not names:
            terminal.out().print("no lab is up: nothing to remove")
