"""``pytest scenarios/ --topology risk-prod`` runs these scenarios as tests (docs/chaos-in-ci.md)."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:  # noqa: ARG001
    # Not ``pytest_plugins``: pytest forbids that below its root, as in `pytest .`.
    pluginmanager.import_plugin("lab.pytest_plugin")
