"""``lab init``: an architecture of one's own, as a folder that comes up at once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lab.topology.models import PoolMode
    from lab.topology.scaffold import WeightedScript

_LAB_SCHEMA = re.compile(
    r'^CREATE SCHEMA (?:IF NOT EXISTS )?"?lab"?\s*(?:;|$| AUTH)', re.MULTILINE | re.IGNORECASE
)
_DUMP_MAGIC = b"PGDMP"


class Pool(StrEnum):
    """What stands between applications and the database."""

    TRANSACTION = "transaction"
    SESSION = "session"
    STATEMENT = "statement"
    NONE = "none"


MODES: dict[Pool, PoolMode | None] = {
    Pool.TRANSACTION: "transaction",
    Pool.SESSION: "session",
    Pool.STATEMENT: "statement",
    Pool.NONE: None,
}


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("init")
    def init_command(
        folder: Annotated[Path, typer.Argument(help="Where to write; made if it does not exist.")],
        name: Annotated[str | None, typer.Option(help="Of the topology; the folder's by default.")] = None,
        standbys: Annotated[
            int | None, typer.Option(min=0, max=5, help="Databases that may take over and serve no reads.")
        ] = None,
        readers: Annotated[
            int | None, typer.Option(min=0, max=5, help="Databases that may take over and serve reads.")
        ] = None,
        replicas: Annotated[
            int | None, typer.Option(min=0, max=5, help="Databases that serve reads and never take over.")
        ] = None,
        pooler: Annotated[Pool | None, typer.Option(help="PgBouncer's mode, or none.")] = None,
        pool_size: Annotated[int, typer.Option(min=2, help="Most server connections of the pool.")] = 50,
        cache: Annotated[bool | None, typer.Option("--cache/--no-cache", help="A Redis node.")] = None,
        vcpu: Annotated[float, typer.Option(min=0.1, help="CPU cores of a database node.")] = 2,
        memory: Annotated[float, typer.Option(min=0.25, help="Memory of a database node, GiB.")] = 4,
        version: Annotated[str, typer.Option(help="PostgreSQL, such as 16.4.")] = "any",
        rate: Annotated[float, typer.Option(min=0.1, help="Requests per second of the scenarios.")] = 50,
        schema: Annotated[
            Path | None, typer.Option(help="A SQL file, or a dump of pg_dump.", show_default=False)
        ] = None,
        script: Annotated[
            list[str] | None,
            typer.Option(metavar="FILE[@WEIGHT]", help="A SQL or pgbench script to load with; repeatable."),
        ] = None,
        force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
        as_json: Annotated[
            bool, typer.Option("--json", help="One JSON document on standard output.")
        ] = False,
    ) -> None:
        """Write a topology, a workload, targets and scenarios of your own.

        Asks for what no option tells, where somebody is there to answer; else takes the defaults: one
        standby, a transaction pool, no cache.
        """

        from lab import terminal
        from lab.errors import LabError, UsageError
        from lab.topology.loader import load_topology
        from lab.topology.scaffold import Answers, files
        from lab.topology.workload import load_workload_file

        ask = sys.stdin.isatty() and not as_json
        chosen = name or folder.resolve().name.lower().replace("_", "-")
        if ask and standbys is None and readers is None and replicas is None:
            standbys = typer.prompt("Standbys (may take over, serve no reads)", default=1, type=int)
            readers = typer.prompt("Readers (may take over, serve reads)", default=0, type=int)
            replicas = typer.prompt("Read replicas (never take over)", default=0, type=int)
        if ask and pooler is None:
            pooler = Pool(
                typer.prompt("Pooler (transaction, session, statement, none)", default="transaction")
            )
        if ask and cache is None:
            cache = typer.confirm("A Redis cache?", default=False)
        if ask and schema is None:
            given = typer.prompt("Your schema (a SQL file or dump; empty: an example)", default="")
            schema = Path(given) if given else None
        if standbys is None:
            standbys = 0 if readers or replicas else 1
        mode = MODES[pooler or Pool.TRANSACTION]
        answers = Answers(
            name=chosen, version=version, vcpu=vcpu, memory_gib=memory, standbys=standbys,
            readers=readers or 0, replicas=replicas or 0, pooler=mode, pool_size=pool_size, cache=bool(cache),
            rate=rate, schema=read_schema(schema) if schema else None,
            scripts=tuple(read_script(text) for text in script or ()),
        )  # fmt: skip
        made = files(answers)
        there = [path for path in made if (folder / path).exists()]
        if there and not force:
            raise UsageError(
                f"{folder} holds {', '.join(there[:3])} already", hint="--force writes over them."
            )
        for path, text in made.items():
            try:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text, encoding="utf-8")
            except OSError as error:
                raise LabError(f"cannot write {folder / path}: {error.strerror}") from error
        # What was written must be what the other commands take.
        load_topology(folder / "topology.yaml")
        load_workload_file(folder / "workload.yaml")
        if as_json:
            terminal.print_json({"folder": str(folder), "topology": chosen, "files": sorted(made)})
            return
        console = terminal.out()
        console.print(f"[bold green]✓[/] {len(made)} files in {folder}")
        console.print(f"\n  lab up {folder}/topology.yaml\n  lab run {folder}/scenarios/steady.yaml")
        breaking = next(p for p in made if p.startswith("scenarios/") and "steady" not in p)
        console.print(f"  lab run {folder}/{breaking}\n  lab down")


def read_schema(path: Path) -> str:
    """A SQL file as it is, a dump of pg_dump's own format as SQL. UsageError where it is neither."""
    from lab.errors import UsageError

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot read the schema: {error.strerror}") from error
    if raw.startswith(_DUMP_MAGIC):
        program = shutil.which("pg_restore")
        if program is None:
            raise UsageError(
                f"{path} is a dump in pg_dump's own format, and there is no pg_restore here",
                hint=f"Where there is one: pg_restore -f schema.sql {path}",
            )
        done = subprocess.run([program, "-f", "-", str(path)], capture_output=True, check=False)
        if done.returncode != 0:
            raise UsageError(f"{path}: {done.stderr.decode(errors='replace').strip()[:300]}")
        raw = done.stdout
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: neither SQL as UTF-8 text nor a dump (byte {error.start})") from error
    if found := _LAB_SCHEMA.search(text):
        raise UsageError(
            f"{path}, line {text.count(chr(10), 0, found.start()) + 1}: the schema lab is the lab's own",
            hint="Dump without it: pg_dump --exclude-schema=lab. A schema of yours needs another name.",
        )
    return text


def read_script(text: str) -> WeightedScript:
    """``FILE[@WEIGHT]`` as pgbench has it. UsageError where that is not to be read, or not understood."""
    from lab.errors import UsageError
    from lab.topology.scaffold import WeightedScript
    from loadtests.scripts import parse_script

    named, _, weight = text.rpartition("@") if text.rpartition("@")[2].isdecimal() else (text, "", "1")
    path = Path(named)
    try:
        found = path.read_text(encoding="utf-8")
        parse_script(found)
    except OSError as error:
        raise UsageError(f"{path}: cannot read the script: {error.strerror}") from error
    except ValueError as error:
        line, _, what = str(error).removeprefix("line ").partition(": ")
        raise UsageError(f"{path}:{line}: {what}" if what else f"{path}: not UTF-8 text") from error
    return WeightedScript(path.stem.replace("-", " ").replace("_", " "), found, max(1, int(weight)))
