"""Auto-pause of a serverless database against its version and its least capacity.

Source: Amazon Aurora user guide, "Scaling to Zero ACUs with automatic pause and resume" and "Aurora
Serverless v2 capacity": the least capacity has to be 0 ACU, which Aurora PostgreSQL offers from 13.15, 14.12,
15.7 and 16.3 on; API ServerlessV2ScalingConfiguration: idle for 300 to 86400 s.
"""

from __future__ import annotations

from reports.findings import Verdict
from reports.paper import Paper, Rule, figure, holds

METRIC = "acu.auto_pause_possible"
SINCE = {13: 15, 14: 12, 15: 7, 16: 3}
"""Major version → the first minor one with auto-pause; later major versions have it from their first on."""
IDLE_S = (300.0, 86_400.0)


def run(paper: Paper) -> list[Verdict]:
    if paper.stated.auto_pause_s is None:
        return []
    why = obstacles(paper)
    said = "; ".join(why) or "least capacity, version and idle time allow it"
    return holds(paper, figure(METRIC, "%", 0.0 if why else 100.0, said))


def obstacles(paper: Paper) -> list[str]:
    """Why the database cannot pause; empty where it can."""
    found = []
    capacities = [node.acu.minimum for node in paper.topology.postgres.nodes if node.acu is not None]
    if not capacities:
        found.append("no instance is serverless")
    elif min(capacities) > 0:
        found.append(f"the least capacity is {min(capacities):g} ACU, it has to be 0")
    if not _has_it(paper.topology.postgres.version):
        since = ", ".join(f"{major}.{minor}" for major, minor in SINCE.items())
        found.append(f"version {paper.topology.postgres.version} does not have it (from {since} on)")
    idle = paper.stated.auto_pause_s
    if idle is not None and not IDLE_S[0] <= idle <= IDLE_S[1]:
        found.append(f"an idle time of {idle:g} s is outside {IDLE_S[0]:g} to {IDLE_S[1]:g} s")
    return found


def _has_it(version: str) -> bool:
    major, _, minor = version.partition(".")
    if not major.isdecimal():
        return False
    if int(major) > max(SINCE):
        return True
    # A major version alone may be any of its minor ones: the newest has it.
    return int(major) in SINCE and (not minor.isdecimal() or int(minor) >= SINCE[int(major)])


RULE = Rule("auto-pause", "auto-pause against version and least capacity", {METRIC: "%"}, run)
