"""Generated scenario files: a plan, or one clear error that names the file; no traceback, no hang.

CI draws a few hundred; ``LAB_GENERATED=10000`` (the nightly set) more.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.deploy.allocate import sample_allocation
from lab.errors import UsageError
from lab.faults import faults
from lab.scenario.loader import SCENARIO_DIR, list_scenarios, load_scenario
from lab.scenario.models import CONDITIONS, ROLES, Scenario, Step
from lab.scenario.outline import as_json
from lab.scenario.plan import make_plan
from lab.topology.loader import load_topology

COUNT = int(os.environ.get("LAB_GENERATED") or 300)
HANG_S = 60
"""A file that takes longer than that hangs: the slowest takes milliseconds."""
TOPOLOGY = load_topology("risk-prod")
ALLOCATION = sample_allocation("t", TOPOLOGY)
SHIPPED = [(SCENARIO_DIR / f"{name}.yaml").read_text(encoding="utf-8") for name in list_scenarios()]

numbers = st.one_of(
    st.integers(-5, 120), st.floats(allow_nan=False, width=32), st.sampled_from([0, 1e308, 10**30])
)
scalars = st.one_of(
    numbers, st.booleans(), st.none(), st.text(max_size=12), st.sampled_from(["auto", "window", "1e999"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
seconds = st.one_of(st.integers(0, 90), st.floats(0, 90, allow_nan=False), anything)
words = {
    "fault": st.one_of(st.sampled_from(sorted(faults())), anything),
    "target": st.one_of(
        st.sampled_from([*ROLES, "az:a", "az:primary", "az:z", "node:pg1", "node:nobody"]), anything
    ),
    "until": st.one_of(st.sampled_from(CONDITIONS), anything),
    "when": st.one_of(st.sampled_from(CONDITIONS), anything),
    "assert": st.one_of(st.sampled_from(CONDITIONS), anything),
    "throughout": st.one_of(st.just("window"), seconds),
}
names = sorted({field.alias or name for name, field in Step.model_fields.items()} | set(words))
step = st.one_of(
    st.fixed_dictionaries(
        {"fault": words["fault"], "target": words["target"]}, optional={"at": seconds, "for": seconds}
    ),
    st.fixed_dictionaries({"assert": words["assert"], "throughout": words["throughout"]}),
    st.dictionaries(st.sampled_from([*names, "nonsense"]), st.one_of(*words.values(), seconds), max_size=4),
    anything,
)
scenario = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["generated", "a-b"]) | anything,
        "title": st.just("t") | anything,
        "claim": st.just("c") | anything,
        "steps": st.lists(step, max_size=5) | anything,
    },
    optional={
        name: st.one_of(seconds, anything)
        for name in Scenario.model_fields
        if name not in ("name", "steps", "title", "claim")
    },
)
moments = st.floats(0, 60).map(lambda t: round(t, 1))
tame_step = st.one_of(
    st.fixed_dictionaries(
        {"fault": st.sampled_from(sorted(faults())), "target": st.sampled_from(ROLES)},
        optional={"for": moments},
    ),
    st.fixed_dictionaries({"assert": st.sampled_from(CONDITIONS), "throughout": st.just("window") | moments}),
    st.fixed_dictionaries({"until": st.sampled_from(CONDITIONS)}, optional={"within": moments}),
)
tame = st.fixed_dictionaries(
    {
        "name": st.just("tame"),
        "title": st.just("t"),
        "claim": st.just("c"),
        "steps": st.lists(tame_step, max_size=4),
    },
    optional={"trials": st.integers(1, 9), "settle": moments, "checks": st.just(["rto.write"]) | anything},
)
files = st.one_of(
    tame.map(lambda data: yaml.safe_dump(data).encode()),
    scenario.map(lambda data: yaml.safe_dump(data, allow_unicode=True).encode()),
    scenario.map(lambda data: yaml.safe_dump(data, default_flow_style=True).encode()),
    st.tuples(
        st.sampled_from(SHIPPED),
        st.floats(0, 1),
        st.integers(0, 40),
        st.text(max_size=12) | st.just("\n  - "),
    ).map(lambda cut: _cut(*cut).encode("utf-8", "surrogatepass")),
    st.binary(max_size=200),
    st.text(alphabet="nametilsp:-[]{}&*!\n '\"#|>%@?,0123456789.", max_size=80).map(str.encode),
)


def _cut(text: str, where: float, length: int, put: str) -> str:
    """A shipped scenario with a piece of it replaced."""
    at = int(where * len(text))
    return text[:at] + put + text[at + length :]


@pytest.fixture
def alarm() -> Iterator[None]:
    """A hang becomes an error."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"the file took longer than {HANG_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_a_generated_file_gives_a_plan_or_one_error(tmp_path: Path, alarm: None) -> None:
    assert alarm is None
    file = tmp_path / "generated.yaml"
    ends: Counter[str] = Counter()

    @settings(max_examples=COUNT, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(raw=files)
    def every(raw: bytes) -> None:
        file.write_bytes(raw)
        signal.alarm(HANG_S)
        try:
            document: dict[str, Any] = as_json(make_plan(load_scenario(file), TOPOLOGY, ALLOCATION, 1))
        except UsageError as error:
            said = str(error)
            placed = re.search(rf"{re.escape(str(file))}(:\d+:\d+)?: \S", said)
            # What does not fit the topology names the step or the field instead.
            ends[
                "with file and line" if placed and placed[1] else "with file" if placed else "of a plan"
            ] += 1
            assert placed or re.match(
                r"(step \d+|target \S+|recovery\.window|no fault|load\.|topology )", said
            ), said
            assert "Traceback" not in said
        else:
            assert document["trials"] >= 0
            ends["planned"] += 1
        finally:
            signal.alarm(0)

    every()
    print(f"{sum(ends.values())} files: {dict(ends)}")
    assert sum(ends.values()) >= COUNT
    # Each end is reached, else the files would be too wild or too tame to show anything.
    assert ends["planned"] > 0
    assert ends["with file and line"] > COUNT // 10
