"""Unit tests reach no other machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.network import loopback_only


@pytest.fixture(autouse=True)
def _no_outside_world() -> Iterator[None]:
    with loopback_only():
        yield
