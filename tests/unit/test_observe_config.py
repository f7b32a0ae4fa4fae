"""The observer's configuration survives the trip through JSON, and refuses what it does not know."""

from __future__ import annotations

import json

import pytest

from lab.observe.config import Config, Endpoint, Http, Probes, Redis, node_of

POOL = Endpoint("pool.writer", "pool", "10.0.0.2", 6432, "risk", "lab_probe", "/run/lab/pw")


def full() -> Config:
    return Config(
        run="r1",
        out="/run/lab/r1/observe",
        deadline_s=60,
        token="abc123",
        writer=POOL,
        nodes=(POOL, POOL),
        etcd=(Http("etcd1", "http://10.0.0.9:2379"),),
        redis=(Redis("redis1", "redis1", "10.0.0.7"),),
        addresses={"10.0.0.2": "pool"},
        probes=Probes(writer_interval_s=0.02),
    )


def test_round_trip() -> None:
    assert Config.from_json(full().to_json()) == full()


def test_whole_number_is_a_duration() -> None:
    assert Config.from_json('{"run":"r","out":"o","deadline_s":5,"token":"t"}').deadline_s == 5.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nonsense": 1}, "unknown field nonsense"),
        ({"run": 5}, r"config\.run: expected str, found int"),
        ({"trial": True}, r"config\.trial: expected int"),
        ({"writer": {"name": "x"}}, r"config\.writer: .*missing"),
        ({"nodes": {}}, r"config\.nodes: expected a list"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"token": "a b"}, "token"),
        ({"probes": {"sessions": -1}}, r"probes\.sessions"),
    ],
)
def test_refused(change: dict[str, object], message: str) -> None:
    data = json.loads(full().to_json()) | change
    with pytest.raises(ValueError, match=message):
        Config.from_json(json.dumps(data))


def test_not_json() -> None:
    with pytest.raises(ValueError, match="not JSON"):
        Config.from_json("{")


def test_node_of() -> None:
    assert node_of(POOL) == "pool"
