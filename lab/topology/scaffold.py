"""An architecture of a user's own, as files: from a few answers to a folder that comes up at once.

Pure: what is written is decided here, :mod:`lab.commands.init` asks and writes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from lab.errors import UsageError
from lab.topology import schema as schemas
from lab.topology.models import PoolMode

TEMPLATES = Path(__file__).with_name("init")
MAX_SQL_BYTES = 32 << 20
"""Largest schema: it travels to the database node as text."""

_WRITES = re.compile(
    r"\b(insert|update|delete|merge|truncate|vacuum|call|create|alter|drop|do|lock|nextval|for\s+(no\s+key\s+)?share)\b",
    re.IGNORECASE,
)
_ROLE = r'("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
_GIVES = (
    rf"\bOWNER TO {_ROLE}",
    rf"^GRANT .* TO {_ROLE}",
    rf"^REVOKE .* FROM {_ROLE}",
    rf"^ALTER DEFAULT PRIVILEGES FOR ROLE {_ROLE}",
    rf"^SET ROLE {_ROLE}",
)
_EXIST = {"app", "postgres", "public", "current_user", "session_user", "current_role"}


@dataclass(frozen=True)
class WeightedScript:
    """A script of the workload: its name, its text, its weight."""

    name: str
    text: str
    weight: int = 1

    @property
    def file(self) -> str:
        return (re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") or "script") + ".sql"

    @property
    def reads(self) -> bool:
        """Whether it only selects, as far as its words tell, so that a replica can serve it."""
        return (
            not _WRITES.search(self.text) and re.search(r"\bselect\b", self.text, re.IGNORECASE) is not None
        )


@dataclass(frozen=True)
class Answers:
    """What somebody wants to try."""

    name: str
    version: str = "any"
    vcpu: float = 2
    memory_gib: float = 4
    standbys: int = 1
    """Promotable, serve no reads."""
    readers: int = 0
    """Promotable, serve reads."""
    replicas: int = 0
    """Serve reads, never promoted."""
    pooler: PoolMode | None = "transaction"
    pool_size: int = 50
    cache: bool = False
    rate: float = 50
    schema: str | None = None
    """SQL of the user's own (a schema, or a dump as text); None: an example."""
    scripts: tuple[WeightedScript, ...] = ()

    @property
    def roles(self) -> list[str]:
        """Of the databases, in their order."""
        others = ("standby", self.standbys), ("reader", self.readers), ("replica", self.replicas)
        return ["primary", *(role for role, count in others for _ in range(count))]

    @property
    def alone(self) -> bool:
        """One database, which nothing replaces."""
        return len(self.roles) == 1

    @property
    def fails_over(self) -> bool:
        """Whether some node may take the primary's place."""
        return bool(self.standbys or self.readers)

    @property
    def database(self) -> str:
        return self.name.replace("-", "_")


EXAMPLE = (
    WeightedScript(
        "read item", "\\set id random(1, 10000)\nSELECT name, quantity FROM item WHERE id = :id;\n", 9
    ),
    WeightedScript(
        "change item", "\\set id random(1, 10000)\nUPDATE item SET quantity = quantity + 1 WHERE id = :id;\n"
    ),
)
STEADY = ("steady", "Nothing is broken", "Latency, pooling and CPU use in the steady state.", None)
FAILOVER = (
    (
        "kill-primary", "The primary's machine dies",
        "Another node takes over by itself, and clients write again in time.", "kill-node",
    ),
    (
        "isolate-primary", "The primary is cut off from everybody",
        "It stops accepting writes before another one leads, and none that it acknowledged is lost.",
        "isolate",
    ),
)  # fmt: skip
RESTART = (
    (
        "kill-postmaster", "PostgreSQL crashes",
        "It is started again and recovers by itself, and no acknowledged write is lost.", "kill-postmaster",
    ),
)  # fmt: skip


def files(answers: Answers) -> dict[str, str]:
    """Path → text of everything that is written.

    Raises:
        UsageError: the schema cannot be used, or two scripts have one name.
    """
    scripts = answers.scripts or EXAMPLE
    names = [script.file for script in scripts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two scripts would be written to one file: {', '.join(twice)}")
    own = answers.schema
    made = {name: _text(name, a=answers, scripts=scripts) for name in ("topology.yaml", "workload.yaml")}
    made["targets.yaml"] = _text("targets.yaml", a=answers)
    for name, title, claim, fault in (STEADY, *(FAILOVER if answers.fails_over else RESTART)):
        text = _text("scenario.yaml", a=answers, name=name, title=title, claim=claim, fault=fault)
        made[f"scenarios/{name}.yaml"] = text
    made["sql/roles.sql"] = _text("roles.sql", roles=named_roles(own or ""))
    made["sql/schema.sql"] = _text("schema.sql") if own is None else prepared_schema(own)
    made["sql/data.sql"] = _text("data.sql", example=own is None)
    made |= {f"workload/{script.file}": script.text.rstrip("\n") + "\n" for script in scripts}
    made |= {f".schema/{kind}.schema.json": schemas.text(kind) for kind in schemas.KINDS}
    return made


def named_roles(sql: str) -> list[str]:
    """Roles that a dump gives things to, as it writes them, sorted; without those that exist anyway."""
    found: set[str] = set()
    for pattern in _GIVES:
        for role in re.findall(pattern, sql, re.IGNORECASE | re.MULTILINE):
            found.add(role if role.startswith('"') else role.lower())
    return sorted(role for role in found if role.strip('"') not in _EXIST and not role.startswith("pg_"))


def prepared_schema(sql: str) -> str:
    """A user's SQL as the node runs it.

    Raises:
        UsageError: it is too large, or makes a database of its own.
    """
    if len(sql) > MAX_SQL_BYTES:
        raise UsageError(
            f"the schema is larger than {MAX_SQL_BYTES >> 20} MiB", hint="Try `pg_dump --schema-only`."
        )
    if re.search(r"^(CREATE DATABASE|\\c(onnect)?) ", sql, re.MULTILINE):
        raise UsageError(
            "the schema makes or enters a database of its own", hint="Dump without -C (--create)."
        )
    # What the dumps of newer versions set and older servers do not know.
    return re.sub(r"^SET transaction_timeout = .*$\n?", "", sql, flags=re.MULTILINE)


def _text(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["number"] = lambda value: f"{float(value):g}"
    return environment.get_template(f"{template}.j2").render(**values)
