"""Overrides of a topology as the ``field=value`` texts that the command line takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def override_texts(overrides: Mapping[str, Any]) -> list[str]:
    """``{"postgres.patroni.ttl": 30}`` → ``["postgres.patroni.ttl=30"]``, in the order given."""
    return [f"{field}={_text(value)}" for field, value in overrides.items()]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
