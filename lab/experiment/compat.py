"""``pool-compat``: what session features do through each pool mode, found by using them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.deploy.endpoints import endpoints
from lab.deploy.secret_names import document_roles
from lab.driver import Lab
from lab.errors import LabError, UsageError
from lab.experiment.bouncer import Bouncer, Settings, bouncer
from lab.experiment.core import Cell, Experiment, experiment
from lab.experiment.jobs import Job, Kind
from lab.scenario.facts import PYTHON
from lab.scenario.progress import Progress
from lab.topology.models import Topology

NAME = "pool-compat"
MODES = ("session", "transaction", "statement")
DIRECT = "no pooler"
DATABASE = "compat"
POOL_SIZE = 2
"""One server connection that A had and B is given, and another for A meanwhile."""
SECONDS = 180.0
USERS = ("rds_superuser", "app_admin")
"""Who may make a schema and end its own backends; else the document's first role, without some features."""


def run_compat(
    lab: Lab,
    *,
    modes: Sequence[str] = MODES,
    features: Sequence[str] = (),
    seed: int = 1,
    runs_dir: Path = Path("runs"),
    command: str = "",
    progress: Progress | None = None,
) -> Path:
    """Run the matrix; the path of its record. ``features``: only these; none: all.

    Raises:
        UsageError: the lab has no pooler, or there is no such feature or mode.
        LabError: it could not be run.
    """
    if not lab.topology.poolers:
        raise UsageError(f"topology {lab.topology.name} has no pooler")
    check(modes, features)
    with experiment(
        lab,
        NAME,
        title="What works through which pool mode",
        claim="Each session feature is used by one client while another is given its server connection.",
        seed=seed,
        deadline_s=(len(modes) + 1) * SECONDS,
        runs_dir=runs_dir,
        command=command,
        progress=progress,
    ) as run:
        with run.cell(DIRECT) as cell:
            _cell(run, cell, None, "none", features)
        for mode in modes:
            settings = Settings(mode=mode, databases={DATABASE: POOL_SIZE})
            node = next(
                (p.name for p in lab.topology.poolers if p.mode == mode), lab.topology.poolers[0].name
            )
            with (
                bouncer(run, node, f"compat-{mode}", settings, SECONDS) as pooler,
                run.cell(mode, node=node, pool_size=POOL_SIZE) as cell,
            ):
                _cell(run, cell, pooler, mode, features)
        return run.record.path


def check(modes: Sequence[str], features: Sequence[str]) -> None:
    """UsageError where there is no such pool mode or feature."""
    known = feature_keys()
    for given, all_of, what in ((modes, MODES, "pool mode"), (features, known, "feature")):
        unknown = [one for one in given if one not in all_of]
        if unknown:
            raise UsageError(f"there is no {what} {unknown[0]!r}", hint=f"There are: {', '.join(all_of)}.")


def feature_keys() -> tuple[str, ...]:
    """Keys of the features, in their order."""
    from lab.experiment.compat_inside import FEATURES

    return tuple(feature.key for feature in FEATURES)


def _cell(run: Experiment, cell: Cell, pooler: Bouncer | None, mode: str, features: Sequence[str]) -> None:
    """One run of the program in the client; its lines into ``cell.result["features"]``."""
    client, folder = run.session.client, f"{run.session.base}/compat"
    roles = document_roles(run.lab.topology)
    user = next((role for role in USERS if role in roles), roles[0])
    plain = _where(run.lab, user, None)
    settings = {
        "mode": mode,
        "plain": plain,
        "through": _where(run.lab, user, pooler),
        "password_file": f"{folder}/password",
        "seconds": SECONDS,
        "features": list(features),
    }
    client.put(f"{folder}/compat_inside.py", Path(__file__).with_name("compat_inside.py").read_bytes())
    client.put(f"{folder}/password", run.lab.secret(f"password_{user}").encode(), mode=0o600)
    client.put(f"{folder}/settings.json", json.dumps(settings).encode())
    words = [PYTHON, f"{folder}/compat_inside.py", f"{folder}/settings.json"]
    try:
        done = client.run(words, timeout_s=SECONDS + 10, check=False)
    finally:
        client.run(["rm", "-rf", folder], check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if done.exit_code or not lines:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise LabError(f"the features could not be tried through {mode}: {why}")
    cell.result.update(features=lines, user=user)


def _where(lab: Lab, user: str, pooler: Bouncer | None) -> dict[str, Any]:
    """How psycopg connects from the client: through the pooler, or straight to the primary (None)."""
    places = endpoints(lab.topology, lab.allocation)
    client = lab.allocation.addresses[lab.topology.clients[0].name]
    if pooler is None:
        router = lab.topology.routers[0].name if lab.topology.routers else None
        place = (
            places[f"{router}.write"] if router else places[f"{lab.topology.postgres.nodes[0].name}.direct"]
        )
        node, port, database = place.node, place.port, place.database
    else:
        node, port, database = pooler.node, pooler.port, DATABASE
    network = next(
        name
        for name in ("app", "data", "control")
        if name in client and name in lab.allocation.addresses[node]
    )
    tls = lab.topology.tls.enabled
    return {
        "host": f"{node}.control" if network == "control" else node,
        "hostaddr": lab.allocation.addresses[node][network],
        "port": port,
        "dbname": database,
        "user": user,
        "sslmode": "verify-full" if tls else "disable",
        **({"sslrootcert": "/run/secrets/ca.crt"} if tls else {}),
    }


def _job(topology: Topology, _quick: bool) -> Job:
    if not topology.poolers:
        raise UsageError(f"topology {topology.name} has no pooler")
    return Job(name=NAME, estimate_s=75.0)


def _run_job(lab: Lab, settings: Mapping[str, Any], **how: Any) -> Path:
    return run_compat(lab, **settings, **how)


JOB = Kind(NAME, _job, _run_job)
