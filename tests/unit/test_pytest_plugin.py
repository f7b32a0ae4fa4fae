"""The pytest plugin on a lab that is made up: what is collected, ordered, passed, failed and taken down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

# All at the top: ``pytester`` forgets what is imported while it is in use, and numpy loads once only.
import lab.faults.kill_postmaster
import lab.scenario.runner
import reports.pipeline
import reports.terminal
from lab import labs as lab_labs
from lab.errors import EngineError, LabError, NetworkKept, UsageError
from lab.labs import Labs, Unfit, default_name
from lab.topology.loader import load_topology
from reports.findings import Target, Verdict
from tests.synthetic import make_record

pytest_plugins = "pytester"

REALLY = reports.pipeline.analyse_and_report
ROOT = Path(__file__).resolve().parents[2]
SCENARIO = """\
name: {name}
title: A story
claim: Something holds.
trials: 3
steps:
  - fault: kill-postmaster
{more}
"""


class World:
    """What happened to labs, and what the runs shall say."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.statuses: dict[str, tuple[str, ...]] = {}
        self.ran: list[Any] = []
        self.error: LabError | None = None
        self.broken: set[str] = set()
        self.up: dict[str, Any] = {}

    def bring_up(self, name: str, topology: Any) -> Any:
        self.told.append(f"up {name} {topology.name}")
        self.up[name] = SimpleNamespace(name=name, topology=topology)
        return self.up[name]

    def take_down(self, name: str) -> None:
        self.told.append(f"down {name}")
        del self.up[name]

    def make_whole(self, lab: Any) -> None:
        if lab.name in self.broken:
            self.broken.remove(lab.name)
            raise LabError(f"{lab.name} is broken")

    def run(self, lab: Any, scenario: Any, *, seed: int, runs_dir: Path, command: str) -> Any:
        self.told.append(f"run {scenario.name} on {lab.name}")
        self.ran.append(SimpleNamespace(scenario=scenario, seed=seed, runs_dir=runs_dir, command=command))
        if self.error is not None:
            raise self.error
        return SimpleNamespace(path=runs_dir / scenario.name)

    def report(self, path: Path, *, quiet: bool) -> Any:
        assert quiet
        verdicts = [verdict(status) for status in self.statuses.get(path.name, ("met",))]
        return SimpleNamespace(verdicts=verdicts, paths={"html": path / "report/report.html"})


def verdict(status: str) -> Verdict:
    target = Target(
        id=f"R16-{status.replace(' ', '-')}", quote="RTO < 5 min", place="", metric="rto.write",
        comparison="<", limit=300, unit="s",
    )  # fmt: skip
    return Verdict.model_validate({"target": target, "status": status, "why": f"because {status}"})


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(lab_labs, "bring_up", made.bring_up)
    monkeypatch.setattr(lab_labs, "take_down", made.take_down)
    monkeypatch.setattr(lab_labs, "open_lab", lambda name: made.up[name])
    monkeypatch.setattr(lab_labs, "is_up", lambda name: name in made.up)
    monkeypatch.setattr(lab_labs, "_make_whole", made.make_whole)
    monkeypatch.setattr(lab.scenario.runner, "run_scenario", made.run)
    monkeypatch.setattr(reports.pipeline, "analyse_and_report", made.report)
    return made


Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    assert world
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (pytester.path / "scenarios").mkdir()

    def call(*words: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(
            "-p", "lab.pytest_plugin", "--assert=plain", "-p", "no:cacheprovider", "-rs", *words
        )

    return call


def write(folder: Path, name: str, more: str = "") -> Path:
    path = folder / "scenarios" / f"{name}.yaml"
    path.write_text(SCENARIO.format(name=name, more=more))
    return path


def test_one_test_a_scenario_and_topology_and_one_lab_a_topology(
    pytester: pytest.Pytester, world: World, run: Run
) -> None:
    write(pytester.path, "one")
    write(pytester.path, "two")
    other = pytester.path / "other.yaml"
    other.write_text(
        (ROOT / "compose/topologies/risk-prod.yaml").read_text().replace("name: risk-prod", "name: other")
    )
    result = run("scenarios", "--topology", "risk-prod", "--topology", str(other), "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*scenarios/one.yaml::one[[]risk-prod[]] PASSED*"])
    assert world.told == [
        "up risk-prod-test risk-prod", "run one on risk-prod-test", "run two on risk-prod-test",
        "down risk-prod-test",
        "up other-test other", "run one on other-test", "run two on other-test",
        "down other-test",
    ]  # fmt: skip


def test_not_met_is_a_failure_with_the_table_and_the_report(
    pytester: pytest.Pytester, world: World, run: Run
) -> None:
    write(pytester.path, "bad")
    world.statuses["bad"] = ("met", "not met")
    result = run("scenarios", "--topology", "risk-prod", "--junitxml", "out.xml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*verdict*promise*", "*not met*", "*because not met*", "*bad/report/report.html*"]
    )
    assert "Traceback" not in result.stdout.str()
    assert "NotHeld" not in result.stdout.str().replace("scenarios/bad.yaml", "")
    case = ET.parse(pytester.path / "out.xml").getroot().find(".//testcase")
    assert case is not None
    properties = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
    assert properties["report"].endswith("report.html")
    assert properties["R16-not-met"] == "not met: because not met"
    assert case.find("failure") is not None
    assert world.told[-1] == "down risk-prod-test"


@pytest.mark.parametrize("status", ["inconclusive", "invalid", "not run"])
def test_undecided_is_skipped_and_strictly_a_failure(
    pytester: pytest.Pytester, world: World, run: Run, status: str
) -> None:
    write(pytester.path, "open")
    world.statuses["open"] = ("met", status)
    result = run("scenarios", "--topology", "risk-prod")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines([f"SKIPPED*rto.write {status}: because {status}*report.html*"])
    run("scenarios", "--topology", "risk-prod", "--strict-verdicts").assert_outcomes(failed=1)


def test_a_run_that_judged_nothing_is_not_green(pytester: pytest.Pytester, world: World, run: Run) -> None:
    write(pytester.path, "mine")
    world.statuses["mine"] = ()
    run("scenarios", "--topology", "risk-prod").assert_outcomes(skipped=1)
    run("scenarios", "--topology", "risk-prod", "--strict-verdicts").assert_outcomes(failed=1)


def test_a_scenario_that_does_not_fit_is_skipped_and_a_lab_that_fails_is_a_failure(
    pytester: pytest.Pytester, world: World, run: Run
) -> None:
    write(pytester.path, "one")
    world.error = UsageError("the topology has no pooler")
    result = run("scenarios", "--topology", "risk-prod")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*not run: the topology has no pooler*"])
    world.error = LabError("pg1 did not come back", hint="look at its log")
    result = run("scenarios", "--topology", "risk-prod")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*pg1 did not come back*", "*hint: look at its log*"])
    assert "runner.py" not in result.stdout.str()


def test_without_a_topology_files_are_read_and_nothing_is_run(
    pytester: pytest.Pytester, world: World, run: Run
) -> None:
    write(pytester.path, "one")
    result = run("scenarios")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*--topology says on which topology*"])
    assert world.told == []


def test_bad_yaml_is_a_collection_error_with_file_and_line(
    pytester: pytest.Pytester, world: World, run: Run
) -> None:
    write(pytester.path, "good")
    write(pytester.path, "typo", "trails: 4")
    (pytester.path / "scenarios/broken.yaml").write_text("name: [\n")
    result = run("scenarios", "--topology", "risk-prod")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        ["*broken.yaml:2:1: not valid YAML*", "*typo.yaml:7:1: trails: unknown field*"]
    )
    for word in ("Traceback", "UsageError", "document.py", "def collect"):
        assert word not in result.stdout.str()
    assert world.told == []


def test_only_files_directly_in_scenarios_are_collected(
    pytester: pytest.Pytester, world: World, run: Run
) -> None:
    write(pytester.path, "one")
    for folder in ("scenarios/targets", "scenarios/matrix", "config"):
        (pytester.path / folder).mkdir()
        (pytester.path / folder / "not-a-scenario.yaml").write_text("a: 1\n")
    run("--topology", "risk-prod").assert_outcomes(passed=1)
    # A file that is named is meant, wherever it stands.
    run("config/not-a-scenario.yaml", "--topology", "risk-prod").assert_outcomes(errors=1)
    assert len(world.ran) == 1


def test_overrides_get_a_lab_of_their_own_after_the_others(
    pytester: pytest.Pytester, world: World, run: Run
) -> None:
    write(pytester.path, "a-slow", "overrides:\n  postgres.patroni.ttl: 40")
    write(pytester.path, "b-plain")
    write(pytester.path, "c-slow", "overrides:\n  postgres.patroni.ttl: 40")
    own = default_name("risk-prod", ("postgres.patroni.ttl=40",))
    run("scenarios", "--topology", "risk-prod").assert_outcomes(passed=3)
    assert world.told == [
        "up risk-prod-test risk-prod", "run b-plain on risk-prod-test", "down risk-prod-test",
        f"up {own} risk-prod", f"run a-slow on {own}", f"run c-slow on {own}", f"down {own}",
    ]  # fmt: skip
    assert world.ran[1].scenario.overrides == {"postgres.patroni.ttl": 40}


def test_a_lab_that_was_up_is_used_left_up_and_not_changed(
    pytester: pytest.Pytester, world: World, run: Run
) -> None:
    write(pytester.path, "one")
    write(pytester.path, "slow", "overrides:\n  postgres.patroni.ttl: 40")
    world.up["mine"] = SimpleNamespace(name="mine", topology=load_topology("risk-prod"))
    result = run("scenarios", "--topology", "risk-prod", "--lab-name", "mine")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*not run: lab mine does not run with postgres.patroni.ttl=40*"])
    assert world.told == ["run one on mine"]
    world.up.clear()
    run("scenarios/one.yaml", "--topology", "risk-prod", "--lab-name", "fresh").assert_outcomes(passed=1)
    assert world.told[1:] == ["up fresh risk-prod", "run one on fresh", "down fresh"]


def test_trials_settings_and_seeds(pytester: pytest.Pytester, world: World, run: Run) -> None:
    write(pytester.path, "one")
    write(pytester.path, "two")
    words = ("--topology", "risk-prod", "--trials", "7", "--set", "load.rate=50", "--lab-seed", "5")
    result = run("scenarios", *words)
    result.stdout.fnmatch_lines(["lab: topologies risk-prod; --lab-seed 5"])
    first, second = world.ran
    assert (first.scenario.trials, first.scenario.load.rate) == (7, 50)
    assert first.seed != second.seed
    assert first.command.endswith("--lab-seed 5")
    run("scenarios", *words, "-k", "two").assert_outcomes(passed=1, deselected=1)
    assert world.ran[2].seed == second.seed
    result = run("scenarios", "--topology", "risk-prod", "--trials", "0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_several_topologies_need_several_names(pytester: pytest.Pytester, run: Run) -> None:
    write(pytester.path, "one")
    result = run("--topology", "risk-prod", "--topology", "other", "--lab-name", "x")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--lab-name names one lab*"])


def test_the_fixture_gives_the_running_lab(pytester: pytest.Pytester, world: World, run: Run) -> None:
    write(pytester.path, "one")
    pytester.makepyfile(
        test_mine="def test_mine(lab):\n    assert lab.topology.name == 'risk-prod'\n",
        test_other="import pytest\n@pytest.fixture\ndef lab(): return 3\ndef test_own(lab): assert lab\n",
    )
    run("--topology", "risk-prod").assert_outcomes(passed=3)
    assert [line for line in world.told if line.startswith("up")] == ["up risk-prod-test risk-prod"]
    result = run("test_mine.py", "test_other.py")
    result.assert_outcomes(passed=1, skipped=1)


def test_a_lab_that_stays_broken_is_made_anew(world: World) -> None:
    labs = Labs()
    first = labs.get("risk-prod", ())
    world.broken.add(first.name)
    assert labs.get("risk-prod", ()) is not first
    assert world.told == ["up risk-prod-test risk-prod", "down risk-prod-test", "up risk-prod-test risk-prod"]
    labs.close()
    labs.close()
    assert not world.up
    # Not one that was up before: it is somebody's.
    world.up["mine"] = SimpleNamespace(name="mine", topology=load_topology("risk-prod"))
    labs = Labs("mine")
    labs.get("risk-prod", ())
    world.broken.add("mine")
    with pytest.raises(LabError, match="mine is broken"):
        labs.get("risk-prod", ())
    with pytest.raises(Unfit, match="ttl=40"):
        labs.get("risk-prod", ("postgres.patroni.ttl=40",))
    labs.close()
    assert "mine" in world.up


def test_a_network_that_the_engine_keeps_is_told_and_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labs = Labs()
    labs.get("risk-prod", ())
    assert world.up

    def kept(name: str) -> None:
        raise error(f"lab {name}: removed 25 containers, but", hint="Restarting the engine mends that.")

    monkeypatch.setattr("lab.labs.take_down", kept)
    error: type[LabError] = NetworkKept
    labs.close()
    said = " ".join(capsys.readouterr().err.split())
    assert "removed 25 containers" in said
    assert "Restarting the engine" in said
    # Anything else that stays is a failure still.
    labs.get("risk-prod", ())
    error = EngineError
    with pytest.raises(EngineError, match="removed 25 containers"):
        labs.close()


def test_kept_labs_stay(pytester: pytest.Pytester, world: World, run: Run) -> None:
    write(pytester.path, "one")
    run("--topology", "risk-prod", "--keep-lab").assert_outcomes(passed=1)
    assert list(world.up) == ["risk-prod-test"]


def test_names_of_labs_are_valid_and_differ() -> None:
    from lab.deploy.state import check_name

    names = {default_name("a" * 31, ()), default_name("a" * 31, ("x=1",)), default_name("a" * 31, ("x=2",))}
    assert len(names) == 3
    for name in names:
        check_name(name)


def test_the_project_loads_the_plugin_for_its_scenarios_only(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(
        str(ROOT / "scenarios"), "--collect-only", "-q", "--topology", "risk-prod", "-p", "no:cacheprovider",
        "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"),
    )  # fmt: skip
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*kill-primary.yaml::kill-primary[[]risk-prod[]]"])
    assert "targets/" not in result.stdout.str()
    result = pytester.runpytest_subprocess("--topology", "risk-prod")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two records of ``kill-primary``, one with losses. Made, and one of them reported, before ``pytester``
    is there: it forgets modules that are imported while it is in use, and numpy's load once only."""
    folder = tmp_path_factory.mktemp("records")
    for name, lost in (("whole", 0), ("lossy", 3)):
        make_record(folder / name, lost=lost, rate=20.0, request_rate=40.0)
    REALLY(folder / "whole", quiet=True)
    return folder


def test_records_are_really_analysed_and_judged(
    records: Path, pytester: pytest.Pytester, world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the lab is made up: without a loss a kill leaves RPO open, with one it is *not met*."""

    def ran(_: Any, scenario: Any, **__: Any) -> Any:
        return SimpleNamespace(path=records / scenario.name)

    monkeypatch.setattr(reports.pipeline, "analyse_and_report", REALLY)
    monkeypatch.setattr(lab.scenario.runner, "run_scenario", ran)
    write(pytester.path, "whole")
    write(pytester.path, "lossy")
    result = run("scenarios", "--topology", "risk-prod")
    result.assert_outcomes(skipped=1, failed=1)
    text = result.stdout.str()
    assert "✗ not met" in text
    assert "acknowledged writes lost" in text
    assert "rpo.rows inconclusive" in text
    assert "lossy/report/report.html" in "".join(text.split())
    assert (records / "lossy/report/report.html").exists()
    assert world.told[-1] == "down risk-prod-test"
