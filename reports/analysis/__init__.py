"""From a run record to numbers: ``analyse(record) -> Analysis``. Reads the record only."""

from reports.analysis.analyse import analyse, to_json
from reports.analysis.model import Analysis

__all__ = ["Analysis", "analyse", "to_json"]
