"""The command line ``lab …``: finds the commands, runs one, turns errors into messages and exit codes.

A command is a module in ``lab/commands`` with ``register(app: typer.Typer) -> None``. Commands import
what they need when they run, so that ``lab --help`` is quick.
"""

from __future__ import annotations

import errno
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from lab import terminal
from lab.errors import Exit, LabError

INTERRUPTED = 130
"""The shell's code for a program ended by Ctrl-C (128 + SIGINT)."""

_NEVER_HEALS = {"down", "list", "doctor"}
"""Commands that do not look for faults left behind: they touch no lab, or remove it."""

# Newer typers carry their own copy of click: its exception classes are reached through typer's own names.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
_CLICK_ERROR: type[Exception] = _USAGE_ERROR.__bases__[0]


def build() -> typer.Typer:
    """The whole application, with every command that ``lab/commands`` holds."""
    app = typer.Typer(
        name="lab",
        help="A local lab for PostgreSQL architectures: build one, load it, break it, measure it.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def before(context: typer.Context) -> None:
        command = context.invoked_subcommand
        if command is not None and command not in _NEVER_HEALS and not _wants_help(sys.argv):
            heal_leftovers()

    from lab import commands

    for module in sorted(pkgutil.iter_modules(commands.__path__), key=lambda m: m.name):
        if module.name.startswith("_"):
            continue
        importlib.import_module(f"{commands.__name__}.{module.name}").register(app)
    return app


def _wants_help(argv: Sequence[str]) -> bool:
    return "--help" in argv or "-h" in argv


def heal_leftovers() -> None:
    """Undo faults that a killed runner left in any lab.

    A journal whose lab is in use by a living process (it holds ``lock``) is that process's own. A lab that
    cannot be healed is a warning: it must not stop a command that may be about another lab.
    """
    from lab.deploy import state

    for name in state.lab_names():
        folder = state.lab_dir(name)
        journal = folder / "journal.jsonl"
        try:
            if not journal.stat().st_size or state.is_held(folder / "lock"):
                continue
        except OSError:
            continue
        try:
            from lab.deploy.docker_driver import DockerLab
            from lab.scenario.journal import heal_pending

            for healed in heal_pending(DockerLab.open(name)):
                terminal.say(f"lab {name}: {healed} (left behind by a killed run)", "yellow")
        except LabError as error:
            terminal.warn(f"lab {name}: could not undo the faults of a killed run: {error}")
            if error.hint:
                terminal.say(f"         {error.hint}")


def run(argv: Sequence[str]) -> int:
    """Run one command.

    Returns:
        The exit code: ``lab.errors.Exit``, or 130 after Ctrl-C.
    """
    as_json = "--json" in argv
    try:
        result = build()(args=list(argv), standalone_mode=False, prog_name="lab")
        if result == INTERRUPTED:  # what typer makes of Ctrl-C
            return _end(as_json, "interrupted", None, INTERRUPTED)
        return int(result) if isinstance(result, int) else Exit.MET
    except (KeyboardInterrupt, typer.Abort):
        return _end(as_json, "interrupted", None, INTERRUPTED)
    except LabError as error:
        return _end(as_json, str(error), error.hint, error.exit_code)
    except _USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(str(context.get_help() if context else error) + "\n")
            return Exit.USAGE
        path = context.command_path if context is not None else "lab"
        return _end(as_json, error.format_message(), f"`{path} --help` shows what it takes.", Exit.USAGE)  # type: ignore[attr-defined]
    except _CLICK_ERROR as error:
        return _end(as_json, error.format_message(), None, Exit.USAGE)  # type: ignore[attr-defined]
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted; keep the interpreter's last flush from complaining.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.MET
    except Exception as error:
        if os.environ.get("LAB_DEBUG") == "1":
            raise
        return _end(as_json, *_explain(error))


def _explain(error: Exception) -> tuple[str, str, int]:
    """Message, hint and exit code of an exception that no one expected."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" (writing {error.filename})" if error.filename else ""
        return (
            f"the disk is full{where}",
            "Free some space; `docker system df` shows what the engine holds.",
            Exit.FAILED,
        )
    if isinstance(error, PermissionError):
        return (
            f"permission denied: {error.filename or error}",
            "Check who owns it, and whether your user may use the container engine.",
            Exit.FAILED,
        )
    where = ""
    trace = error.__traceback__
    while trace is not None:
        where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return (
        f"this is a bug in the lab: {type(error).__name__}: {error} ({where})",
        "LAB_DEBUG=1 shows the traceback; please report it.",
        Exit.FAILED,
    )


def _end(as_json: bool, message: str, hint: str | None, code: int) -> int:
    terminal.fail(message, hint)
    if as_json:
        terminal.print_json({"error": {"message": message, "hint": hint, "exit_code": int(code)}})
    return int(code)


def main() -> None:
    """Entry point of the console script ``lab``."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
