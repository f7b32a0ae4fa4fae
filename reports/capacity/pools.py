"""The poolers that a load went through, as the topology describes them and the samples saw them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lab.deploy.parameters import split_limit
from lab.record.schema import NS
from reports.analysis.pooling import is_reader
from reports.capacity.steps import Step


@dataclass(frozen=True)
class Database:
    """One of a pooler's two databases: server connections that writes or reads share."""

    node: str
    mode: str
    writes: bool
    size: int
    """Server connections at most."""
    wait_timeout: float
    """query_wait_timeout, seconds."""

    @property
    def name(self) -> str:
        """Such as ``transaction writer``."""
        return f"{self.mode} {self.side}"

    @property
    def side(self) -> str:
        return "writer" if self.writes else "reader"

    @property
    def endpoint(self) -> str:
        return f"{self.node}.{self.side}"

    def owns(self, label: str | None) -> bool:
        """Whether a label of the pooler's metrics (``risk``, ``risk_ro/app_readonly``) is this database."""
        return bool((label or "").partition("/")[0]) and is_reader(label) != self.writes

    def growth(self, step: Step, metric: str) -> float | None:
        """Growth of a cumulative metric of the pooler over the step's window, this database's labels."""
        labels = [s.label for s in step.metrics.find(metric, self.node) if self.owns(s.label)]
        found = [g for label in labels if (g := step.growth(metric, self.node, label)) is not None]
        return sum(found) if found else None

    def used(self, step: Step) -> float | None:
        """Share of its connections that transactions (session pooling: clients) held; None: not sampled."""
        if self.mode == "session":
            labels = [s.label for s in step.metrics.find("pgb_sv_active", self.node) if self.owns(s.label)]
            means = [step.mean("pgb_sv_active", self.node, label) for label in labels]
            known = [mean for mean in means if mean is not None]
            return sum(known) / self.size if known else None
        held = self.growth(step, "pgb_xact_time")
        seconds = (step.window[1] - step.window[0]) / NS
        if held is None or seconds <= 0:
            return None
        # A transaction's clock runs while its client waits for a connection, and that is no use of one.
        waited = self.growth(step, "pgb_wait_time") or 0.0
        return max(held - waited, 0.0) / seconds / self.size

    def wait(self, step: Step) -> float | None:
        """Mean wait of its clients for a server connection, ms; None: not sampled, or nobody asked."""
        waited = self.growth(step, "pgb_wait_time")
        count = self.growth(step, "pgb_assignment") or self.growth(step, "pgb_xact")
        return 1000 * waited / count if waited is not None and count else None


def databases(topology: Mapping[str, Any], endpoints: Iterable[str]) -> list[Database]:
    """The databases of poolers behind the endpoints that were used."""
    used = set(endpoints)
    return [one for one in all_databases(topology) if one.endpoint in used]


def all_databases(topology: Mapping[str, Any]) -> Iterator[Database]:
    """Both databases of every pooler."""
    for pooler in topology.get("poolers") or []:
        sizes = split_limit(int(pooler["max_server_connections"]), float(pooler.get("writer_share") or 0.6))
        timeout = float(pooler.get("query_wait_timeout") or 120)
        for writes, size in zip((True, False), sizes, strict=True):
            yield Database(str(pooler["name"]), str(pooler["mode"]), writes, max(1, size), timeout)


def endpoints_of(requests: pa.Table) -> list[str]:
    """Every endpoint that a request went to."""
    return sorted(str(e) for e in pc.unique(requests["endpoint"].cast(pa.string())).to_pylist() if e)
