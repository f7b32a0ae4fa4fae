"""A further PgBouncer beside a lab's own, on the same node, with settings of an experiment.

The lab's poolers stay as they are, so nothing has to be restored. It ends with the block, at its own
deadline, and, should the runner be killed, by the next ``lab`` command (the journal).
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lab.deploy.secret_names import POOLER_ADMIN, pool_roles
from lab.driver import Lab
from lab.errors import LabError
from lab.experiment.core import Experiment
from lab.faults._console import command
from lab.scenario.remote import Program, stop

FIRST_PORT = 16432
CONFIG = "/etc/lab/pgbouncer.ini"
STARTS_WITHIN_S = 15.0

Userlist = Literal["stored secrets", "plain passwords"]

# $1 folder, $2 seconds, $3 "plain" to take the list of users from given.txt. The list of the lab's own
# pooler holds SCRAM secrets. PgBouncer's pid is in <folder>/proc/pid, where the lab looks for what to end.
_START = """
set -e
umask 077
install -d -m 0755 "${1%/*}"
install -d -o postgres -g postgres "$1" "$1/proc"
users=/run/lab/userlist.txt
[ "$3" = plain ] && users=$1/given.txt
cp "$users" "$1/userlist.txt"
chown postgres:postgres "$1"/*.txt "$1"/pgbouncer.ini
exec setsid setpriv --reuid postgres --regid postgres --init-groups sh -c '
  echo $$ > "$1/proc/pid"
  exec timeout -k 2 "$2" pgbouncer "$1/pgbouncer.ini" > "$1/said.txt" 2>&1' sh "$1" "$2" < /dev/null
"""


@dataclass(frozen=True)
class Settings:
    """How the further pooler differs from the lab's own on that node."""

    mode: str
    auth_type: str = "scram-sha-256"
    users: Userlist = "stored secrets"
    databases: Mapping[str, int] = field(default_factory=dict)
    """Name → pool size and greatest number of server connections, each a way to the writer; empty: those
    of the lab's own."""
    pool_size: int | None = None
    """Of the databases of the lab's own; None: as there."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Of the section ``pgbouncer``."""


@dataclass(frozen=True)
class Bouncer:
    """A pooler of an experiment that runs."""

    lab: Lab
    node: str
    port: int
    folder: str

    def ask(self, text: str) -> list[dict[str, str]]:
        """Rows of a console command, by column name. LabError where it refuses."""
        return console(self.lab, self.node, text, self.port)

    def log(self) -> str:
        """What it has logged."""
        return self.lab.nodes[self.node].run(["cat", f"{self.folder}/said.txt"]).stdout


def console(lab: Lab, node: str, text: str, port: int) -> list[dict[str, str]]:
    """Rows of a command on the console of the pooler at a port of a node."""
    words, env = command(lab, node)
    words = [re.sub(r"\bport=\d+", f"port={port}", word) for word in words]
    done = lab.nodes[lab.topology.observer.name].run([*words, "-c", text], env=env, timeout_s=15)
    return list(csv.DictReader(io.StringIO(done.stdout)))


def rewritten(ini: str, folder: str, port: int, settings: Settings) -> str:
    """A PgBouncer configuration with other settings. ValueError where it has no section to change.

    A database's line keeps its address: its name and sizes change. Names that are new lead to the first.
    """
    databases, marker, rest = ini.partition("[pgbouncer]")
    lines = re.findall(r"^(\S+) = (host=.*)$", databases, re.MULTILINE)
    if not marker or not lines:
        raise ValueError("the pooler's configuration has no databases, or no section pgbouncer")
    wanted = [(name, text, settings.pool_size) for name, text in lines]
    if settings.databases:
        wanted = [(name, lines[0][1], size) for name, size in settings.databases.items()]
    values = {
        "listen_port": str(port),
        "pool_mode": settings.mode,
        "auth_type": settings.auth_type,
        "auth_file": f"{folder}/userlist.txt",
        **settings.values,
    }
    for name, value in values.items():
        line = f"{name} = {value}"
        rest, found = re.subn(rf"^{name} = .*$", line, rest, flags=re.MULTILINE)
        rest = rest if found else f"{rest.rstrip()}\n{line}\n"
    return "".join(
        ["[databases]\n", *(f"{name} = {_sized(text, size)}\n" for name, text, size in wanted), marker, rest]
    )


def _sized(text: str, size: int | None) -> str:
    if size is None:
        return text
    return re.sub(r"\b(pool_size|max_db_connections)=\d+", rf"\g<1>={size}", text)


@contextlib.contextmanager
def bouncer(run: Experiment, node: str, name: str, settings: Settings, seconds: float) -> Iterator[Bouncer]:
    """Run a further PgBouncer on a pooler's node for as long as the block, ``seconds`` at most.

    Raises:
        LabError: it does not start; the message holds what it said.
    """
    lab, port = run.lab, FIRST_PORT + run.number()
    folder = f"{run.session.base}/{name}"
    program = Program(node, f"{folder}/proc", name)
    machine = lab.nodes[node]
    entry = run.announce(program)
    ini = rewritten(machine.get(CONFIG).decode(), folder, port, settings)
    machine.put(f"{folder}/pgbouncer.ini", ini.encode(), mode=0o600)
    plain = settings.users == "plain passwords"
    roles = [*pool_roles(lab.topology), POOLER_ADMIN] if plain else []
    given = "".join(f'"{role}" "{lab.secret(f"password_{role}")}"\n' for role in roles)
    machine.put(f"{folder}/given.txt", given.encode(), mode=0o600)
    machine.spawn(["bash", "-c", _START, "bash", folder, str(round(seconds)), "plain" if plain else "stored"])
    found = Bouncer(lab, node, port, folder)
    try:
        _wait(found)
        yield found
    finally:
        stop(machine, program.out, wait_s=5)
        machine.run(["rm", "-rf", folder], check=False)
        run.ended(entry)


def _wait(found: Bouncer) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            found.ask("SHOW VERSION")
        except LabError as error:
            if time.monotonic() > until:
                said = found.log().strip().splitlines()[-3:]
                raise LabError(
                    f"a further PgBouncer on {found.node} did not start: {said or error}"
                ) from error
            time.sleep(0.2)
            continue
        return


__all__ = ["Bouncer", "Settings", "bouncer", "console", "rewritten"]
