"""Backups: the loss that their interval allows, and how long a managed service keeps them.

A backup of an interval T that takes a time d to make allows a loss of T + d: data written after one
was begun is in the next one only, which is not there before it is complete. d is not known on paper, so the
figure is T, and a promise of *less than* T cannot hold.

Sources: Amazon RDS user guide, "Restoring a DB instance to a specified time" (transaction logs are uploaded
every five minutes) and "Working with backups" (automated backups are kept 35 days at most).
"""

from __future__ import annotations

from reports.findings import Verdict
from reports.paper import Paper, Rule, figure, holds, implied

LOG_UPLOAD_S = 300.0
MOST_RETENTION_D = 35.0
METRICS = {
    "backup.rpo_on_paper": "h",
    "archive.rpo_on_paper": "d",
    "pitr.rpo_on_paper": "s",
    "backup.retention_allowed": "d",
}


def run(paper: Paper) -> list[Verdict]:
    stated = paper.stated
    found: list[Verdict] = []
    if (hours := stated.backup_interval_h) is not None:
        said = (
            f"a backup every {hours:g} h allows a loss of {hours:g} h and the time that it takes to make one"
        )
        found += holds(paper, figure("backup.rpo_on_paper", "h", hours, said))
    if (days := stated.archive_interval_d) is not None:
        said = (
            f"an archive every {days:g} d allows a loss of {days:g} d and the time that it takes to make one"
        )
        found += holds(paper, figure("archive.rpo_on_paper", "d", days, said))
    if (kept := stated.retention_d) is not None:
        said = f"{kept:g} d stated; the service keeps automated backups {MOST_RETENTION_D:g} d at most"
        found += holds(paper, figure("backup.retention_allowed", "d", min(kept, MOST_RETENTION_D), said))
    return found + _point_in_time(paper)


def _point_in_time(paper: Paper) -> list[Verdict]:
    stated = paper.stated
    seconds = LOG_UPLOAD_S
    said = f"logs are uploaded every {LOG_UPLOAD_S:g} s, so that much and the upload may be lost"
    if stated.pitr is False or stated.pitr is None:
        if stated.backup_interval_h is None or stated.pitr is None:
            return []
        seconds = stated.backup_interval_h * 3600
        said = f"no continuous archiving, a backup every {stated.backup_interval_h:g} h"
    finding = figure("pitr.rpo_on_paper", "s", seconds, said)
    return [implied(target, finding) for target in paper.promised("pitr.rpo")]


RULE = Rule("backups", "intervals and retention of backups against the promised loss", METRICS, run)
