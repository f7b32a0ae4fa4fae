"""Finds workloads without importing them: the host needs neither gevent nor Locust for that."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from loadtests.user import PostgresUser


@dataclass(frozen=True)
class Workload:
    """A workload, as its file describes it."""

    name: str
    """The file's name, with ``-`` for ``_``."""
    module: str
    class_name: str
    title: str
    """First line of the file's docstring."""
    description: str
    transactions: bool
    """Whether it needs transactions of several statements."""
    rate: float
    """The rate, in requests per second, that it is meant to run at unless told otherwise."""
    user: str | None = None
    """The database role that it must run as; None: the load's usual one."""
    roles: dict[str, str] = field(default_factory=dict)
    """Route → role, where it is another."""
    burst: int = 1
    """How many requests arrive at one moment."""
    uses_cache: bool = False
    schema_set: str | None = None
    """The schema that it needs (a folder of ``compose/sql``); None: it works on any."""
    interactive: bool = True
    """Whether somebody waits for its requests; reports and jobs run in the background."""
    requests: tuple[str, ...] = ()
    """Names of the requests that it defines itself."""
    shares: dict[str, float] = field(default_factory=dict)
    """Workload → its part, of one that is made of others."""

    def background(self, known: Mapping[str, Workload]) -> tuple[str, ...]:
        """Names of the requests, of a workload made of others, for which nobody waits."""
        parts = [known[name] for name in self.shares if name in known]
        return tuple(sorted(name for part in parts if not part.interactive for name in part.requests))


def list_workloads(folder: Path | None = None) -> dict[str, Workload]:
    """Every file of a folder (default: this package's) that defines a subclass of ``PostgresUser``."""
    return dict(_own() if folder is None else _read(folder))


@cache
def _own() -> dict[str, Workload]:
    return _read(Path(__file__).parent)


def _read(folder: Path) -> dict[str, Workload]:
    found: dict[str, Workload] = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id == "PostgresUser" for base in node.bases
            ):
                text = inspect.cleandoc(ast.get_docstring(tree) or "")
                name = path.stem.replace("_", "-")
                values = _class_values(node)
                found[name] = Workload(
                    name=name,
                    module=f"loadtests.{path.stem}",
                    class_name=node.name,
                    title=text.splitlines()[0] if text else "",
                    description=text,
                    transactions=bool(values.get("transactions", True)),
                    rate=float(str(values.get("rate", 100))),
                    user=str(values["user"]) if values.get("user") else None,
                    roles=dict(cast(dict[str, str], values.get("roles") or {})),
                    uses_cache=bool(values.get("uses_cache")),
                    burst=int(str(values.get("burst", 1))),
                    schema_set=str(values["schema_set"]) if values.get("schema_set") else None,
                    interactive=bool(values.get("interactive", True)),
                    requests=_request_names(node),
                    shares=dict(cast(dict[str, float], values.get("shares") or {})),
                )
    return found


def load_workload(name: str) -> type[PostgresUser]:
    """The user class of a workload. ValueError where there is none of that name."""
    known = list_workloads()
    if name not in known:
        raise ValueError(f"no workload {name!r}; there are {', '.join(known)}")
    user_class: type[PostgresUser] = getattr(
        importlib.import_module(known[name].module), known[name].class_name
    )
    return user_class


def _request_names(node: ast.ClassDef) -> tuple[str, ...]:
    """First argument of every ``@request(…)`` of the class."""
    calls = [
        call
        for item in node.body
        if isinstance(item, ast.FunctionDef)
        for call in item.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "request"
    ]
    return tuple(
        str(call.args[0].value) for call in calls if call.args and isinstance(call.args[0], ast.Constant)
    )


def _class_values(node: ast.ClassDef) -> dict[str, object]:
    values: dict[str, object] = {}
    for item in node.body:
        if isinstance(item, ast.Assign):
            targets, value = item.targets, item.value
        elif isinstance(item, ast.AnnAssign) and item.value is not None:
            targets, value = [item.target], item.value
        else:
            continue
        with suppress(ValueError):
            literal = ast.literal_eval(value)
            values.update({target.id: literal for target in targets if isinstance(target, ast.Name)})
    return values
