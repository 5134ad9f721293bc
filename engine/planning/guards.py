"""What stands behind what: the approvals that a task waits for, the secrets that it uses, the host that it calls."""

from __future__ import annotations

import re
from typing import Final

from engine.core.contracts import Json
from engine.dsl.templates import Slot, TemplateSyntaxError, split
from engine.planning.meaning import Meaning, TaskMeaning, expressions_of

_SECRET: Final = re.compile(r"(?<![\w.])secrets\.([A-Za-z_][A-Za-z0-9_]*)")
_AUTHORITY: Final = re.compile(r"[/?#\\]")
_COMPOSITE: Final = frozenset({"map", "loop", "group"})
_ENV: Final = re.compile(r"env\.([A-Za-z_][A-Za-z0-9_]*)")


def secrets_of(value: Json) -> set[str]:
    """Names of the secrets that the expressions of a value use."""
    return {name for src in expressions_of(value) for name in _SECRET.findall(src)}


def secrets_of_definition(meaning: Meaning) -> set[str]:
    """Names of all secrets that a definition declares or uses, those of its triggers included."""
    found = set(_names(meaning.top.get("secrets")))
    for trigger in meaning.top.get("triggers") or ():
        if isinstance(trigger, dict) and isinstance(trigger.get("secret"), str):
            found.add(trigger["secret"])
    for task in meaning.tasks.values():
        found |= secrets_of(task.data)
    return found


def _names(value: Json) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def host_of(task: TaskMeaning, meaning: Meaning) -> str:
    """The scheme and host that an http_request calls, as far as they are written out; "" for other tasks."""
    return _host(task.data, meaning)


def host_of_undo(task: TaskMeaning, meaning: Meaning) -> str:
    """The same of the call that undoes the task, "" if none does."""
    undo = task.data.get("compensate")
    return _host(undo, meaning) if isinstance(undo, dict) else ""


def _host(call: dict[str, Json], meaning: Meaning) -> str:
    config = call.get("config")
    if call.get("activity_type") != "http_request" or not isinstance(config, dict):
        return ""
    url = config.get("url")
    if not isinstance(url, str):
        return ""
    url = _with_constants(url, meaning)
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url  # the whole of it comes from an expression
    if "${{" in rest.partition("/")[0]:
        return f"{scheme.lower()}://{rest[: rest.find('}}') + 2]}"
    host = _AUTHORITY.split(rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{scheme}://{host}".lower()


def _with_constants(url: str, meaning: Meaning) -> str:
    """The URL with `env` put in, where a constant stands alone in its expression."""
    try:
        parts = split(url)
    except TemplateSyntaxError:
        return url
    told = []
    for part in parts:
        if isinstance(part, Slot):
            found = _ENV.fullmatch(part.src)
            constant = meaning.env.get(found[1]) if found else None
            told.append(constant if isinstance(constant, str) else f"${{{{ {part.src} }}}}")
        else:
            told.append(part)
    return "".join(told)


def approvals_before(meaning: Meaning) -> dict[str, frozenset[str]]:
    """For each task, by path, the paths of the approvals without which it does not run."""
    found: dict[str, frozenset[str]] = {}
    for path in meaning.tasks:
        _before(meaning, path, found)
    return found


def _before(meaning: Meaning, path: str, found: dict[str, frozenset[str]]) -> frozenset[str]:
    # A walk with a stack of its own: a chain may be as long as the definition, and may be a ring in an invalid one.
    stack = [path]
    visiting: set[str] = set()
    while stack:
        current = stack[-1]
        task = meaning.tasks[current]
        wanted = [each for each in (*dependencies(meaning, task), task.parent) if each and each not in found]
        wanted = [each for each in wanted if each not in visiting]
        if wanted and current not in visiting:
            visiting.add(current)
            stack.extend(wanted)
            continue
        stack.pop()
        if current not in found:
            found[current] = _own(meaning, task, found)
        visiting.discard(current)
    return found[path]


def _own(meaning: Meaning, task: TaskMeaning, found: dict[str, frozenset[str]]) -> frozenset[str]:
    around = found.get(task.parent, frozenset())
    run_on = task.data.get("run_on", "success")
    if run_on in ("failure", "always"):
        return around
    behind = [found.get(path, frozenset()) | _inside(meaning, path) for path in dependencies(meaning, task)]
    if not behind:
        return around
    kept = frozenset.intersection(*behind) if run_on == "any_success" else frozenset[str]().union(*behind)
    return around | kept


def _inside(meaning: Meaning, path: str) -> frozenset[str]:
    """The approvals whose "no" keeps what stands behind a task from running: the task itself, or some inside of it."""
    if _stops(meaning.tasks[path]):
        return frozenset({path})
    if meaning.tasks[path].kind not in _COMPOSITE:
        return frozenset()
    below = f"{path}."
    return frozenset(
        inner
        for inner, task in meaning.tasks.items()
        if inner.startswith(below) and _stops(task) and _fails_through(meaning, task, path)
    )


def _fails_through(meaning: Meaning, task: TaskMeaning, outer: str) -> bool:
    """Whether a failure of a task is one of the task `outer` around it, and of what stands behind that."""
    around = task.parent
    while around:
        data = meaning.tasks[around].data
        if data.get("continue_on_failure") or data.get("tolerated_failures"):
            return False
        if around == outer:
            return True
        around = meaning.tasks[around].parent
    return False


def dependencies(meaning: Meaning, task: TaskMeaning) -> list[str]:
    """The paths of the tasks that a task waits for."""
    named = (f"{task.scope}.{name}" for name in _names(task.data.get("depends_on")))
    return [path for path in named if path in meaning.tasks]


def _stops(task: TaskMeaning) -> bool:
    """Whether a "no" of this approval keeps what stands behind it from running."""
    config = task.data.get("config")
    on_reject = config.get("on_reject") if isinstance(config, dict) else None
    return task.kind == "approval" and not task.data.get("continue_on_failure") and on_reject != "continue"
