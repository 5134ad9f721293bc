"""The offline driver of the brain: plays the cases of a definition in skipped time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.dsl.activity_types import ActivityTypes
from engine.testing.cases import Case
from engine.testing.family import Family
from engine.testing.stage import Stage
from engine.testing.traces import Trace


class Driver:
    """Plays the cases of one definition. `children` are the compiled forms of what it may start, by name."""

    def __init__(
        self,
        compiled: dict[str, Any],
        types: ActivityTypes,
        children: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        self._stage = Stage(compiled, types, children or {})

    def play(self, case: Case) -> Trace:
        """One run, from its start to its end. Never waits, touches nothing outside, gives the same every time."""
        if case.ignored:
            return Trace(status="IGNORED")
        return Family(self._stage, case).play()
