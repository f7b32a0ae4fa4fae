"""Verification: the least set of runs, going on after an interruption, the scorecard, what changed."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import cli
from lab.commands.verify import needs_of, records_of
from lab.errors import LabError, RecordError, UsageError
from lab.experiment.jobs import Job, kinds, plan_job, run_job
from lab.scenario.models import Scenario
from lab.scenario.progress import Progress
from lab.topology.loader import load_topology
from lab.verify import (
    Asked,
    Need,
    choose,
    least_cover,
    open_folder,
    read_state,
    run,
    runs_text,
    write_state,
)
from reports import scorecard_html, view
from reports.findings import Finding, Status, Target, Verdict
from reports.judge import judge_finding
from reports.scorecard import Row, Said, Scorecard, load, picture_of, rows_of, save
from reports.scorecard import Run as CardRun
from reports.scorecard_changes import changes
from reports.scorecard_markdown import markdown
from reports.scorecard_text import ScorecardText, answer_of
from reports.targets import targets_of
from reports.verified import scorecard
from tests.synthetic import make_record

settings.register_profile("lab", deadline=None)
settings.load_profile("lab")

PROD = load_topology("risk-prod")
ASKED = Asked(name="risk-prod", topologies=("risk-prod",), quick=True)


# The least set


def brute(wanted: Mapping[str, set[str]], costs: Mapping[str, float]) -> float:
    """The least cost, by trying every set."""
    sets = [by & costs.keys() for by in wanted.values() if by & costs.keys()]
    best = float("inf")
    for size in range(len(costs) + 1):
        for chosen in itertools.combinations(costs, size):
            if all(by & set(chosen) for by in sets):
                best = min(best, sum(costs[name] for name in chosen))
    return best


@given(
    st.dictionaries(st.text("xyz", max_size=3), st.sets(st.sampled_from("abcdefg"), max_size=4), max_size=8),
    st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 50), max_size=7),
)
@settings(max_examples=60)
def test_the_cover_covers_and_nothing_cheaper_does(
    wanted: dict[str, set[str]], costs: dict[str, int]
) -> None:
    chosen = least_cover(wanted, costs)
    for by in wanted.values():
        assert not by & costs.keys() or by & set(chosen)
    assert sum(costs[name] for name in chosen) == pytest.approx(brute(wanted, costs))


def test_one_scenario_that_does_all_beats_two_that_share() -> None:
    wanted = {"p": {"both", "first"}, "q": {"both", "second"}}
    assert least_cover(wanted, {"both": 100, "first": 60, "second": 60}) == ["both"]
    assert least_cover(wanted, {"both": 100, "first": 40, "second": 40}) == ["first", "second"]
    assert least_cover({}, {"both": 1}) == []


def test_every_need_of_risk_is_covered_by_few_runs() -> None:
    needs = needs_of([PROD])
    chosen = choose(needs, ASKED)
    names = {cell.story.name for cell in chosen.cells}
    assert chosen.unanswered == {}
    for need in needs:
        assert names & set(need.scenarios), need.target
    assert len(names) < len(needs) / 2
    assert all(cell.story.trials == 1 for cell in chosen.cells if isinstance(cell.story, Scenario))
    # What proves an RPO is a partition, whatever else yields the figure.
    assert "isolate-primary-from-peers" in names


def test_full_runs_what_promises_ask_for() -> None:
    full = choose(needs_of([PROD]), ASKED.model_copy(update={"quick": False}))
    broken = [c.story for c in full.cells if isinstance(c.story, Scenario) and c.story.faults]
    assert broken
    assert all(story.trials >= 3 for story in broken)


def test_an_experiment_is_a_run_of_the_plan() -> None:
    needs = [Need(topology="risk-prod", target="R8", scenarios=("pooling",))]
    quick, full = (choose(needs, ASKED.model_copy(update={"quick": short})) for short in (True, False))
    (short,), (whole,) = quick.cells, full.cells
    assert isinstance(short.story, Job)
    assert isinstance(whole.story, Job)
    assert short.story.name == whole.story.name == "pooling"
    assert short.story.estimate_s < whole.story.estimate_s / 3
    assert short.key != whole.key
    # The estimate is no part of what is asked for: a better one does not run it again.
    told = replace(short, story=short.story.model_copy(update={"estimate_s": 1.0}))
    assert told.key == short.key


@pytest.mark.parametrize("name", ["pooling", "pool-compat", "pool-size", "capacity"])
def test_every_experiment_can_be_a_job(name: str) -> None:
    job = plan_job(name, PROD, quick=True)
    assert job.name == name
    assert 0 < job.estimate_s <= 360
    # What a job is asked for survives being written down.
    assert Job.model_validate_json(job.model_dump_json()).settings.keys() == job.settings.keys()
    # Names of arguments that the experiment really has.
    kind = kinds()[name]
    seen: dict[str, Any] = {}
    module = importlib.import_module(kind.run.__module__)
    runner = next(
        n for n in ("run_pooling", "run_compat", "run_sizing", "run_capacity") if hasattr(module, n)
    )
    signature = inspect.signature(getattr(module, runner))

    def stand_in(*args: Any, **named: Any) -> Path:
        seen["bound"] = signature.bind(*args, **named)
        return Path("record")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, runner, stand_in)
        done = run_job(
            object(), job, seed=1, runs_dir=Path("runs"), command="lab verify", progress=Progress()
        )
    assert done.path == Path("record")
    assert seen["bound"].arguments["seed"] == 1


def test_an_experiment_that_a_topology_lacks_parts_for_is_no_run() -> None:
    needs = [Need(topology="innovate-prod", target="A", scenarios=("pooling",))]
    chosen = choose(needs, Asked(name="x", topologies=("innovate-prod",), quick=True))
    assert chosen.cells == ()
    assert "no pooler" in chosen.unanswered["innovate-prod A"]
    with pytest.raises(UsageError, match="no scenario or experiment 'nowhere'"):
        plan_job("nowhere", PROD, quick=True)


def test_the_plan_counts_labs_not_settings() -> None:
    needs = [
        Need(topology=name, target="A", scenarios=("steady",)) for name in ("innovate-dev", "innovate-prod")
    ]
    asked = Asked(name="x", topologies=("innovate-dev", "innovate-prod"), quick=True)
    assert runs_text(choose(needs, asked).cells) == "2 runs on 2 labs"
    assert runs_text(choose(needs[:1], asked.model_copy(update={"topologies": ("innovate-dev",)})).cells) == (
        "1 run on 1 lab"
    )


def test_a_need_that_nothing_fits_is_named() -> None:
    needs = [
        Need(topology="risk-dev", target="A", scenarios=("kill-primary", "nowhere")),
        Need(topology="risk-dev", target="B", scenarios=("steady",)),
    ]
    chosen = choose(needs, Asked(name="x", topologies=("risk-dev",), quick=True))
    assert [cell.story.name for cell in chosen.cells][-1] == "steady"
    only = choose(
        [Need(topology="risk-prod", target="A", scenarios=("nowhere",))],
        Asked(name="x", topologies=("risk-prod",), quick=True),
    )
    assert "nowhere" in only.unanswered["risk-prod A"]


def test_settings_reach_topology_and_scenario() -> None:
    asked = ASKED.model_copy(update={"settings": ("postgres.synchronous=off", "load.rate=30")})
    for cell in choose(needs_of([PROD]), asked).cells:
        assert cell.topology.postgres.synchronous == "off"
        assert isinstance(cell.story, Job) or cell.story.load.rate == 30


@pytest.mark.parametrize(("scenario", "workload"), [("kill-primary", "bank"), ("latency", "tpcb")])
def test_a_topology_with_another_schema_gets_a_load_that_runs_there(scenario: str, workload: str) -> None:
    """And where something is broken one whose totals have to survive that: a promise asks for it."""
    need = [Need(topology="innovate-prod", target="A", scenarios=(scenario,))]
    cell = choose(need, Asked(name="x", topologies=("innovate-prod",), quick=True)).cells[0]
    assert isinstance(cell.story, Scenario)
    assert cell.story.load.workload == workload
    mine = choose(NEEDS, ASKED).cells[0]
    assert isinstance(mine.story, Scenario)
    assert mine.story.load.workload == "risk-api"


def test_a_workload_that_there_is_not_is_an_error_and_no_reason_for_another() -> None:
    need = Need(topology="risk-prod", target="p", scenarios=("kill-primary",))
    chosen = choose([need], ASKED.model_copy(update={"settings": ("load.workload=nonsense",)}))
    assert not chosen.cells
    assert "there is no workload 'nonsense'" in chosen.unanswered["risk-prod p"]


# Running


class Labs:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, topology: str, _settings: tuple[str, ...]) -> Any:
        self.asked.append(topology)
        return SimpleNamespace(name="lab")


NUMBERS = itertools.count(1)


class Runner:
    """Makes synthetic records; fails, or is interrupted, at a given run."""

    def __init__(self, fail_at: int = 0, stop_at: int = 0, **options: Any) -> None:
        self.fail_at, self.stop_at, self.options = fail_at, stop_at, options
        self.ran: list[str] = []

    def __call__(self, _lab: Any, story: Any, *, runs_dir: Path, **_: Any) -> Any:
        self.ran.append(story.name)
        if self.stop_at == len(self.ran):
            raise KeyboardInterrupt
        if self.fail_at == len(self.ran):
            raise LabError("it broke")
        options = {"trials": 1, **self.options}
        path = make_record(
            runs_dir / f"20261121T12{next(NUMBERS):04}Z-{story.name}", scenario=story.name, **options
        )
        head = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**head, "run": path.name}))
        return SimpleNamespace(path=path)


NEEDS = [
    Need(topology="risk-prod", target="R16.rto-write", scenarios=("kill-primary",)),
    Need(topology="risk-prod", target="R16.rpo", scenarios=("kill-postmaster",)),
]


def start(folder: Path, runner: Runner, labs: Labs | None = None) -> Any:
    chosen = choose(NEEDS, ASKED)
    return run(ASKED, NEEDS, chosen, folder, labs or Labs(), Progress(), runner=runner)  # type: ignore[arg-type]


def test_it_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    folder = open_folder(ASKED, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        start(folder, Runner(stop_at=2))
    state = read_state(folder)
    assert state.state == "running"
    assert [bool(job.record) for job in state.jobs] == [True, False]
    assert open_folder(ASKED, tmp_path) == folder
    again = Runner()
    state = start(folder, again)
    assert len(again.ran) == 1
    assert all(job.record for job in state.jobs)
    write_state(folder, state.model_copy(update={"state": "closed"}))
    assert open_folder(ASKED, tmp_path) != folder


def test_runs_of_a_verification_answer_another(tmp_path: Path) -> None:
    folder = open_folder(ASKED, tmp_path)
    state = start(folder, Runner(fail_at=1))
    (record,) = [job.record for job in state.jobs if job.record]
    assert records_of(folder.name, tmp_path) == records_of(str(folder), Path("nowhere")) == [folder / record]
    assert records_of(str(folder / record), tmp_path) == [(folder / record).resolve()]
    with pytest.raises(RecordError, match="no run record"):
        records_of("nothing", tmp_path)


def test_what_was_asked_otherwise_begins_anew(tmp_path: Path) -> None:
    folder = open_folder(ASKED, tmp_path)
    start(folder, Runner())
    assert open_folder(ASKED.model_copy(update={"quick": False}), tmp_path) != folder


def test_a_run_that_fails_is_told_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    folder = open_folder(ASKED, tmp_path)
    state = start(folder, Runner(fail_at=1))
    assert [job.error for job in state.jobs] == ["it broke", ""]


def test_a_folder_that_is_no_verification(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no record of a verification"):
        read_state(tmp_path)
    (tmp_path / "verify.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        read_state(tmp_path)


# What several runs say


def verdict(status: Status, value: float | None = 1.0, **more: Any) -> Verdict:
    target = Target.model_validate(
        {
            "id": "R16.x", "quote": "q", "place": "p", "metric": "rpo.rows", "comparison": "==", "limit": 0,
            "unit": "rows", "scenarios": ("kill", "cut"), **more,
        }
    )  # fmt: skip
    return Verdict(
        target=target, status=status, why="w", finding=Finding(metric="rpo.rows", unit="rows", value=value)
    )


def decided(*said: tuple[str, Verdict], **more: Any) -> Row:
    target = verdict("met", **more).target
    of = {"R16.x": [Said(run=f"run-{name}", scenario=name, verdict=one) for name, one in said]}
    return rows_of(PROD, [target], [], of, {"R16.x": "it failed"})[0]


def test_one_refutation_is_enough() -> None:
    row = decided(("kill", verdict("met")), ("cut", verdict("not met")))
    assert (row.verdict.status, row.run) == ("not met", "run-cut")
    assert [one.scenario for one in row.others] == ["kill"]


def test_met_beats_what_tells_nothing() -> None:
    assert decided(("kill", verdict("inconclusive")), ("cut", verdict("met"))).verdict.status == "met"
    assert decided(("kill", verdict("invalid")), ("cut", verdict("inconclusive"))).run == "run-cut"


def test_of_equals_the_worse_figure_counts_and_the_run_that_can_prove() -> None:
    assert decided(("kill", verdict("met", 1)), ("cut", verdict("met", 3))).run == "run-cut"
    up = {"comparison": ">="}
    assert (
        decided(("kill", verdict("met", 1, **up)), ("cut", verdict("met", 3, **up)), **up).run == "run-kill"
    )
    both = (("kill", verdict("inconclusive", 9)), ("cut", verdict("inconclusive", 0)))
    assert decided(*both, proven_by=("cut",)).run == "run-cut"


def test_what_cannot_prove_does_not() -> None:
    row = decided(("kill", verdict("met")), ("cut", verdict("inconclusive")), proven_by=("cut",))
    assert row.run == "run-cut"
    row = decided(("kill", verdict("not met")), ("cut", verdict("met")), proven_by=("cut",))
    assert row.verdict.status == "not met"


def test_what_nothing_says_is_not_run() -> None:
    row = decided()
    assert (row.verdict.status, row.verdict.why) == ("not run", "it failed")
    later = rows_of(PROD, [verdict("met", not_built="a drill", scenarios=()).target], [], {}, {})[0]
    assert later.verdict.why == "not built yet: a drill"


def test_paper_answers_its_own_and_adds_contradictions_only() -> None:
    mine = verdict("met", method="on paper", scenarios=())
    other = verdict("not met", id="R1.y", method="on paper", scenarios=())
    held = verdict("met", id="R1.z", method="on paper", scenarios=())
    rows = rows_of(PROD, [mine.target], [mine, other, held], {}, {})
    assert [(row.verdict.target.id, row.verdict.status) for row in rows] == [
        ("R16.x", "met"),
        ("R1.y", "not met"),
    ]


# The scorecard of synthetic runs


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scorecard, Path]:
    return of(tmp_path_factory.mktemp("runs"))


def of(runs: Path, **options: Any) -> tuple[Scorecard, Path]:
    folder = open_folder(ASKED, runs, fresh=True)
    state = start(folder, Runner(**options))
    state = state.model_copy(update={"state": "closed"})
    card = scorecard(folder, state, [PROD], (), lambda _: None)
    save(card, folder)
    return card, folder


def test_every_promise_of_the_environment_has_one_row(verified: tuple[Scorecard, Path]) -> None:
    card, _ = verified
    ids = [row.verdict.target.id for row in card.rows if "(" not in row.verdict.target.id]
    assert ids == [target.id for target in targets_of("risk") if target.concerns("prod")]
    by_id = {row.verdict.target.id: row for row in card.rows}
    assert by_id["R16.rto-write"].verdict.status == "inconclusive"
    assert view.measured(by_id["R16.rto-write"].verdict).endswith(" s")
    assert by_id["R16.rto-write"].run is not None
    assert by_id["R14"].verdict.status == "not run"
    assert by_id["R19.rpo"].verdict.status == "not met"
    assert by_id["R19.rpo"].verdict.target.method == "on paper"
    assert sum(one.answers for one in card.runs) == sum(row.run is not None for row in card.rows)


def test_it_is_kept(verified: tuple[Scorecard, Path]) -> None:
    card, folder = verified
    assert load(folder) == card
    with pytest.raises(UsageError, match="no scorecard"):
        load(folder.parent)
    broken = folder.parent / "broken" / "report"
    broken.mkdir(parents=True)
    (broken / "scorecard.json").write_text("{}")
    with pytest.raises(UsageError, match="damaged"):
        load(broken.parent)


def test_the_page_shows_promises_pictures_and_records(verified: tuple[Scorecard, Path]) -> None:
    card, folder = verified
    page = scorecard_html.write(card, folder).read_text()
    assert "data:image/png;base64," in page
    for row in card.rows:
        assert row.verdict.target.id.partition(" ")[0] in page
    for one in card.runs:
        assert f"../{one.folder}/report/report.html" in page
        assert (folder / "report" / ".." / one.folder / "report" / "report.html").is_file()
    runs = {one.name: one for one in card.runs}
    shown = {row.verdict.target.id: picture_of(row, runs) for row in card.rows}
    assert shown["R16.rto-write"] == "waterfall"
    assert shown["R14"] is None


def test_the_page_escapes_what_is_not_ours(verified: tuple[Scorecard, Path]) -> None:
    card, folder = verified
    bad = card.model_copy(update={"notes": ("<script>alert(1)</script>",)})
    assert "<script>alert" not in scorecard_html.render(bad, folder)


def test_the_terminal_says_the_same(
    verified: tuple[Scorecard, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from lab import terminal

    card, _ = verified
    terminal.out().print(ScorecardText(card))
    out = capsys.readouterr().out
    assert "R19.rpo" in out
    assert "not built yet" in out
    assert answer_of(card)[0].split(";")[0] in " ".join(out.split())


def test_markdown_has_a_line_for_each_promise(verified: tuple[Scorecard, Path]) -> None:
    card, folder = verified
    text = (folder / "report" / "scorecard.md").read_text()
    assert text == markdown(card)
    for row in card.rows:
        assert row.verdict.target.id.partition(" ")[0] in text
    assert "**not met** (on paper)" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in table} == {6}


def test_nothing_tested_is_not_green() -> None:
    empty = Scorecard(name="x", quick=True, started="", seconds=0)
    assert answer_of(empty)[1] == "unsure"
    later = decided(not_built="x", scenarios=())
    assert answer_of(empty.model_copy(update={"rows": (later,)}))[1] == "unsure"


# What changed


def test_a_worse_verdict_is_seen(verified: tuple[Scorecard, Path], tmp_path: Path) -> None:
    before, old = verified
    after, new = of(tmp_path, outage_s=(320.0,), window_s=340.0, rate=20, request_rate=20)
    found = {one.key: one for one in changes(before, after, old, new)}
    worse = found["risk-prod R16.rto-write"]
    assert (worse.before, worse.after) == ("inconclusive", "not met")
    assert worse.changed
    assert worse.word in ("worse", "too few")
    assert not found["risk-prod R19.rpo"].changed
    assert "R16.rto-write" in scorecard_html.render(after, new, list(found.values()), old.name)


def test_the_same_scorecard_has_not_changed(verified: tuple[Scorecard, Path]) -> None:
    card, folder = verified
    assert not any(one.changed for one in changes(card, card, folder, folder))


def test_a_promise_that_came_or_went(verified: tuple[Scorecard, Path]) -> None:
    card, folder = verified
    fewer = card.model_copy(update={"rows": card.rows[1:]})
    found = changes(fewer, card, folder, folder)
    assert [(one.before, one.after) for one in found if one.before is None]


# The command


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["verify"], "name the systems"),
        (["verify", "risk", "--all"], "name the systems"),
        (["verify", "rsk"], "no targets of a system 'rsk'"),
        (["verify", "risk", "--env", "moon"], "no environment 'moon'"),
        (["verify", "risk", "--against", "nothing"], "no scorecard"),
        (["verify", "risk", "--with", "nothing"], "no run record"),
        (["verify", "risk", "--target", "R99"], "no target 'R99'"),
        (["verify", "risk", "--set", "postgres.patroni.tll=3"], "tll"),
    ],
)
def test_wrong_usage_is_one_clear_error(
    argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(argv) == 3
    err = " ".join(capsys.readouterr().err.split())
    assert expected in err
    assert "Traceback" not in err


def test_the_plan_runs_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["verify", "risk", "--env", "prod", "--quick", "--dry-run", "--json", "--runs", str(tmp_path)]
    assert cli.run(argv) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["labs"] == 1
    trials = {one["scenario"]: one["trials"] for one in plan["runs"]}
    # The fewest repeats of its cells that make a verdict; everything else runs once.
    assert trials.pop("pooling") == 3
    assert set(trials.values()) == {1}
    assert not list(tmp_path.iterdir())


def test_records_alone_make_a_scorecard(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    record = make_record(tmp_path / "before" / "20261121T120000Z-kill-primary", trials=3)
    argv = [
        "verify",
        "risk",
        "--env",
        "prod",
        "--no-run",
        "--with",
        str(record),
        "--runs",
        str(tmp_path),
        "--json",
    ]
    assert cli.run(argv) == 1
    card = json.loads(capsys.readouterr().out)
    by_id = {row["verdict"]["target"]["id"]: row for row in card["rows"]}
    assert by_id["R16.rto-write"]["verdict"]["status"] == "met"
    assert by_id["R16.rpo"]["verdict"]["status"] == "inconclusive"
    assert by_id["R20.availability-zone"]["verdict"]["status"] == "not run"
    assert (Path(card["folder"]) / "report" / "scorecard.html").is_file()


def test_a_row_chooses_its_promises() -> None:
    assert {need.target for need in needs_of([PROD], ["R16"])} == {
        target.id for target in targets_of("risk") if target.id.startswith("R16.")
    }


def test_all_systems_fit_into_an_hour() -> None:
    from lab.matrix import estimate_s
    from lab.topology.loader import list_topologies
    from reports.targets import list_targets

    every = [load_topology(name) for name in list_topologies()]
    mine = [one for one in every if one.system in list_targets()]
    asked = Asked(name="all", topologies=tuple(one.name for one in mine), quick=True)
    chosen = choose(needs_of(mine), asked)
    assert estimate_s(chosen.cells) < 3600
    assert all("is an experiment" in why for why in chosen.unanswered.values())


def test_judged_as_a_run_is() -> None:
    # The scorecard takes verdicts as they are: a met one needs its trials there too.
    one = verdict("met").target
    finding = Finding(metric="rpo.rows", unit="rows", value=0, samples=(0,), detail={"trials": 1})
    assert judge_finding(one, finding).status == "inconclusive"


def test_a_card_without_runs_has_no_pictures() -> None:
    row = decided(("cut", verdict("met")))
    assert picture_of(row, {}) is None
    bare = CardRun(name="run-cut", folder="x", topology="t", scenario="cut", title="", when="", how="")
    assert picture_of(row, {"run-cut": bare}) is None
