"""Matrices: what is run in which order, what is not run again, and the table that comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import cli
from lab.errors import Exit, LabError, UsageError
from lab.matrix import Cell, Matrix, Variant, cells, finished, list_matrices, load_matrix, run_cells, switches
from lab.record.writer import RecordWriter
from lab.scenario.progress import Progress
from reports.checks import units
from reports.findings import Finding
from reports.matrix import Entry, lines, markdown, outage
from tests.synthetic import make_record

SYNC = Matrix(
    name="demo", title="Demo", scenarios=("kill-postmaster", "kill-primary"), repeats=3, trials=2,
    variants=(Variant(name="on"), Variant(name="off", set=("postgres.synchronous=off",))),
)  # fmt: skip


class Labs:
    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def get(self, topology: str, settings: tuple[str, ...]) -> Any:
        self.asked.append((topology, settings))
        return SimpleNamespace(name="lab")


class Runner:
    """Makes empty closed records; fails where it is told to."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.ran: list[Any] = []
        self.fail_at = fail_at

    def __call__(
        self, lab: Any, story: Any, *, seed: int, runs_dir: Path, command: str, progress: Any
    ) -> Any:
        assert lab.name == "lab"
        assert command == "x"
        assert progress
        self.ran.append(SimpleNamespace(story=story, seed=seed))
        if self.fail_at == len(self.ran):
            raise LabError("it broke")
        record = RecordWriter.create(
            runs_dir, story.name, topology="risk-prod", lab="lab", seed=seed, trials_asked=story.trials
        )
        record.close("closed")
        return SimpleNamespace(path=record.path)


def run(todo: list[Cell], folder: Path, runner: Runner, labs: Labs | None = None) -> list[Any]:
    return list(run_cells(todo, labs or Labs(), folder, Progress(), command="x", run=runner))  # type: ignore[arg-type]


def test_every_cell_once_a_repeat_and_variants_take_turns() -> None:
    todo = cells(SYNC)
    assert len(todo) == 2 * 2 * 3
    assert len({(c.story.name, c.variant, c.repeat) for c in todo}) == 12
    firsts = [next(c.variant for c in todo if c.repeat == repeat) for repeat in (1, 2, 3)]
    assert firsts == ["on", "off", "on"]
    # The last variant of a repeat and the first of the next share a lab.
    assert switches(todo) == 4
    assert all(c.story.trials == 2 for c in todo)
    for repeat in (1, 2, 3):
        on, off = (
            [c.story.name for c in todo if c.repeat == repeat and c.variant == v] for v in ("on", "off")
        )
        assert on == off
    assert cells(SYNC) == todo


def test_variants_and_pools_share_seeds_and_repeats_do_not() -> None:
    todo = cells(SYNC.model_copy(update={"pools": ("pool-transaction", "pool-session")}))
    seeds: dict[tuple[str, int], set[int]] = {}
    for cell in todo:
        seeds.setdefault((cell.story.name, cell.repeat), set()).add(cell.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len({seed for found in seeds.values() for seed in found}) == 6
    assert {c.story.load.pool for c in todo} == {"pool-transaction", "pool-session"}
    assert len({c.key for c in todo}) == len(todo)
    assert todo[0].topology.postgres.synchronous == "on"
    assert {c.topology.postgres.synchronous for c in todo if c.variant == "off"} == {"off"}


def test_it_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    todo = cells(SYNC)[:4]
    broken = Runner(fail_at=3)
    results = run(todo, tmp_path / "m", broken)
    assert [bool(r.error) for r in results] == [False, False, True, False]
    assert results[2].record is None
    assert set(finished(tmp_path / "m", todo)) == {todo[i].key for i in (0, 1, 3)}
    again = Runner()
    results = run(todo, tmp_path / "m", again)
    assert len(again.ran) == 1
    assert again.ran[0].seed == todo[2].seed
    assert all(r.record is not None for r in results)
    labs = Labs()
    run(todo, tmp_path / "m", Runner(), labs)
    assert labs.asked == []


def test_a_record_that_is_not_closed_or_gone_is_run_again(tmp_path: Path) -> None:
    todo = cells(SYNC)[:2]
    first, second = (r.record for r in run(todo, tmp_path, Runner()))
    head = json.loads((first / "manifest.json").read_text())
    (first / "manifest.json").write_text(json.dumps({**head, "state": "interrupted"}))
    (second / "manifest.json").unlink()
    assert finished(tmp_path, todo) == {}
    (tmp_path / "cells.json").write_text("not JSON")
    assert finished(tmp_path, todo) == {}


def test_what_changed_is_run_again_and_the_rest_is_not(tmp_path: Path) -> None:
    run(cells(SYNC), tmp_path, Runner())
    edited = SYNC.model_copy(
        update={"variants": (SYNC.variants[0], Variant(name="off", set=("postgres.patroni.ttl=40",)))}
    )
    runner = Runner()
    run(cells(edited), tmp_path, runner)
    assert len(runner.ran) == 6


def test_a_variant_overrides_what_the_scenario_asks_for(tmp_path: Path) -> None:
    story = tmp_path / "mine.yaml"
    story.write_text(
        "name: mine\ntitle: T\nclaim: C\nsteps: [{fault: kill-postmaster}]\n"
        "overrides: {postgres.synchronous: strict, postgres.patroni.ttl: 40}\n"
    )
    on, off = cells(SYNC.model_copy(update={"scenarios": (str(story),), "repeats": 1}))
    assert (on.topology.postgres.synchronous, off.topology.postgres.synchronous) == ("strict", "off")
    assert off.topology.postgres.patroni.ttl == 40
    assert off.story.overrides == {"postgres.patroni.ttl": 40}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pools": ("no-such-pool",)}, "no pool or endpoint"),
        ({"scenarios": ("no-such-scenario",)}, "no scenario"),
        ({"variants": (Variant(name="x", set=("postgres.nope=1",)),)}, "nope"),
        ({"settings": ("load.nope=1",)}, "nope"),
    ],
)
def test_wrong_input_is_said_before_anything_runs(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cells(SYNC.model_copy(update=change))


def test_names_differ(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("name: m\ntitle: T\nscenarios: [steady]\nvariants: [{name: a}, {name: a}]\n")
    with pytest.raises(UsageError, match="named twice: a"):
        load_matrix(str(path))
    with pytest.raises(UsageError, match="no matrix"):
        load_matrix("no-such-matrix")


@pytest.mark.parametrize("name", list_matrices())
def test_every_matrix_that_ships_can_be_planned(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_matrix(name).name == name
    assert cli.run(["matrix", name, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["estimate_s"] > 60
    assert plan["cells"]


def test_the_plan_from_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "matrix", "--scenario", "kill-postmaster", "--variant", "on", "--trials", "1", "--set", "settle=5",
        "--variant", "off:postgres.synchronous=off", "--runs", str(tmp_path), "--dry-run",
    ]  # fmt: skip
    assert cli.run([*words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(c["variant"], c["trials"], c["set"]) for c in plan["cells"]] == [
        ("on", 1, []), ("off", 1, ["postgres.synchronous=off"]),
    ]  # fmt: skip
    assert plan["labs"] == 2
    assert cli.run(words) == 0
    assert "2 runs on 2 labs" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert cli.run(["matrix", "--dry-run"]) == 3
    assert cli.run(["matrix", "sync", "--variant", "UPPER:x", "--dry-run"]) == 3


# The table

SMALL: dict[str, Any] = {"rate": 20.0, "request_rate": 60.0, "seconds": 20.0, "window_s": 34.0, "trials": 3}


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    folder = tmp_path_factory.mktemp("matrix")
    made = []
    for repeat, base in ((1, 20.0), (2, 21.0)):
        for variant, more, lost in (("on", 0.0, 0), ("off", 5.0, 4)):
            path = folder / f"{variant}-{repeat}"
            outages = [base + more + k / 10 for k in range(3)]
            make_record(path, outage_s=outages, lost=lost, seed=repeat, **SMALL)
            made.append(
                Entry(scenario="kill-primary", pool=None, variant=variant, repeat=repeat, record=path)
            )
    return made


def test_trials_are_paired_over_repeats(entries: list[Entry]) -> None:
    on, off = lines(entries)
    assert (on.reference, off.reference) == (True, False)
    assert (on.trials, on.lost, off.lost) == (6, 0, 24)
    assert on.rto_median == pytest.approx(20.6, abs=0.02)
    assert on.rto_worst == pytest.approx(21.2, abs=0.02)
    assert on.rto_against is None
    assert off.rto_against is not None
    # Six pairs, all on one side: 2 of 64. Unpaired they overlap less clearly, paired the 5 s stand out.
    assert off.rto_against.verdict == "worse"
    assert off.rto_against.p == pytest.approx(2 / 64)
    assert off.rto_against.difference == pytest.approx(5, abs=0.05)
    assert off.lost_against is not None
    assert (off.lost_against.verdict, off.lost_against.difference) == ("worse", 4.0)
    assert off.p95_against is not None
    assert off.p95_against.verdict in ("no difference shown", "too few")
    text = markdown("Demo", [on, off])
    assert "| kill-primary |" in text
    assert "exact signed ranks, 6 pairs" in text


def test_three_pairs_are_too_few(entries: list[Entry]) -> None:
    _, off = lines([e for e in entries if e.repeat == 1])
    assert off.rto_against is not None
    assert off.rto_against.verdict == "too few"


def test_a_pool_is_held_against_the_first_pool(entries: list[Entry]) -> None:
    renamed = [
        e.model_copy(update={"variant": "one", "pool": "a" if e.variant == "on" else "b"}) for e in entries
    ]
    first, second = lines(renamed)
    assert first.reference
    assert second.rto_against is not None
    assert second.rto_against.verdict == "worse"


def test_a_cell_without_a_record_is_said_and_not_counted(entries: list[Entry]) -> None:
    lost = Entry(scenario="kill-primary", pool=None, variant="strict", repeat=1, record=None, error="no lab")
    found = lines([*entries, lost])[-1]
    assert (found.trials, found.why, found.rto_against, found.lost) == (0, "no lab", None, None)
    assert outage(found) == "–"


def test_what_redis_lost_stands_beside_it_where_a_fault_hit_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(lost: list[int], seconds: float | None) -> Any:
        state = "recovered" if seconds is not None else "not recovered"
        trials = tuple(
            SimpleNamespace(
                trial=k, hit=("redis1",), void=(), invalid=(),
                ledger=SimpleNamespace(lost=count, complete=True),
                write=SimpleNamespace(state=state, seconds=seconds),
            )
            for k, count in enumerate(lost, 1)
        )  # fmt: skip
        analysis = SimpleNamespace(
            trials=(), run="r", reasons=(), redis=SimpleNamespace(trials=trials),
            load=SimpleNamespace(steady=None),
        )  # fmt: skip
        return SimpleNamespace(analysis=analysis, stretches=[])

    made = {"off": run([1159] * 6, 12.0), "on": run([141] * 6, None)}
    monkeypatch.setattr("reports.matrix.load", lambda path: made[path.name])
    found = lines(Entry(scenario="s", pool=None, variant=name, repeat=1, record=Path(name)) for name in made)
    off, on = found
    assert (off.redis_lost, off.redis_worst) == (6954, 12.0)
    assert on.redis_lost_against is not None
    assert (on.redis_lost_against.difference, on.redis_lost_against.verdict) == (-1018, "better")
    text = markdown("Redis", found)
    assert "| lost | Redis RTO worst | Redis lost | p50 |" in text
    assert "| 6,954 |" in text
    assert "not recovered" in text


def test_columns_of_redis_are_left_out_where_nothing_hit_it(entries: list[Entry]) -> None:
    assert "Redis" not in markdown("Demo", lines(entries))


def test_figures_that_a_matrix_asks_for_are_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(value: float | None, status: str | None = None) -> Any:
        found = Finding(metric="cache.hit_ratio", unit="%", value=value, status=status)  # type: ignore[arg-type]
        analysis = SimpleNamespace(
            trials=(), run="r", reasons=(), redis=None, load=SimpleNamespace(steady=None),
            finding={"cache.hit_ratio": found}.get,
        )  # fmt: skip
        return SimpleNamespace(analysis=analysis, stretches=[])

    made = {f"one{i}": run(40.0 + i) for i in range(6)} | {f"two{i}": run(70.0 + 2 * i) for i in range(6)}
    monkeypatch.setattr("reports.matrix.load", lambda path: made[path.name])
    entries = [
        Entry(scenario="s", pool=None, variant=name[:3], repeat=int(name[3:]), record=Path(name))
        for name in made
    ]
    one, two = lines(entries, ["cache.hit_ratio", "replicas.lag"])
    assert [extra.value for extra in one.extras] == [42.5, None]
    against = two.extras[0].against
    assert against is not None
    assert against.difference == pytest.approx(32.5)
    assert against.p == pytest.approx(2 / 64)  # all six pairs on one side
    text = markdown("Demo", [one, two])
    # No trials, so no columns of them.
    assert (
        "| scenario | variant | p50 | p95 | look-ups that the cache answered | greatest replay lag |" in text
    )
    assert "| 42.5 % |" in text

    made |= {"one0": run(None), "one1": run(3.0, "invalid")}
    (left,) = lines([entry for entry in entries if entry.variant == "one"], ["cache.hit_ratio"])
    assert left.extras[0].value == 43.5, "what is invalid does not count"


def test_a_matrix_of_an_unknown_figure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["matrix", "stampede", "--dry-run"]
    assert cli.run([*words, "--figure", "cache.hit_ratios"]) == Exit.USAGE
    said = " ".join(capsys.readouterr().err.split())
    assert "no metric 'cache.hit_ratios'" in said
    assert "did you mean 'cache.hit_ratio'?" in said


def test_figures_of_every_matrix_are_metrics() -> None:
    asked = {name: load_matrix(name).figures for name in list_matrices()}
    assert asked["stampede"]
    assert {metric for figures in asked.values() for metric in figures} <= units().keys()
