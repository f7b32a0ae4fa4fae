"""The plan of a run on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lab.scenario.outline import Line, outline
from lab.scenario.plan import Plan, estimate_s


def plan_table(plan: Plan, *, seed_known: bool) -> Iterator[RenderableType]:
    """What comes before, the steps, what comes after."""
    scenario = plan.scenario
    trials = f"{plan.trials} trial{'s' if plan.trials != 1 else ''}" if plan.trials else "no fault"
    yield Text.assemble((scenario.title, "bold"), f"  ({scenario.name} on {plan.topology.name}, {trials})")
    yield Text(
        f"load {scenario.load.workload}, {scenario.load.rate:g} requests/s; "
        f"whole and healthy within {scenario.settle_within:g} s; steady state {scenario.settle:g} s"
    )
    if plan.not_run:
        yield Text(f"not run: {plan.not_run}", "yellow")
        return
    if plan.trials:
        phases = ", ".join(f"{phase:.2f}" for phase in plan.phases_s[:6])
        more = " …" if len(plan.phases_s) > 6 else ""
        said = f"{phases}{more} s" if seed_known else "random over Patroni's loop"
        yield Text(f"each trial: settle, wait ({said}), then")
        yield _table(outline(plan))
        yield Text(
            f"window {plan.window_s:g} s after the first fault ({plan.longest_s:g} s if every wait is long); "
            f"then healing, whole again within {scenario.recovery.redundant_within:g} s"
        )
    if plan.predicted:
        yield Text(
            f"predicted RTO of writes: {plan.predicted['best']:.1f} to {plan.predicted['worst']:.1f} s"
        )
    yield Text(
        f"about {estimate_s(plan):.0f} s in all; what runs in the lab ends by itself after "
        f"{plan.deadline_s:.0f} s"
    )


def _table(lines: list[Line]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "at", "does", "target", "nodes", "healed", "watched"):
        table.add_column(name, justify="right" if name in ("step", "at", "watched") else "left")
    for line in lines:
        at = f"{line.earliest_s:g} s"
        if line.latest_s > line.earliest_s:
            at = f"{line.earliest_s:g} to {line.latest_s:g} s"
        nodes = ", ".join(line.nodes) if line.certain else f"of {', '.join(line.nodes)}"
        needs = f" (needs {', '.join(line.needs)})" if line.needs else ""
        watched = f"{line.watched_s:g} s" if line.watched_s is not None else ""
        table.add_row(
            str(line.step), at, f"{line.does}{needs}", line.target or "", nodes, line.healed, watched
        )
    return table
