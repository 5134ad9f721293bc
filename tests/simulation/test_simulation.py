"""Random graphs, outcomes, orders, repeats and crashes: whatever happens, the rules hold and the run ends."""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.simulation import cases
from tests.simulation.world import World

# Read at import: tests themselves see no variable of ours.
SIMULATIONS = int(os.environ.get("PINFLOW_TEST_SIMULATIONS", "10000"))
CHUNK = 250


@pytest.mark.simulation
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SIMULATIONS, CHUNK))
def test_every_run_keeps_the_rules_and_ends(first: int) -> None:
    for seed in range(first, min(first + CHUNK, SIMULATIONS)):
        play(seed)


@pytest.mark.simulation
@pytest.mark.parametrize("seed", cases.kept())
def test_a_run_that_broke_a_rule_does_so_no_more(seed: int) -> None:
    play(seed)


@pytest.mark.simulation
@pytest.mark.parametrize("seed", [*range(20), *cases.kept()])
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    assert World(Random(seed)).simulate() == World(Random(seed)).simulate()


@pytest.mark.simulation
def test_the_worlds_meet_every_construct() -> None:
    met: set[str] = set()
    for seed in range(300):
        world = World(Random(seed))
        met |= {type(command).__name__ for command in world.simulate()}
        met |= {task["status"] for task in world.root.brain.snapshot()["tasks"]}
        met |= {"undo"} if world.root.undo_order else set()
        met |= {f"run {world.root.brain.snapshot()['status']}"}
    wanted = {
        "StartActivity",
        "RequestApproval",
        "StartTimer",
        "StartChild",
        "StartSlice",
        "FinishSlice",
        "AcquireSlot",
    }
    wanted |= {
        "CancelActivity",
        "CancelChild",
        "CancelSlice",
        "ReleaseSlot",
        "CloseApproval",
        "TellFamily",
        "undo",
    }
    wanted |= {"run COMPLETED", "run FAILED", "run CANCELLED", "run TIMED_OUT"}
    assert wanted <= met


def play(seed: int) -> None:
    try:
        World(Random(seed)).simulate()
    except Exception as error:
        raise AssertionError(
            f"seed {seed} breaks a rule; play it: python -m tests.simulation --first {seed} --seeds 1"
        ) from error
