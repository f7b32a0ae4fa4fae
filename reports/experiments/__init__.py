"""Analyses of experiments: the module of this package named as the experiment defines ``EXPERIMENT``.

To add one, add a file: nothing else needs to change. It reads the run record only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lab.discovery import discover
from lab.record.reader import RecordReader
from reports.charts.scene import Drawing
from reports.findings import Finding
from reports.view import Headline


@dataclass(frozen=True)
class Table:
    """A table of the report. Cells are texts, escaped when written."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    """Columns that are aligned to the right."""
    note: str = ""
    tones: tuple[tuple[str, ...], ...] = ()
    """For each cell ``good``, ``bad``, ``unsure`` or nothing; empty: nothing anywhere."""


@dataclass(frozen=True)
class Section:
    """A part of the report: text, then pictures, then tables."""

    id: str
    title: str
    text: tuple[str, ...] = ()
    """Paragraphs."""
    drawings: tuple[Drawing, ...] = ()
    """Their ids must be unique within the report: they name its PNG files."""
    tables: tuple[Table, ...] = ()
    evidence: tuple[str, ...] = ()
    """Files of the run record."""


@dataclass(frozen=True)
class Outcome:
    """What an experiment found."""

    findings: tuple[Finding, ...] = ()
    """They take the place of findings of the same metric that the checks make of the whole run."""
    lead: str = ""
    """The answer in one or two sentences."""
    headlines: tuple[Headline, ...] = ()
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """How the record of an experiment is analysed."""

    name: str
    """As in ``manifest.scenario``."""
    metrics: tuple[str, ...]
    """Ids of its findings, which targets may name."""
    analyse: Callable[[RecordReader], Outcome]
    """Called with matplotlib set to the lab's style."""


def experiments() -> dict[str, Experiment]:
    """Every experiment by its name. Two of one name are a programming error (ValueError)."""
    return discover(__name__, "EXPERIMENT", Experiment, lambda one: one.name)
