"""`pinflow demo` shows what it claims, and says so when a claim does not hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.cli.demo import ClaimFailed, Demo
from tests.support.stack import PINFLOW, environment

pytestmark = pytest.mark.timeout(600)


def test_the_demo_holds_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [PINFLOW, "demo"],
        capture_output=True,
        text=True,
        env=environment() | {"TMPDIR": "/tmp"},
        cwd=tmp_path,
        timeout=580,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 14 claims hold." in done.stdout
    for words in ("old definition and the old function code", "new definition and the new function code"):
        assert words in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_claim_that_does_not_hold_is_an_error_with_its_evidence(tmp_path: Path) -> None:
    with pytest.raises(ClaimFailed, match="two and two are five") as caught:
        Demo(tmp_path)._claim("two and two are five", False, {"sum": 4})
    assert '"sum": 4' in caught.value.hint
