"""One figure of the bench."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Figure(BaseModel):
    """A measured number with its aim.

    ``aim`` is a sentence such as ``≤ 1.2``; ``holds`` is whether the value meets it, None where the
    figure could not be measured (then ``value`` is None and ``note`` says why) or has no aim.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float | None
    unit: str
    aim: str
    better: Literal["less", "more"]
    holds: bool | None
    note: str = ""
    detail: dict[str, Any] = {}
    """Raw repetitions, so that a reader can judge the spread."""
