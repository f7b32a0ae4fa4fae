"""Scenarios as tests: ``pytest scenarios/ --topology risk-prod``.

Each YAML file directly in a folder named ``scenarios`` (or named on the command line) is a test for each
``--topology``: a lab is brought up once a topology, the scenario runs, the run record is analysed and judged.

    not met                             failure, with the table of verdicts and the report's path
    inconclusive, invalid, not run      skipped with the reason; a failure with ``--strict-verdicts``
    all met                             passed

Other tests ask for the fixture ``lab``: the running lab, whole before each test. ``scenarios/conftest.py``
loads this plugin; elsewhere it is ``pytest -p lab.pytest_plugin``, or ``pytest_plugins`` of the top conftest.

One lab is up at a time: tests are ordered by the lab that they need. A lab that this session made goes at its
end, however it ends; one that was up before (``--lab-name``) stays.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lab.deploy.docker_driver import DockerLab
    from lab.labs import Labs
    from lab.scenario.models import Scenario
    from reports.findings import Verdict
    from reports.pipeline import Report

FOLDER = "scenarios"
WIDTH = 100
"""Columns of a verdict table in a failure."""
_SEED_LIMIT = 2**31
_WARNINGS = ("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
"""The engine's client leaves sockets to the garbage collector, in whatever test is running then."""

labs_key = pytest.StashKey["Labs"]()
seed_key = pytest.StashKey[int]()


class NotHeld(Exception):
    """A promise was not met, or could not be judged under ``--strict-verdicts``; the text says all."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lab", "scenarios on a lab")
    group.addoption(
        "--topology", action="append", dest="lab_topologies", metavar="NAME|FILE", default=None,
        help="Run scenarios and tests with the fixture `lab` on this topology; several times for several.",
    )  # fmt: skip
    group.addoption(
        "--lab-name", dest="lab_name", metavar="NAME", default=None,
        help="Name of the lab. One that is up already is used as it is, and left up.",
    )  # fmt: skip
    group.addoption("--trials", dest="lab_trials", type=int, metavar="K", default=None,
                    help="Trials a scenario, in place of what its file says.")  # fmt: skip
    group.addoption("--set", action="append", dest="lab_settings", metavar="KEY=VALUE", default=[],
                    help="A field of every scenario, such as load.rate=50.")  # fmt: skip
    group.addoption("--lab-seed", dest="lab_seed", type=int, metavar="N", default=None,
                    help="Seed of everything random; random by default, and shown at the top.")  # fmt: skip
    group.addoption("--runs", dest="lab_runs", metavar="FOLDER", default="runs",
                    help="Where run records and reports go (default: runs).")  # fmt: skip
    group.addoption("--keep-lab", action="store_true", dest="lab_keep", default=False,
                    help="Leave the labs up at the end.")  # fmt: skip
    group.addoption("--strict-verdicts", action="store_true", dest="lab_strict", default=False,
                    help="A verdict that is inconclusive, invalid or not run is a failure too.")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    trials, name = _option(config, "trials"), _option(config, "name")
    if trials is not None and trials < 1:
        raise pytest.UsageError(f"--trials: expected at least 1, found {trials}")
    if name is not None and len(topologies(config)) > 1:
        raise pytest.UsageError("--lab-name names one lab: give one --topology with it")
    if topologies(config) and hasattr(config, "workerinput"):
        raise pytest.UsageError("scenarios share one lab: run them without -n")
    given = _option(config, "seed")
    config.stash[seed_key] = given if given is not None else secrets.randbelow(_SEED_LIMIT)


def pytest_report_header(config: pytest.Config) -> list[str]:
    chosen = topologies(config)
    return [f"lab: topologies {', '.join(chosen)}; --lab-seed {config.stash[seed_key]}"] if chosen else []


def pytest_unconfigure(config: pytest.Config) -> None:
    if labs_key in config.stash:
        config.stash[labs_key].close()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Also after Ctrl-C."""
    pytest_unconfigure(session.config)


def topologies(config: pytest.Config) -> list[str]:
    """What ``--topology`` named, each once; empty where it was not given."""
    return list(dict.fromkeys(_option(config, "topologies") or ()))


def _option(config: pytest.Config, name: str) -> Any:
    return config.getoption(f"lab_{name}", default=None)


def _labs(config: pytest.Config) -> Labs:
    from lab.labs import Labs

    if labs_key not in config.stash:
        config.stash[labs_key] = Labs(_option(config, "name"), keep=bool(_option(config, "keep")))
    return config.stash[labs_key]


# Collection


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    if file_path.suffix not in (".yaml", ".yml"):
        return None
    if file_path.parent.name != FOLDER and not parent.session.isinitpath(file_path):
        return None
    return ScenarioFile.from_parent(parent, path=file_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``lab`` runs once a topology."""
    chosen = topologies(metafunc.config)
    definitions = metafunc.definition.session._fixturemanager.getfixturedefs("lab", metafunc.definition)
    ours = definitions is not None and definitions[-1].func.__module__ == __name__
    if "lab" in metafunc.fixturenames and ours and chosen:
        metafunc.parametrize("lab", chosen, ids=[_id(one) for one in chosen], indirect=True, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By lab, so that each comes up once; otherwise as collected."""
    for item in items:
        if isinstance(item, ScenarioItem) or "lab" in getattr(item, "fixturenames", ()):
            for text in _WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(text))
    order: dict[Any, int] = {}
    for plain in (True, False):  # labs without overrides first
        for item in items:
            if isinstance(item, ScenarioItem) and (not item.scenario.overrides) == plain:
                order.setdefault(item.lab_key, len(order))
    if order:
        scenarios = iter(sorted(_scenario_items(items), key=lambda item: order[item.lab_key]))
        items[:] = [next(scenarios) if isinstance(item, ScenarioItem) else item for item in items]


def _scenario_items(items: Sequence[pytest.Item]) -> list[ScenarioItem]:
    return [item for item in items if isinstance(item, ScenarioItem)]


def _id(topology: str) -> str:
    return Path(topology).stem


class ScenarioFile(pytest.File):
    """One scenario's file: one test a topology."""

    def collect(self) -> Iterator[ScenarioItem]:
        from lab.errors import LabError
        from lab.scenario.loader import load_scenario

        settings = list(_option(self.config, "settings") or ())
        if (trials := _option(self.config, "trials")) is not None:
            settings.append(f"trials={trials}")
        try:
            scenario = load_scenario(self.path, settings)
        except LabError as error:
            text = f"{error}\nhint: {error.hint}" if error.hint else str(error)
            raise self.CollectError(text) from None
        chosen: Sequence[str | None] = topologies(self.config) or [None]
        for topology in chosen:
            name = f"{scenario.name}[{_id(topology)}]" if topology else scenario.name
            yield ScenarioItem.from_parent(self, name=name, scenario=scenario, topology=topology)


class ScenarioItem(pytest.Item):
    """One scenario on one topology."""

    def __init__(self, *, scenario: Scenario, topology: str | None, **rest: Any) -> None:
        super().__init__(**rest)
        self.scenario = scenario
        self.topology = topology
        self.lab: DockerLab | None = None

    @property
    def lab_key(self) -> tuple[str, tuple[str, ...]]:
        """What lab it needs: the topology, and the settings that it must have."""
        from lab.scenario.settings import override_texts

        return self.topology or "", tuple(sorted(override_texts(self.scenario.overrides)))

    @property
    def seed(self) -> int:
        """From the session's seed and the test's name: the same whatever else is chosen with ``-k``."""
        text = f"{self.config.stash[seed_key]}:{self.name}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % _SEED_LIMIT

    def setup(self) -> None:
        from lab.labs import Unfit

        if self.topology is None:
            pytest.skip("not run: --topology says on which topology")
        try:
            self.lab = _labs(self.config).get(*self.lab_key)
        except Unfit as error:
            self._undecided(f"not run: {error}")

    def runtest(self) -> None:
        from lab.errors import UsageError
        from lab.scenario.runner import run_scenario
        from reports.pipeline import analyse_and_report

        assert self.lab is not None
        command = f"pytest {self.nodeid} --lab-seed {self.config.stash[seed_key]}"
        runs = Path(_option(self.config, "runs"))
        try:
            done = run_scenario(self.lab, self.scenario, seed=self.seed, runs_dir=runs, command=command)
        except UsageError as error:
            self._undecided(f"not run: {error}")
        self._judge(analyse_and_report(done.path, quiet=True))

    def _judge(self, report: Report) -> None:
        html = report.paths["html"]
        self.user_properties += [("report", str(html)), ("seed", str(self.seed))]
        for verdict in report.verdicts:
            self.user_properties.append((verdict.target.id, f"{verdict.status}: {verdict.why}"))
        statuses = {verdict.status for verdict in report.verdicts}
        if "not met" in statuses:
            raise NotHeld(f"{table(report.verdicts)}\n{html}")
        if not report.verdicts:
            self._undecided(f"nothing was judged: no promise names this scenario; {html}")
        open_ones = [v for v in report.verdicts if v.status != "met"]
        if open_ones:
            said = "; ".join(f"{v.target.metric} {v.status}: {v.why}" for v in open_ones)
            self._undecided(f"{said}; {html}", f"{table(report.verdicts)}\n{html}")

    def _undecided(self, why: str, at_length: str | None = None) -> Any:
        if _option(self.config, "strict"):
            raise NotHeld(at_length or why)
        pytest.skip(why)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Verdicts and errors of the lab as they are, without a traceback."""
        from lab.errors import LabError

        error = excinfo.value
        if isinstance(error, NotHeld):
            return str(error)
        if isinstance(error, LabError):
            return f"{error}\nhint: {error.hint}" if error.hint else str(error)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


def table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as ``lab run`` prints them, without colour."""
    from rich.console import Console

    from reports.terminal import verdict_table

    console = Console(file=io.StringIO(), width=WIDTH, no_color=True, highlight=False)
    console.print(verdict_table(verdicts))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


# For tests of one's own


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> DockerLab:
    """A running lab of each ``--topology``, whole and healthy when the test begins (``lab.driver.Lab``).

    The lab is shared with the tests that follow: what a test breaks it should mend. A lab that does not
    become whole again is made anew, unless it was up before the session.
    """
    topology = getattr(request, "param", None)
    if topology is None:
        pytest.skip("--topology says on which topology")
    return _labs(request.config).get(topology, ())
