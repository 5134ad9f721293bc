"""What a change does at places where nothing was written: approvals that no longer stand before a task, secrets newly
used, hosts that `env` moves."""

from __future__ import annotations

from collections.abc import Iterator

from engine.core.contracts import Json
from engine.dsl.loader import Path
from engine.planning.difference import Difference
from engine.planning.guards import (
    approvals_before,
    dependencies,
    host_of,
    host_of_undo,
    secrets_of,
    secrets_of_definition,
)
from engine.planning.meaning import Meaning, TaskMeaning


def effects(before: Meaning, after: Meaning) -> Iterator[Difference]:
    """Differences that no single value shows."""
    yield from _bypassed(before, after)
    yield from _secrets(before, after)
    yield from _moved_hosts(before, after)


def _bypassed(before: Meaning, after: Meaning) -> Iterator[Difference]:
    """Approvals that are still there, and that a task no longer waits for; told where the way around begins."""
    stood, stand = approvals_before(before), approvals_before(after)
    lost = {path: stood.get(path, frozenset()) - stand[path] for path in after.tasks}
    for path, task in after.tasks.items():
        behind = frozenset[str]().union(
            *(lost[each] for each in (*dependencies(after, task), task.parent) if each)
        )
        for approval in sorted(lost[path] - behind):
            now = after.tasks.get(approval)
            if now is None or now.kind != "approval":
                continue  # its removal is told at the approval itself
            place: Path = (*task.place, "depends_on") if "depends_on" in task.data else task.place
            yield _effect(before, after, task, path, "APPROVAL_BYPASSED", now.id, None, place)


def _secrets(before: Meaning, after: Meaning) -> Iterator[Difference]:
    known = secrets_of_definition(before)
    told: set[str] = set()
    for path, task in after.tasks.items():
        old = before.tasks.get(path)
        for name in sorted(secrets_of(task.data) - (secrets_of(old.data) if old else set())):
            told.add(name)
            note = "SECRET_SPREAD" if name in known else "SECRET_ADDED"
            place = _where(task, name)
            inside = ".".join(map(str, place[len(task.place) :]))
            yield _effect(
                before, after, task, f"{path}.{inside}" if inside else path, note, None, name, place
            )
    for index, trigger in enumerate(after.top.get("triggers") or ()):
        signed = trigger.get("secret") if isinstance(trigger, dict) else None
        if isinstance(signed, str) and signed not in known | told:
            told.add(signed)
            where: Path = ("triggers", index, "secret")
            path = f"triggers.{trigger.get('id')}.secret"
            yield _of_definition(before, after, path, "SECRET_ADDED", signed, where)
    for name in sorted(secrets_of_definition(after) - known - told):
        yield _of_definition(before, after, "secrets", "SECRET_ADDED", name, ("secrets",))


def _where(task: TaskMeaning, secret: str) -> Path:
    """The first value of the task that uses the secret."""
    place: list[str | int] = []
    value = task.data
    while isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        found = next(((key, item) for key, item in pairs if secret in secrets_of(item)), None)
        if found is None:
            break
        place.append(found[0])
        value = found[1]
    return (*task.place, *place)


def _moved_hosts(before: Meaning, after: Meaning) -> Iterator[Difference]:
    """Calls whose URL is written as before, and that go elsewhere since a constant is another."""
    for path, task in after.tasks.items():
        old = before.tasks.get(path)
        if old is None:
            continue
        for host, inside in ((host_of, ("config", "url")), (host_of_undo, ("compensate", "config", "url"))):
            was, now = host(old, before), host(task, after)
            if was and now and was != now and _below(old.data, inside) == _below(task.data, inside):
                where = f"{path}.{'.'.join(inside)}"
                yield _effect(before, after, task, where, "TARGET_CHANGED", was, now, (*task.place, *inside))


def _below(value: Json, keys: tuple[str, ...]) -> Json:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _effect(
    before: Meaning, after: Meaning, task: TaskMeaning, path: str, note: str, old: str | None, new: str | None, place: Path
) -> Difference:  # fmt: skip
    return Difference(
        "effect", path, (), old, new, before, after, before.tasks.get(task.path), task, place, note
    )


def _of_definition(
    before: Meaning, after: Meaning, path: str, note: str, name: str, place: Path
) -> Difference:
    return Difference("effect", path, (), None, name, before, after, place=place, note=note)
