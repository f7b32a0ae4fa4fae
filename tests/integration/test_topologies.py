"""Every environment of every system comes up, is written to and read from through every endpoint, and goes.

``risk-prod`` is the session's own lab; the others are brought up one after the other. How long each took and
what memory it used is written to the file that ``LAB_TOPOLOGIES_TABLE`` names, for the record of findings.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.deploy.docker_driver import DockerLab
from lab.deploy.down import down
from lab.deploy.endpoints import application_endpoints, endpoints
from lab.deploy.engine import api
from lab.deploy.secret_names import application_role
from lab.deploy.status import status
from lab.deploy.up import up
from lab.topology.loader import list_topologies, load_topology
from tests.integration.conftest import Silent
from tests.integration.test_lifecycle import NOTHING, owned

OTHERS = [name for name in list_topologies() if name != "risk-prod"]
EVERY_PUSH = {
    "risk-dev", "dora-dev", "clinical-prod", "innovate-dev", "innovate-prod", "experimentation-staging",
}  # fmt: skip
"""One of each kind: a single database, Multi-AZ, a proxy, readers. The rest is for the night."""
PYTHON = "/opt/venv/bin/python"

# On the client: one line of JSON an endpoint, whether it is a standby and whether it could be written to.
_USE = """
import json, sys, psycopg
settings = json.load(sys.stdin)
for name, host, port, database, write in settings["places"]:
    with psycopg.connect(
        host=host, port=port, dbname=database, user=settings["user"], password=settings["password"],
        sslmode="verify-full", sslrootcert="/run/secrets/ca.crt", autocommit=True, prepare_threshold=None,
        connect_timeout=5,
    ) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM information_schema.table_privileges"
            " WHERE grantee = current_user AND privilege_type = 'INSERT'").fetchone()[0]
        if write:
            connection.execute(settings["write"])
        rows = connection.execute(settings["read"]).fetchone()[0]
        standby = connection.execute("SELECT pg_is_in_recovery()").fetchone()[0]
    print(json.dumps([name, standby, rows, tables]))
"""

# A write that an application of the system makes, and a count that shows that its data are there.
STATEMENTS = {
    "risk": ("INSERT INTO risk.limit_breach (limit_id, used, amount) VALUES (1, 2, 1)",
             "SELECT count(*) FROM risk.portfolio"),
    "dora": ("INSERT INTO dora.audit_reference (action, subject) VALUES ('test', 'policy/1')",
             "SELECT count(*) FROM dora.policy"),
    "clinical": ("INSERT INTO clinical.consent SELECT 1, 7 + random() * 30000, now()",
                 "SELECT count(*) FROM clinical.participant"),
    "innovate": ("INSERT INTO innovate.payment (account_id, amount, reference) VALUES (1, 1, 'test')",
                 "SELECT count(*) FROM innovate.customer"),
    "experimentation": (
        "INSERT INTO experimentation.metric_event VALUES (DEFAULT, 1, '', '', 1, now())",
        "SELECT count(*) FROM experimentation.experiment"),
}  # fmt: skip


def use_every_endpoint(lab: DockerLab) -> None:
    """Write through every writer, read through every reader, as the application, from the client."""
    topology, known = lab.topology, endpoints(lab.topology, lab.allocation)
    write, read = STATEMENTS[topology.system]
    role = application_role(topology)
    readers = {reader for _, reader in application_endpoints(topology)}
    places = []
    for pair in application_endpoints(topology):
        for name in pair:
            place = known[name]
            places.append([name, place.host, place.port, place.database, name not in readers])
    settings = {
        "user": role, "password": lab.secret(f"password_{role}"), "places": places,
        "write": write, "read": read,
    }  # fmt: skip
    client = lab.nodes[topology.clients[0].name]
    client.put("/run/lab/use.json", json.dumps(settings).encode(), mode=0o600)
    client.put("/run/lab/use.py", _USE.encode())
    said = client.run(["sh", "-c", f"{PYTHON} /run/lab/use.py < /run/lab/use.json; rm /run/lab/use.*"]).stdout
    seen = {name: rest for name, *rest in map(json.loads, said.splitlines())}
    assert set(seen) == {name for name, *_ in places}
    for name, (standby, rows, tables) in seen.items():
        assert rows > 0, name
        assert tables > 0, name
        # Replicas and readers serve reads; a standby of Multi-AZ, and the writer's side, never do.
        assert standby == (name in readers and bool(topology.postgres.readable)), name


@pytest.fixture
def name(request: pytest.FixtureRequest, state_dir: Path) -> Iterator[str]:
    """A lab's name; whatever is left of it goes at the end."""
    assert state_dir
    chosen = f"it-{os.getpid()}-{request.node.callspec.params['topology'][:18].rstrip('-')}"
    yield chosen
    down(chosen)


@pytest.mark.parametrize(
    "topology",
    [pytest.param(name, marks=() if name in EVERY_PUSH else pytest.mark.slow) for name in OTHERS],
)
def test_it_comes_up_is_used_and_goes(topology: str, name: str) -> None:
    reporter = Silent()
    began = time.monotonic()
    done = up(name, load_topology(topology), reporter, timeout_s=300)
    lab, took = done.lab, time.monotonic() - began
    assert status(name).health == "up", status(name).warnings
    use_every_endpoint(lab)
    asked = lab.topology.postgres.version
    # No major or minor version of the documents is the one that the image holds.
    assert any("PostgreSQL substituted" in note for note in reporter.notes) == (asked != "any")
    for part in lab.topology.not_built:
        assert f"not built: {part}" in reporter.notes
    _record(lab, took, done.seconds)
    down(name)
    assert owned(name) == NOTHING


def test_risk_prod_is_used_through_every_endpoint(lab_risk_prod: DockerLab) -> None:
    use_every_endpoint(lab_risk_prod)


def _record(lab: DockerLab, took: float, seconds: dict[str, float]) -> None:
    path = os.environ.get("LAB_TOPOLOGIES_TABLE")
    if not path:
        return
    used = {
        node.name: api().stats(node.container, stream=False)["memory_stats"].get("usage", 0)
        for node in lab.nodes.values()
    }
    row = {
        "topology": lab.topology.name, "nodes": len(used), "up_s": round(took, 1),
        "compose_s": round(seconds["compose"], 1), "ready_s": round(seconds["ready"], 1),
        "memory_mib": round(sum(used.values()) / 2**20), "postgresql": lab.allocation.postgres_version,
        "scale": lab.allocation.scale,
    }  # fmt: skip
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
