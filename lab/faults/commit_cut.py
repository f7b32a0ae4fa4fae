"""The connection breaks between COMMIT and its answer: the server has committed, the client never learns it.

Statements pass, the first byte of an answer ends the connection. What clients had under way is *unknown* to
them and is there afterwards: who repeats it without looking has it twice. New connections do not get as far
as a statement, since the answer to their first message is lost too.

Whether it took effect is seen by a write of the fault's own: a program in the observer writes numbers over a
connection through the proxy, which was open before, until one gets no answer; that very number must then be
found past the proxy. Its rows carry a run name of their own, so that no audit counts them, and go with the
healing.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from lab.deploy.secret_names import PROBE
from lab.driver import Lab
from lab.errors import LabError
from lab.faults._base import Effect, Evidence, Instructions, node_of
from lab.faults._jobs import PYTHON, start_job, stop_job, wait_job
from lab.faults._toxics import LinkFault, Measured, places
from lab.faults._toxiproxy import Toxic

WITHIN_S = 20.0

_CONNECT = r"""
import json, os, sys, time, psycopg
def connect(S, place):
    with open("/run/secrets/password_" + S["user"]) as file:
        password = file.read().strip()
    return psycopg.connect(
        host=place["host"], hostaddr=place["address"], port=place["port"], dbname=S["database"],
        user=S["user"], password=password, sslmode="verify-full" if S["tls"] else "disable",
        sslrootcert="/run/secrets/ca.crt", connect_timeout=5, application_name="lab-commit-cut",
        autocommit=True, prepare_threshold=None)
"""
_WRITE = (
    _CONNECT
    + r"""
n = 0
try:
    link = connect(S, S["places"][0])
    if link.execute("SELECT pg_is_in_recovery()").fetchone()[0]:
        tell(lost="it leads to a standby, which commits nothing", n=0)
    else:
        while True:
            n += 1
            row = (S["run"], n)
            link.execute("INSERT INTO lab.ledger (run, trial, n, session) VALUES (%s, 0, %s, 0)", row)
            tell(open=n)
            time.sleep(0.02)
except Exception as error:
    tell(open=n, n=n, lost=(str(error).strip().splitlines() or [type(error).__name__])[0][:160])
while True:
    time.sleep(1)
"""
)
_COUNT = (
    _CONNECT
    + r"""
S = json.loads(sys.argv[1])
with connect(S, S["places"][1]) as link:
    row = (S["run"], S["n"])
    print(link.execute("SELECT count(*) FROM lab.ledger WHERE run = %s AND n = %s", row).fetchone()[0])
"""
)
_CLEAN = (
    _CONNECT
    + r"""
S = json.loads(sys.argv[1])
with connect(S, S["places"][1]) as link:
    link.execute("DELETE FROM lab.ledger WHERE run = %s", (S["run"],))
"""
)


@dataclass(frozen=True)
class CommitCut(LinkFault):
    """As any fault of a link, with a write of its own as the witness."""

    def plan(self, lab: Lab, node: str) -> Instructions:
        return {**super().plan(lab, node), "run": f"{self.name}-{secrets.token_hex(6)}"}

    def inject(self, lab: Lab, node: str, plan: Instructions) -> Effect:
        observer, key = lab.topology.observer.name, self._key(plan)
        start_job(lab, observer, key, _WRITE, self._settings(lab, plan), 3 * WITHIN_S)
        try:
            before = wait_job(lab, observer, key, "open", WITHIN_S)
            if "lost" in before:
                raise LabError(f"no write of the fault's own got through to {node}: {before['lost']}")
            effect = super().inject(lab, node, plan)
            witness = wait_job(lab, observer, key, "lost", WITHIN_S)
        finally:
            stop_job(lab, observer, key)
        seen = {"n": witness["n"], "lost": witness["lost"]}
        return Effect(node, effect.wall_earliest, effect.wall_latest, plan, seen)

    def verify(self, lab: Lab, effect: Effect) -> Evidence:
        """The write that got no answer is there, read past the proxy."""
        settings = {**self._settings(lab, effect.heal), "n": effect.seen["n"]}
        found = int(self._past(lab, _COUNT, settings))
        number, lost = effect.seen["n"], effect.seen["lost"]
        how = f"write {number} through {effect.heal['proxies'][0]} got no answer ({lost})"
        return Evidence(found == 1, f"{how}; past the proxy it is there {found} times")

    def verify_healed(self, lab: Lab, instructions: Instructions) -> Evidence:
        evidence = super().verify_healed(lab, instructions)
        if evidence.found:
            # Rows that stay behind, on a standby or while another fault hides the primary, disturb nobody.
            self._past(lab, _CLEAN, self._settings(lab, instructions), check=False)
        return evidence

    def _settings(self, lab: Lab, plan: Instructions) -> dict[str, Any]:
        return {
            "places": places(lab, self._hop(lab, plan)),
            "database": lab.topology.postgres.database,
            "user": PROBE,
            "tls": lab.topology.tls.enabled,
            "run": plan["run"],
        }

    @staticmethod
    def _past(lab: Lab, program: str, settings: dict[str, Any], *, check: bool = True) -> str:
        observer = node_of(lab, lab.topology.observer.name)
        words = [PYTHON, "-c", program, json.dumps(settings)]
        return observer.run(words, timeout_s=WITHIN_S, check=check).stdout


def _shows(through: Measured, _: Measured) -> tuple[bool, str]:
    """No new session comes about through the proxy."""
    return bool(through.error), f"through the proxy: {through.error or 'answers come'}"


FAULT = CommitCut(
    name="commit-cut",
    summary="the connection ends when the answer comes: the server has committed, the client never learns it",
    colour="#4a148c",
    kind="kill",
    on=("pooler", "router", "database"),
    toxics=(Toxic("pglab-commit-cut", "limit_data", {"bytes": 0}),),
    shows=_shows,
    lasts_s=10,
)
