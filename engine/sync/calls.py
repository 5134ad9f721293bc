"""Whether what a commit would leave live fits together: the children that are called, and what they are given.

In proportion to the change: looked at are the definitions that changed, those that call one of them, and what these
may start.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from engine.dsl.calls import Definition, Misfit, find_misfits
from engine.registry.workflow_registry import WorkflowRegistry
from engine.storage import registry
from engine.storage.database import Connection, Database
from engine.storage.rows import Record
from engine.sync.plan import CheckedFile


async def misfits(
    database: Database,
    definitions: WorkflowRegistry,
    source_id: int,
    files: Sequence[CheckedFile],
    retires: Sequence[str],
) -> tuple[Misfit, ...]:
    """What does not fit, each in the caller's file. `files` are new or changed, and without problems of their own."""
    changed = {file.content.name: file for file in files}
    gone = {*changed, *retires}
    if not gone:
        return ()
    async with database.read() as connection:
        callers = [
            row
            for row in await registry.live_callers(connection, source_id, sorted(gone))
            if row["name"] not in gone
        ]
        involved, live = await _reached(connection, source_id, changed, gone, callers)
    if not involved and not live:
        return ()
    together = [_new(changed[name]) for name in sorted(involved)]
    together += [await _live(definitions, live[name]) for name in sorted(live)]
    return tuple(await asyncio.to_thread(find_misfits, together))


async def _reached(
    connection: Connection,
    source_id: int,
    changed: dict[str, CheckedFile],
    gone: set[str],
    callers: Sequence[Record],
) -> tuple[set[str], dict[str, Record]]:
    """All that calls lead to: names of changed definitions, and rows of live ones."""
    involved = {name for name, file in changed.items() if file.content.calls}
    live = {row["name"]: row for row in callers}
    asked = {*involved, *live}
    wanted = {
        call["workflow"]
        for calls in (*(changed[name].content.calls for name in involved), *(row["calls"] for row in callers))
        for call in calls
    }
    while wanted := wanted - asked:
        asked |= wanted
        involved |= wanted & changed.keys()
        names = sorted(wanted - gone)
        rows = await registry.live_touched(connection, source_id, paths=[], names=names) if names else []
        live |= {row["name"]: row for row in rows}
        found = [
            *(changed[name].content.calls for name in wanted & changed.keys()),
            *(row["calls"] for row in rows),
        ]
        wanted = {call["workflow"] for calls in found for call in calls}
    return involved, live


def _new(file: CheckedFile) -> Definition:
    content = file.content
    return Definition(json.loads(content.compiled or b"null"), content.path, content.text or b"")


async def _live(definitions: WorkflowRegistry, row: Record) -> Definition:
    """One that did not change. Its text is needed only where a problem may stand: in what calls others."""
    text = await definitions.content(row["digest"]) if row["calls"] else b""
    return Definition(await definitions.compiled(row["compiled_digest"]), row["path"], text)
