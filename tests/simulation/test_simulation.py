"""Random graphs, outcomes, orders, repeats and crashes: whatever happens, the rules hold and the run ends."""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.world import World

# Read at import: tests themselves see no variable of ours.
SIMULATIONS = int(os.environ.get("PINFLOW_TEST_SIMULATIONS", "200"))

# Seeds that once broke a rule; each stays.
BROKEN_ONCE: list[int] = []


@pytest.mark.simulation
@pytest.mark.timeout(60 + SIMULATIONS)
@settings(
    max_examples=SIMULATIONS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=SIMULATIONS <= 200,
)
@given(st.integers(min_value=0, max_value=2**63))
def test_every_run_keeps_the_rules_and_ends(seed: int) -> None:
    World(Random(seed)).simulate()


@pytest.mark.simulation
@pytest.mark.parametrize("seed", [*range(20), *BROKEN_ONCE])
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    assert World(Random(seed)).simulate() == World(Random(seed)).simulate()
