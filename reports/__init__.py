"""Analysis, checks, charts and reports: from a run record to verdicts."""
