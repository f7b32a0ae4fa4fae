"""Custom: weighted SQL scripts of the user's own, named by the topology's workload file.

The mix is the file's: each script is one request, sent to the writer, or, where it says that it only reads,
to the reader. Scripts are pgbench's, as far as `loadtests.scripts` tells. Role and rate are the load's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import gevent

from loadtests.scripts import Set, Sleep, parse_script
from loadtests.user import PostgresUser, request

if TYPE_CHECKING:
    from loadtests.config import LoadConfig, Script
    from loadtests.session import Session


class Custom(PostgresUser):
    """One client that runs the user's scripts."""

    rate = 50
    variables: ClassVar[dict[str, int]] = {}

    @classmethod
    def configured(cls, config: LoadConfig) -> type[PostgresUser]:
        """The class with one request a script. ValueError where there is none, or one is not understood."""
        if not config.scripts:
            raise ValueError("workload custom: no scripts are given")
        found: dict[str, Any] = {"variables": dict(config.variables or {})}
        for number, script in enumerate(config.scripts):
            found[f"script_{number}"] = _run(f"script_{number}", script, config)
        return type("Custom", (cls,), found)


def _run(name: str, script: Script, config: LoadConfig) -> Any:
    steps = parse_script(script.text, config.variables or {})

    def run(self: Custom, db: Session) -> None:
        values = dict(self.variables)
        for step in steps:
            if isinstance(step, Set):
                values[step.name] = step.evaluate(values, self.rng)
            elif isinstance(step, Sleep):
                gevent.sleep(step.seconds)
            else:
                cursor = db.execute(step.sql, [values[one] for one in step.variables] or None)
                if cursor.description is not None:
                    cursor.fetchall()

    run.__name__ = name
    return request(script.name, weight=script.weight, reads=script.reads)(run)
