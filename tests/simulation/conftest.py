"""How many simulations to run, and their marker."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "simulation: random runs of the brain; `make simulate` plays many more"
    )
