"""What works through which pool mode: the matrix that was run, beside PgBouncer's documentation.

A cell takes the worst of what was seen. Where the two clients did not really share a server connection (by
the server's process ids), or where it fails without a pooler as well, nothing was shown: *not run*.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lab.record.reader import RecordReader
from reports.charts import style
from reports.charts.scene import Drawing
from reports.experiments import Experiment, Outcome, Section, Table
from reports.findings import Finding
from reports.view import Headline

DOCUMENTATION = "https://www.pgbouncer.org/features.html"
MODES = ("session", "transaction", "statement")
DIRECT = "no pooler"
LEAST_FEATURES = 25

Said = Literal["yes", "never", ""]


@dataclass(frozen=True)
class Feature:
    """A row: in words, and what the documentation says of session and of transaction pooling."""

    title: str
    session: Said = ""
    transaction: Said = ""
    advice: str = ""


_SET = Feature(
    "SET of a session parameter", "yes", "never", "SET LOCAL in a transaction, or ALTER ROLE … SET"
)
FEATURES: dict[str, Feature] = {
    "set": _SET,
    "reset": Feature("RESET", "yes", "never", "SET LOCAL in a transaction"),
    "set-search-path": Feature(
        "SET search_path", "yes", "never", "ALTER ROLE … SET search_path, or full names"
    ),
    "set-statement-timeout": Feature(
        "SET statement_timeout", "yes", "never", "SET LOCAL, or ALTER ROLE … SET"
    ),
    "set-tracked": Feature("SET TimeZone (a parameter that PgBouncer tracks)", "yes", "yes"),
    "set-application-name": Feature("SET application_name (tracked)", "yes", "yes"),
    "set-config-session": Feature(
        "set_config(…, false): a tenant's id for row-level security", "yes", "never", "set_config(…, true)"
    ),
    "set-role": Feature("SET ROLE", "yes", "never", "SET LOCAL ROLE, or a login of its own"),
    "session-authorization": Feature("SET SESSION AUTHORIZATION", "yes", "never"),
    "session-characteristics": Feature(
        "SET SESSION CHARACTERISTICS … READ ONLY", "yes", "never", "BEGIN READ ONLY"
    ),
    "startup-options": Feature("options=-c … when connecting", "", "", "ALTER ROLE … SET"),
    "set-local": Feature("SET LOCAL", "", "", ""),
    "set-config-local": Feature("set_config(…, true)"),
    "isolation-level": Feature("SET TRANSACTION ISOLATION LEVEL"),
    "listen": Feature("LISTEN", "yes", "never", "a connection of its own, straight to the server"),
    "notify": Feature("NOTIFY", "yes", "yes"),
    "advisory-lock-session": Feature("Session advisory lock", "yes", "never", "pg_advisory_xact_lock"),
    "advisory-lock-transaction": Feature("Transaction advisory lock"),
    "temp-preserve": Feature(
        "Temporary table, PRESERVE ROWS (the default)", "yes", "never", "ON COMMIT DROP"
    ),
    "temp-delete-rows": Feature("Temporary table, ON COMMIT DELETE ROWS", "yes", "never", "ON COMMIT DROP"),
    "temp-drop": Feature("Temporary table, ON COMMIT DROP", "yes", "yes"),
    "cursor": Feature("Cursor without HOLD", "yes", "yes"),
    "cursor-with-hold": Feature(
        "Cursor WITH HOLD", "yes", "never", "keyset pages, or a cursor in a transaction"
    ),
    "prepare-sql": Feature("PREPARE and EXECUTE in SQL", "yes", "never", "the driver's prepared statements"),
    "prepare-protocol": Feature("Prepared statement of the protocol", "yes", "yes"),
    "deallocate-all": Feature("DEALLOCATE ALL, then a prepared statement of the protocol", "yes", ""),
    "discard-all": Feature("DISCARD ALL, then a prepared statement of the protocol", "yes", ""),
    "transaction": Feature("Transaction of several statements"),
    "savepoint": Feature("Savepoint"),
    "two-phase": Feature("Two-phase commit"),
    "row-lock": Feature("SELECT … FOR UPDATE, held across statements"),
    "multi-statement-query": Feature("Several statements in one simple query"),
    "pipeline": Feature("Pipeline mode"),
    "copy-in": Feature("COPY … FROM STDIN"),
    "copy-out": Feature("COPY … TO STDOUT"),
    "nextval": Feature("nextval"),
    "currval": Feature("currval", "", "", "INSERT … RETURNING"),
    "lastval": Feature("lastval", "", "", "INSERT … RETURNING"),
    "cancel": Feature("Cancelling a statement"),
    "large-object": Feature("Large objects"),
    "load": Feature("LOAD", "yes", "never", "session_preload_libraries"),
}
WORDS = {
    "works": "works",
    "fails loudly": "fails loudly",
    "leaks": "LEAKS to another client",
    "is lost": "is lost",
}
TONES = {"works": "good", "fails loudly": "unsure", "leaks": "bad", "is lost": "bad", "not run": ""}
COLOURS = {
    "works": style.GREEN,
    "fails loudly": style.ORANGE,
    "is lost": style.PURPLE,
    "leaks": style.RED,
    "not run": style.GRID,
}


@dataclass(frozen=True)
class Cell:
    """One feature through one mode."""

    outcome: str
    why: str


def matrix(record: RecordReader) -> dict[str, dict[str, Cell]]:
    """Feature → mode → what was found."""
    found: dict[str, dict[str, Cell]] = {}
    for cell in record.cells():
        for row in cell["result"].get("features", []):
            found.setdefault(row["feature"], {})[cell["name"]] = judged(cell["name"], row)
    for row in found.values():
        direct = row.get(DIRECT)
        if direct is not None and direct.outcome != "works":
            why = f"it does not work without a pooler either: {direct.why or direct.outcome}"
            row.update({mode: Cell("not run", why) for mode in row})
    return found


def judged(mode: str, row: dict[str, object]) -> Cell:
    """What one line of the program says, or why it shows nothing."""
    outcome, why = str(row["outcome"]), str(row["why"])
    if outcome == "works" and mode in MODES:
        if row["same"] is False:
            return Cell("not run", "the second client was not given the first one's server connection")
        if row["moved"] is False and mode != "session":
            return Cell("not run", "the first client was not moved to another server connection")
    return Cell(outcome, why)


def documented(feature: Feature, mode: str) -> Said:
    """What the documentation says of a mode; of statement pooling its table says nothing."""
    return feature.session if mode == "session" else feature.transaction if mode == "transaction" else ""


def differs(said: Said, outcome: str) -> bool:
    """Whether what was found is not what the documentation says."""
    if not said or outcome == "not run":
        return False
    return (said == "yes") != (outcome == "works")


def analyse(record: RecordReader) -> Outcome:
    found = matrix(record)
    keys = [key for key in FEATURES if key in found] + [key for key in found if key not in FEATURES]
    modes = [mode for mode in MODES if any(mode in row for row in found.values())]
    count = {mode: Counter(found[k][mode].outcome for k in keys if mode in found[k]) for mode in modes}
    other = [
        f"{_title(k)} in {mode} pooling: documented “{documented(FEATURES[k], mode)}”, "
        f"found “{found[k][mode].outcome}”"
        for k in keys
        for mode in modes
        if k in FEATURES
        and mode in found[k]
        and differs(documented(FEATURES[k], mode), found[k][mode].outcome)
    ]
    findings = tuple(
        Finding(
            metric=f"pool.compat.leaks.{mode}",
            unit="1",
            value=float(count[mode]["leaks"]),
            status=None if sum(count[mode].values()) >= LEAST_FEATURES else "inconclusive",
            why=f"of {sum(count[mode].values())} features {count[mode]['works']} work, "
            f"{count[mode]['fails loudly']} fail loudly, {count[mode]['leaks']} leak silently to another "
            f"client, "
            f"{count[mode]['is lost']} are lost silently, {count[mode]['not run']} could not be tried",
            evidence=("cells.parquet",),
            detail={"outcomes": dict(count[mode])},
        )
        for mode in modes
    )
    leaks = {mode: count[mode]["leaks"] for mode in modes}
    lead = (
        "Silent leaks to another client: "
        + ", ".join(f"{n} in {mode} pooling" for mode, n in leaks.items())
        + "."
    )
    headlines = tuple(
        Headline(
            f"{mode} pooling".capitalize(),
            f"{count[mode]['works']} of {sum(count[mode].values()) - count[mode]['not run']} work",
            f"{count[mode]['leaks']} leak silently, {count[mode]['fails loudly']} fail loudly, "
            f"{count[mode]['is lost']} lost",
            "bad" if count[mode]["leaks"] else "good",
        )
        for mode in modes
    )
    return Outcome(
        findings, lead, headlines, (_section(found, keys, modes), _compared(other), _details(found, keys))
    )


def _title(key: str) -> str:
    return FEATURES[key].title if key in FEATURES else key


def _section(found: dict[str, dict[str, Cell]], keys: list[str], modes: list[str]) -> Section:
    rows, tones = [], []
    for key in keys:
        feature = FEATURES.get(key, Feature(key))
        cells = [found[key].get(mode, Cell("not run", "")) for mode in modes]
        said = " / ".join(documented(feature, mode) or "–" for mode in ("session", "transaction"))
        bad = any(cell.outcome in ("leaks", "is lost") for cell in cells)
        rows.append(
            (
                feature.title,
                *(WORDS.get(c.outcome, c.outcome) for c in cells),
                said,
                feature.advice if bad else "",
            )
        )
        tones.append(("", *(TONES.get(c.outcome, "") for c in cells), "", ""))
    head = (
        "Feature",
        *(f"{mode} pooling" for mode in modes),
        "documented (session / transaction)",
        "instead",
    )
    text = (
        "Client A uses the feature. Client B, who knows nothing of it, is then given the very server "
        "connection that A had; meanwhile A is served by another one. Leaks: B saw or owned what A left, and "
        "nobody was told. Is lost: A no longer had it, and nobody was told. Fails loudly: an error. A cell "
        "shows the worst.",
    )
    return Section("matrix", "What works through which pool", text, (_picture(found, keys, modes),),
                   (Table(head, tuple(rows), tones=tuple(tones)),), ("cells.parquet",))  # fmt: skip


def _compared(other: list[str]) -> Section:
    text = [
        f"Documented: PgBouncer's feature map, {DOCUMENTATION}. It says “yes” or “never” of session and "
        "transaction pooling; “never” does not tell an error from a leak. Of statement pooling it says "
        "nothing, but that transactions of several statements are refused.",
        "; ".join(other) + "." if other else "Nowhere was anything else found than is documented.",
    ]
    return Section("documentation", "Where it differs from the documentation", tuple(text))


def _details(found: dict[str, dict[str, Cell]], keys: list[str]) -> Section:
    rows = tuple(
        (_title(key), mode, cell.outcome, cell.why)
        for key in keys
        for mode, cell in found[key].items()
        if cell.why and mode != DIRECT
    )
    return Section(
        "errors", "What the clients were told", (), (), (Table(("Feature", "mode", "found", "why"), rows),)
    )


def _picture(found: dict[str, dict[str, Cell]], keys: list[str], modes: list[str]) -> Drawing:
    """A coloured field a cell: which mode breaks what, at a glance."""
    height = 0.21 * len(keys) + 0.6
    figure, (axis,) = style.panels((height,))
    for y, key in enumerate(keys):
        for x, mode in enumerate(modes):
            cell = found[key].get(mode, Cell("not run", ""))
            axis.barh(-y, 0.96, left=x, height=0.86, color=COLOURS.get(cell.outcome, style.GRID), lw=0)
            ink = style.MUTED if cell.outcome == "not run" else style.FIXED_INK
            axis.text(x + 0.48, -y, cell.outcome, ha="center", va="center", fontsize=7.5, color=ink)
    axis.set_yticks(-np.arange(len(keys)), [_title(key) for key in keys])
    axis.set_xticks(np.arange(len(modes)) + 0.48, [f"{mode} pooling" for mode in modes])
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_ylim(-len(keys) + 0.4, 0.6)
    axis.set_xlim(0, len(modes))
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return Drawing("pool-compat", "Every cell was run. Grey: could not be tried here.", figure)


def print_matrix(path: Path, *, as_json: bool) -> int:
    """Write the report, print the matrix; exit code 0, or 4 where no feature was tried."""
    from rich.table import Table as Shown
    from rich.text import Text

    from lab import terminal
    from lab.errors import Exit
    from reports import pipeline

    record = RecordReader(path)
    found = matrix(record)
    page = pipeline.analyse_and_report(path, quiet=as_json).paths["html"]
    if as_json:
        rows = {k: {m: vars(cell) for m, cell in row.items()} for k, row in found.items()}
        terminal.print_json({"run": str(path), "features": rows, "html": str(page)})
        return int(Exit.MET if found else Exit.FAILED)
    modes = [mode for mode in MODES if any(mode in row for row in found.values())]
    table = Shown("feature", *modes, box=None, pad_edge=False)
    colours = {"works": "green", "fails loudly": "yellow", "leaks": "bold red", "is lost": "red"}
    for key, row in found.items():
        cells = [row[mode].outcome if mode in row else "" for mode in modes]
        table.add_row(_title(key), *(Text(text, style=colours.get(text, "dim")) for text in cells))
    console = terminal.out()
    console.print(table)
    console.print(str(page), soft_wrap=True, markup=False)
    return int(Exit.MET if found else Exit.FAILED)


EXPERIMENT = Experiment("pool-compat", tuple(f"pool.compat.leaks.{mode}" for mode in MODES), analyse)
