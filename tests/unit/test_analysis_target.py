"""Which node a trial is about."""

from __future__ import annotations

from reports.analysis.analyse import _target
from reports.analysis.model import Injected


def test_of_several_nodes_that_were_hit_the_primary_is_what_a_trial_is_about() -> None:
    zone = Injected(
        fault="lose-node", kind="partition", target="az:a", nodes=("etcd1", "pg1"), begin_s=0, effect_s=0.1
    )
    assert _target("pg1", "etcd1", [zone]) == "pg1"
    assert _target("pg2", "etcd1", [zone]) == "etcd1"
    assert _target(None, "etcd1", [zone]) == "etcd1"
    assert _target("pg1", None, []) == "pg1"
