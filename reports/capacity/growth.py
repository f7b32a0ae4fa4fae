"""When the load reaches what is carried: growth, stated or fitted, with prediction intervals.

*Stated*, g per month: λ(t) = λ_now · (1 + g)^t, so that the runway is ln(λ_SLO / λ_now) / ln(1 + g).

*Fitted* to a history of (date, requests per second), as months' means of the logarithm, so that growth is a
rate:

- 3 to 11 months: least squares, log λ = a + b·t, with the prediction interval of a single observation
  (statsmodels ``OLS``, ``obs_ci``).
- 12 months and more: exponential smoothing with additive error and trend (statsmodels ``ETSModel``), whose
  intervals widen as level and trend go on wandering (Hyndman and others, *Forecasting with Exponential
  Smoothing*, 2008).

The month in which the knee is reached is a range: from where the upper bound of the load reaches the lower
bound of the knee, to where the lower bound of the load reaches the knee's upper. An end beyond the horizon is
open.
"""

from __future__ import annotations

import csv
import datetime as dt
import itertools
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from lab.errors import UsageError
from reports.findings import Value

LEAST_MONTHS = 3
SMOOTHED_MONTHS = 12
HORIZON = 120
"""Months that a forecast reaches at most."""
CONFIDENCE = 0.95
_RATE = re.compile(r"^\s*([-+]?[0-9.]+)\s*(%?)\s*$")


class Growth(Value):
    """Where the load stands and where it goes. Rates are requests per second, months count from 0 = now."""

    now: float
    begin: dt.date
    """The month of ``now``, its first day."""
    monthly: float
    """Growth per month as a share: stated, or of the fit's middle over its first year."""
    method: str
    middle: tuple[float, ...] = Field(repr=False)
    """Expected rate of each month from now to the horizon."""
    low: tuple[float, ...] = Field(repr=False)
    high: tuple[float, ...] = Field(repr=False)
    history: tuple[tuple[dt.date, float], ...] = ()
    notes: tuple[str, ...] = ()


class Reached(Value):
    """When a rate is reached. Months from now; None: not within the horizon."""

    earliest: float | None
    expected: float | None
    latest: float | None
    already: bool = False


def stated(now: float, monthly: float, begin: dt.date | None = None) -> Growth:
    """Constant growth. UsageError for growth of −100 % and less, or a rate that is not positive."""
    if not math.isfinite(monthly) or monthly <= -1:
        raise UsageError(
            f"growth of {100 * monthly:g} % a month leaves nothing",
            hint="Growth is more than -100 %, such as 5%.",
        )
    if monthly > 10:
        raise UsageError(f"growth of {100 * monthly:g} % a month", hint="5 % is 5% or 0.05.")
    if not 0 < now < math.inf:
        raise UsageError(f"the rate now has to be more than 0 requests per second, found {now:g}")
    line = tuple(now * (1 + monthly) ** month for month in range(HORIZON + 1))
    return Growth(
        now=now,
        begin=_first(begin or dt.date.today()),
        monthly=monthly,
        method="stated",
        middle=line,
        low=line,
        high=line,
        notes=("Growth is stated, not fitted: its range shows the knee's uncertainty alone.",),
    )


def parse_growth(text: str, now: float | None) -> Growth:
    """``5%``, ``0.05`` or a CSV file. UsageError says what is wrong, in a file with its line."""
    match = _RATE.match(text)
    if match:
        try:
            value = float(match[1])
        except ValueError:
            raise UsageError(f"{text!r} is no growth", hint="5%, 0.05, or a CSV file.") from None
        if now is None:
            raise UsageError("growth needs the rate that is carried now", hint="--now 300")
        return stated(now, value / 100 if match[2] else value)
    return fitted(read_history(Path(text)), now)


def read_history(path: Path) -> list[tuple[dt.date, float]]:
    """Rows (date, requests per second) of a CSV in the order of time. UsageError with file and line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{path}: the history cannot be read: {error}") from error
    rows = list(csv.reader(text.splitlines()))
    if not rows or [cell.strip().lower() for cell in rows[0]] != ["date", "requests_per_second"]:
        raise UsageError(f"{path}:1: expected the header date,requests_per_second")
    found: dict[dt.date, float] = {}
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != 2:
            raise UsageError(f"{path}:{line}: expected 2 fields, found {len(row)}")
        try:
            day = dt.date.fromisoformat(row[0].strip())
        except ValueError:
            raise UsageError(f"{path}:{line}: {row[0]!r} is no date such as 2026-11-01") from None
        try:
            rate = float(row[1])
        except ValueError:
            raise UsageError(f"{path}:{line}: {row[1]!r} is no number") from None
        if not 0 < rate < math.inf:
            raise UsageError(
                f"{path}:{line}: a rate is more than 0 requests per second, found {row[1].strip()}"
            )
        if day in found:
            raise UsageError(f"{path}:{line}: {day} stands here a second time")
        found[day] = rate
    return sorted(found.items())


def fitted(history: Sequence[tuple[dt.date, float]], now: float | None = None) -> Growth:
    """Growth from history. UsageError with fewer than 3 months, or with months that are missing."""
    months = _monthly(history)
    if len(months) < LEAST_MONTHS:
        raise UsageError(
            f"a history of {len(months)} month{'s' if len(months) != 1 else ''} shows no growth",
            hint=f"At least {LEAST_MONTHS} months, or a stated rate such as --growth 5%.",
        )
    first, last = months[0][0], months[-1][0]
    known = {month for month, _ in months}
    missing = [m for i in range(_between(first, last)) if (m := _later(first, i)) not in known]
    if missing:
        raise UsageError(
            f"the history has gaps: nothing for {', '.join(f'{m:%Y-%m}' for m in missing[:6])}"
            + (f" and {len(missing) - 6} more months" if len(missing) > 6 else ""),
            hint="Fill them in, or leave out what lies before the last gap.",
        )
    y = np.log([rate for _, rate in months])
    middle, low, high = _smooth(y) if len(y) >= SMOOTHED_MONTHS else _line(y)
    notes = []
    shift = 0.0
    if now is not None:
        shift = math.log(now) - middle[0]
        notes.append(f"The forecast is moved to the {now:g} requests per second that are stated for now.")
    lines = [tuple(np.exp(np.minimum(line + shift, 700)).tolist()) for line in (middle, low, high)]
    return Growth(
        now=now if now is not None else float(lines[0][0]),
        begin=last,
        monthly=float(math.exp((middle[12] - middle[0]) / 12) - 1),
        method="exponential smoothing" if len(y) >= SMOOTHED_MONTHS else "log-linear least squares",
        middle=lines[0],
        low=lines[1],
        high=lines[2],
        history=tuple(months),
        notes=tuple(notes),
    )


Line = np.ndarray[Any, np.dtype[np.float64]]


def _line(y: Line) -> tuple[Line, Line, Line]:
    from statsmodels.regression.linear_model import OLS

    def design(t: Line) -> Line:
        return np.column_stack([np.ones(len(t)), t])

    fit = OLS(y, design(np.arange(len(y), dtype=np.float64))).fit()
    ahead = np.arange(len(y) - 1, len(y) + HORIZON, dtype=np.float64)
    frame = fit.get_prediction(design(ahead)).summary_frame(alpha=1 - CONFIDENCE)
    middle = np.asarray(frame["mean"])
    return middle, np.asarray(frame["obs_ci_lower"]), np.asarray(frame["obs_ci_upper"])


def _smooth(y: Line) -> tuple[Line, Line, Line]:
    import pandas as pd
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    with warnings.catch_warnings():
        # An optimum at a bound (a history without noise) is reported as a failure to converge.
        warnings.simplefilter("ignore")
        fit = ETSModel(pd.Series(y), error="add", trend="add").fit(disp=False)
        frame = fit.get_prediction(start=len(y), end=len(y) + HORIZON - 1).summary_frame(alpha=1 - CONFIDENCE)
    last = float(np.asarray(fit.fittedvalues)[-1])
    middle, low, high = (np.asarray(frame[name]) for name in ("mean", "pi_lower", "pi_upper"))
    return tuple(np.concatenate([[last], line]) for line in (middle, low, high))  # type: ignore[return-value]


def reached(growth: Growth, knee: float, bounds: tuple[float, float] | None = None) -> Reached:
    """When the load reaches a rate, in months from now.

    Args:
        knee: the rate.
        bounds: lowest and highest that it may be.
    """
    low, high = bounds or (knee, knee)
    return Reached(
        earliest=_crossing(growth.high, low),
        expected=_crossing(growth.middle, knee),
        latest=_crossing(growth.low, high),
        already=growth.now >= knee,
    )


def _crossing(line: Sequence[float], level: float) -> float | None:
    """First moment at which the line, straight in its logarithm between months, reaches the level."""
    for month, (a, b) in enumerate(itertools.pairwise(line)):
        if a >= level:
            return float(month)
        if b >= level:
            return month + math.log(level / a) / math.log(b / a)
    return None


def headroom(now: float, knee: float) -> float:
    """1 − λ_now / λ_SLO: the share of the knee that is not used; negative beyond it."""
    return 1 - now / knee


def month_of(growth: Growth, months: float | None) -> str:
    """``2027-04``, or ``after 2036-11``."""
    if months is None:
        return f"after {_later(growth.begin, HORIZON):%Y-%m}"
    return f"{_later(growth.begin, math.floor(months + 1e-9)):%Y-%m}"


def _monthly(history: Sequence[tuple[dt.date, float]]) -> list[tuple[dt.date, float]]:
    by_month: dict[dt.date, list[float]] = {}
    for day, rate in history:
        by_month.setdefault(_first(day), []).append(math.log(rate))
    return [(month, math.exp(sum(logs) / len(logs))) for month, logs in sorted(by_month.items())]


def _first(day: dt.date) -> dt.date:
    return day.replace(day=1)


def _later(month: dt.date, count: int) -> dt.date:
    years, index = divmod(month.month - 1 + count, 12)
    return dt.date(month.year + years, index + 1, 1)


def _between(first: dt.date, last: dt.date) -> int:
    return (last.year - first.year) * 12 + last.month - first.month
