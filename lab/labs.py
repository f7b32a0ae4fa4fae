"""Labs brought up as they are needed: one at a time, reused, and gone at the end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab import terminal
from lab.deploy import state
from lab.errors import LabError, NetworkKept, UsageError

if TYPE_CHECKING:
    from lab.deploy.docker_driver import DockerLab
    from lab.deploy.readiness import Check
    from lab.topology.models import Topology

WHOLE_WITHIN_S = 120.0
UP_WITHIN_S = 300.0
Key = tuple[str, tuple[str, ...]]


class Unfit(Exception):
    """The lab that was asked for by name cannot serve a test; the text says why."""


class Reporter:
    """Tells what is worth knowing on standard error."""

    def stage(self, text: str) -> None:
        terminal.say(text, "dim")

    def note(self, text: str) -> None:
        terminal.say(f"note: {text}")

    def image(self, name: str, doing: str) -> None:
        pass

    def plan(self, nodes: list[str]) -> None:
        pass

    def node(self, name: str, state: str) -> None:
        pass

    def check(self, check: Check) -> None:
        pass


@dataclass
class Current:
    """The lab that is up now."""

    key: Key
    lab: DockerLab
    ours: bool
    """Whether it goes when it is not needed any more."""


class Labs:
    """Brings labs up when they are first asked for.

    Args:
        name: of the lab; None: one made from the topology's name and settings.
        keep: leave the last lab up at the end.
        suffix: of names that are made.
    """

    def __init__(self, name: str | None = None, *, keep: bool = False, suffix: str = "test") -> None:
        self.name = name
        self.suffix = suffix
        self.keep = keep
        self.current: Current | None = None

    def get(self, topology: str, settings: tuple[str, ...]) -> DockerLab:
        """The lab of a topology with these settings, whole and healthy.

        Raises:
            Unfit: the lab of the given name was up before, and is another one.
            UsageError: there is no such topology, or it has no such field.
            LabError: it does not come up, or not become whole.
        """
        key = (topology, settings)
        if self.current is not None and self.current.key == key:
            try:
                _make_whole(self.current.lab)
                return self.current.lab
            except LabError:
                if not self.current.ours:
                    raise
        self._drop()
        self.current = self._open(key)
        return self.current.lab

    def _open(self, key: Key) -> Current:
        from lab.topology.loader import load_topology

        wanted = load_topology(key[0], key[1])
        if self.name is not None and is_up(self.name):
            lab = open_lab(self.name)
            _check_fits(lab, wanted, key[1])
            _make_whole(lab)
            return Current(key, lab, ours=False)
        name = self.name or default_name(wanted.name, key[1], self.suffix)
        try:
            return Current(key, bring_up(name, wanted), ours=True)
        except LabError:
            if self.name is not None or not is_up(name):
                raise
        # Left by a session that was killed, and damaged or of an older topology: its name is ours.
        take_down(name)
        return Current(key, bring_up(name, wanted), ours=True)

    def _drop(self) -> None:
        current, self.current = self.current, None
        if current is None or not current.ours:
            return
        try:
            take_down(current.lab.name)
        except NetworkKept as error:  # what was measured is not the less worth for it
            Reporter().note(f"{error}\n{error.hint}")

    def close(self) -> None:
        """Take down what this session made. Idempotent."""
        if self.keep:
            self.current = None
        self._drop()


def _check_fits(lab: DockerLab, wanted: Topology, settings: tuple[str, ...]) -> None:
    """As ``lab run`` judges it: the topology's name, and the settings that were asked for."""
    from lab.scenario.loader import check_overrides

    if lab.topology.name != wanted.name:
        raise Unfit(f"lab {lab.name} was up already and runs {lab.topology.name}, not {wanted.name}")
    try:
        check_overrides(lab.topology, dict(text.split("=", 1) for text in settings), lab.name)
    except UsageError as error:
        raise Unfit(f"{error} (it was up already)") from error


def default_name(topology: str, settings: tuple[str, ...], suffix: str = "test") -> str:
    """``risk-prod-test``, with a few digits more for each other set of settings."""
    tail = f"-{hashlib.sha256(repr(settings).encode()).hexdigest()[:4]}" if settings else ""
    return f"{topology[:18].rstrip('-')}-{suffix}{tail}"


def is_up(name: str) -> bool:
    """Whether a lab of this name was brought up, whole or not."""
    return (state.lab_dir(name) / state.READY).exists()


def open_lab(name: str) -> DockerLab:
    """A lab that is up."""
    from lab.deploy.docker_driver import DockerLab

    return DockerLab.open(name)


def bring_up(name: str, topology: Topology) -> DockerLab:
    """Bring a lab up, or find it up."""
    from lab.deploy.up import up

    found = up(name, topology, Reporter(), timeout_s=UP_WITHIN_S)
    if not found.created:
        _make_whole(found.lab)
    return found.lab


def take_down(name: str) -> Any:
    """Remove a lab with all that it owns."""
    from lab.deploy.down import down

    return down(name)


def _make_whole(lab: DockerLab) -> None:
    """Undo what a killed run left, and wait until everything works."""
    from lab.deploy.readiness import wait_ready
    from lab.scenario.journal import heal_pending

    heal_pending(lab)
    wait_ready(lab, timeout_s=WHOLE_WITHIN_S)
