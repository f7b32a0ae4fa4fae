"""Bench (e): analysis and report of large records: seconds and peak memory.

Records of 1 and 10 million requests are made up (``tests/synthetic.py``: 1,000 requests and 100 ledger
writes a second with all metrics, 17 minutes and 2 h 47 min long, 3 trials), and each is analysed and reported
by a process of its own, as ``lab report`` does it. Peak memory is that process's greatest resident set.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.bench.figure import Figure
from lab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
SIZES = (1_000_000, 10_000_000)
RATE = 1000
SECONDS_AIM = 60.0
MEMORY_AIM = 1.5 * 2**30
GROWTH_AIM = 1.1
"""Ten times the samples may take eleven times the time: linear, with some room for noise."""
TRIALS_S = 155
"""What three trials of the made-up record take beside its steady state."""

_MAKE = """
import sys
from pathlib import Path
from tests.synthetic import make_record
make_record(Path(sys.argv[1]), requests=int(sys.argv[2]), seconds=float(sys.argv[3]))
"""
_REPORT = """
import json, resource, sys, time
from pathlib import Path
began = time.monotonic()
from reports.pipeline import analyse_and_report
report = analyse_and_report(Path(sys.argv[1]), quiet=True)
took = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "seconds": took,
    "cpu_seconds": used.ru_utime + used.ru_stime,
    "peak_bytes": used.ru_maxrss * 1024,
    "html_bytes": report.paths["html"].stat().st_size,
}))
"""


def measure(requests: int, folder: Path) -> dict[str, Any]:
    """Seconds and peak bytes of analysing and reporting a made-up record of so many requests."""
    run = folder / f"bench-{requests}"
    seconds = max(20.0, requests / RATE - TRIALS_S)
    _python(_MAKE, str(run), str(requests), str(seconds))
    found: dict[str, Any] = json.loads(_python(_REPORT, str(run)).splitlines()[-1])
    return found | {"requests": requests}


def _python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if done.returncode:
        raise LabError(f"the bench of the analysis failed: {done.stderr.strip()[-600:]}")
    return done.stdout


def run(sizes: Sequence[int] = SIZES, say: Callable[[str], None] = lambda _: None) -> list[Figure]:
    """Seconds and peak memory for the largest size, and how time grew from the smallest."""
    results = []
    with tempfile.TemporaryDirectory(prefix="pglab-bench-") as folder:
        for size in sizes:
            say(f"analysis: a record of {size:,} requests")
            results.append(measure(size, Path(folder)))
    return figures(results)


def figures(results: Sequence[dict[str, Any]]) -> list[Figure]:
    """Figures from measurements, smallest record first."""
    first, last = results[0], results[-1]
    times = last["requests"] / first["requests"]
    # By CPU time: on a shared machine the clock on the wall measures the neighbours, too.
    growth = (last["cpu_seconds"] / first["cpu_seconds"]) / times if len(results) > 1 else None
    said = f"{last['requests']:,} requests"
    detail = {"runs": list(results)}
    return [
        Figure(
            name="analysis.seconds",
            value=round(last["seconds"], 2),
            unit="s",
            aim=f"≤ {SECONDS_AIM:g}",
            better="less",
            holds=last["seconds"] <= SECONDS_AIM,
            note=said,
            detail=detail,
        ),
        Figure(
            name="analysis.memory",
            value=round(last["peak_bytes"] / 2**30, 3),
            unit="GiB",
            aim="≤ 1.5",
            better="less",
            holds=last["peak_bytes"] <= MEMORY_AIM,
            note=said,
            detail=detail,
        ),
        Figure(
            name="analysis.growth",
            value=None if growth is None else round(growth, 3),
            unit="CPU time ratio ÷ size ratio",
            aim=f"≤ {GROWTH_AIM:g}",
            better="less",
            holds=None if growth is None else growth <= GROWTH_AIM,
            note=f"{first['requests']:,} → {last['requests']:,} requests",
            detail=detail,
        ),
    ]
