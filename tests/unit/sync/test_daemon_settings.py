"""What the daemon refuses to start with."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.errors import Misconfigured
from engine.settings import Settings
from engine.sync.daemon import serve_sync


@pytest.mark.parametrize("place", ["a-file", "a-file/below", "/proc/nowhere"])
async def test_a_data_folder_that_cannot_hold_mirrors_is_told_at_the_start(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(Misconfigured, match="PINFLOW_DATA_DIR"):
        await serve_sync(Settings(data_dir=tmp_path / place), asyncio.Event())


async def test_a_machine_without_git_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match="git is not on the PATH"):
        await serve_sync(Settings(data_dir=tmp_path), asyncio.Event())
