"""The benchmarks themselves: a small slice of them runs and gives rows. What they measure is never a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_quick_slice_gives_a_row_for_all_that_it_measures() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--only", "brain", "validate"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert "quick slice: its figures mean nothing" in done.stdout
    for what in ("brain, chain of 10 tasks", "pinflow validate, one file", "pinflow validate, 20 files"):
        assert f"| {what}" in done.stdout


def test_every_section_can_be_run() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    ).stdout
    modules = {
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if "async def measure" in path.read_text()
    }
    assert modules
    assert all(name in listed for name in modules)
