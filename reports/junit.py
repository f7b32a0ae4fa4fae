"""Verdicts as JUnit XML, for the test tab of a CI system: one test case a promise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from reports import view
from reports.analysis.model import Analysis
from reports.findings import Verdict

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """Text without the characters that XML 1.0 does not allow, in whatever escape."""
    return _FORBIDDEN.sub("�", text)


def junit(analysis: Analysis, verdicts: Sequence[Verdict]) -> str:
    """The XML document.

    *not met* is a failure; *inconclusive*, *not run* and *invalid* are skipped, with the reason: a check that
    could not decide is never green. The run's length is the suite's time.
    """
    head = analysis.manifest
    failed = sum(verdict.status == "not met" for verdict in verdicts)
    skipped = sum(verdict.status not in ("met", "not met") for verdict in verdicts)
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(failed),
        "errors": "0",
        "skipped": str(skipped),
        "time": f"{analysis.duration_s:.3f}",
    }
    root = ET.Element("testsuites", {"name": "lab", **counts})
    name = clean(f"{head.topology}.{head.scenario}")
    suite = ET.SubElement(
        root, "testsuite", {"name": name, "timestamp": _timestamp(head.started_wall), **counts}
    )
    _properties(suite, {"run": analysis.run, "seed": str(head.seed), "fault": head.fault or "none"})
    share = analysis.duration_s / len(verdicts) if verdicts else 0.0
    for verdict in verdicts:
        case = ET.SubElement(
            suite,
            "testcase",
            {
                "classname": name,
                "name": clean(
                    f"{verdict.target.id}: {view.about(verdict.target)}: {view.quote(verdict.target)}"
                ),
                "time": f"{share:.3f}",
            },
        )
        measured = view.measured(verdict)
        _properties(
            case,
            {
                "status": verdict.status,
                "metric": verdict.target.metric,
                "measured": measured,
                "limit": view.limit(verdict),
                "trials": str(view.trials_of(verdict.finding)),
                "stand-in": verdict.target.stand_in or "none",
            },
        )
        if verdict.status == "not met":
            failure = ET.SubElement(case, "failure", {"message": clean(verdict.why), "type": "not met"})
            failure.text = clean(
                f"{verdict.target.quote}\nmeasured {measured}, promised {view.limit(verdict)}\n{verdict.why}"
            )
        elif verdict.status != "met":
            ET.SubElement(case, "skipped", {"message": clean(f"{verdict.status}: {verdict.why}")})
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _properties(parent: ET.Element, of: dict[str, str]) -> None:
    box = ET.SubElement(parent, "properties")
    for name, value in of.items():
        ET.SubElement(box, "property", {"name": name, "value": clean(value)})


def _timestamp(wall: str) -> str:
    """RFC 3339 without fraction and zone, as the schema that most CI systems read has it."""
    return clean(wall)[:19]
