"""The bank's invariant: observations of a total that was not what had been paid in.

Observations are the sums that the workload's readers were shown, through the writer and the reader (a wrong
one fails as ``client:WrongTotal``), and the sum of the balances on every node at the end
(``audit/checksums.json``). It takes transfers that went well, sums seen through both, and the final sum of
every node to say 0.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from lab.record.reader import RecordReader
from reports.analysis.columns import text
from reports.analysis.model import Analysis
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

METRIC = "bank.total"
TRANSFER = "POST /transfers"
LOOKS = ("GET /total", "GET /total (reader)")
WRONG = "client:WrongTotal"
CHECKSUMS = "audit/checksums.json"


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    if (analysis.manifest.load or {}).get("workload") != "bank":
        return [nothing(METRIC, "1", "not run", "the run's workload was not the bank")]
    seen = _outcomes(record)
    transfers = seen[TRANSFER, "ok"]
    wrong = {name: seen[name, WRONG] for name in LOOKS if seen[name, WRONG]}
    right = {name: seen[name, "ok"] for name in LOOKS}
    told = record.json(CHECKSUMS)
    finals = {n: one.get("bank") for n, one in told.items()} if isinstance(told, dict) else {}
    off = {node: bank for node, bank in finals.items() if bank and str(bank[0]) != str(bank[1])}
    said = [f"{count} wrong at {name}" for name, count in wrong.items()]
    said += [f"{node} ends with {bank[1]} of {bank[0]}" for node, bank in off.items()]
    finding = Finding(
        metric=METRIC,
        unit="1",
        value=float(sum(wrong.values()) + len(off)),
        why="; ".join(said)
        or f"{sum(right.values()):,} sums and {len(finals)} nodes, after {transfers:,} transfers",
        evidence=("requests.parquet", CHECKSUMS),
        detail={"transfers": transfers, "observed": right, "wrong": wrong, "finals": finals},
    )
    if said:
        return [finding]
    missing = _missing(analysis, transfers, right, finals)
    if missing:
        return [finding.model_copy(update={"value": None, "status": "inconclusive", "why": missing})]
    return [finding]


def _missing(analysis: Analysis, transfers: int, right: dict[str, int], finals: dict[str, Any]) -> str:
    """What is missing to say that the invariant held; empty where nothing is."""
    said = [] if transfers else ["no transfer went well"]
    said += [f"no sum was seen at {name}" for name, count in right.items() if not count]
    blind = [name for name in analysis.databases if not finals.get(name)]
    if blind or not finals:
        said.append(f"the final sum of {', '.join(blind) or 'every node'} is not known")
    return "; ".join(said)


def _outcomes(record: RecordReader) -> Counter[tuple[str, str]]:
    """(name, outcome) → requests."""
    found: Counter[tuple[str, str]] = Counter()
    for batch in record.batches("requests", ("name", "outcome")):
        name, outcome = text(batch["name"]), text(batch["outcome"])
        pairs, counts = np.unique(np.stack([name.codes, outcome.codes]), axis=1, return_counts=True)
        for (n, o), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            if n >= 0 and o >= 0:
                found[name.words[n], outcome.words[o]] += count
    return found


CHECK = Check("bank", {METRIC: "1"}, run)
