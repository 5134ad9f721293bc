"""Starts of what is live, with inputs that the live version itself makes: what triggers do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.core.contracts import Json
from engine.errors import Unavailable
from engine.registry.workflow_registry import WorkflowRegistry
from engine.services.callers import Caller
from engine.services.inputs import canonical
from engine.services.starts import Ask, Begun, Started, Starts, request_hash

_MOVES = 20
"""Merges that a start bears to come in between."""


class _NotWanted(Exception):
    """The live version does not want a run."""


class LiveStarts:
    """Begins a run of the version that is live at that very moment."""

    def __init__(self, registry: WorkflowRegistry, starts: Starts) -> None:
        self._registry = registry
        self._starts = starts

    async def start(
        self,
        caller: Caller,
        workflow: str,
        inputs_of: Callable[[Json], dict[str, Json] | None],
        *,
        key: str,
        trigger: Json,
    ) -> Started | None:
        """Start a run with the inputs that `inputs_of` makes of the live compiled form; None if it makes none.

        `key` alone tells a repeat, whatever was merged meanwhile.  Raises as any start does, and what `inputs_of` raises.
        """
        ask = Ask(caller, {}, key, request_hash(key), trigger=trigger)
        try:
            return await self._starts.once(ask, lambda: self._begin(ask, workflow, inputs_of))
        except _NotWanted:
            return None

    async def _begin(
        self, ask: Ask, workflow: str, inputs_of: Callable[[Json], dict[str, Json] | None]
    ) -> Begun:
        for _ in range(_MOVES):
            version = await self._registry.pin(workflow)
            inputs = inputs_of(await self._registry.compiled(version.pin.compiled_digest))
            if inputs is None:
                raise _NotWanted
            canonical(inputs, "inputs")
            begun = await self._starts.write(replace(ask, inputs=inputs), version, if_live=True)
            if begun is not None:  # else something was merged between the look and the start
                return begun
        raise Unavailable(f"{workflow} is being changed all the time", retry_after=1)
