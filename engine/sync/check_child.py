"""The child process that reads definitions and modules of functions: a hostile file can end it, and nothing else.

It speaks on its stdin and stdout, one answer for each question, in order:
- question: what it is about, lengths and a flag (see `check_frames`), the file's path (UTF-8), its text;
- answer: lengths, a JSON head (see `_answer`), the compiled definition (empty if there are problems); of a module of
  functions, the names that it has.
Before the first question it answers once with an empty head: it is ready.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import IO, Any

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.check_functions import functions_called, names_of
from engine.dsl.checking import check
from engine.errors import Problem
from engine.sync.check_frames import ANSWER, MODULE, QUESTION
from engine.sync.problems import CHECK_FAILED

_MEMORY = 1536 * 1024 * 1024
"""Bytes of address space; the interpreter and its libraries take a third of it."""
_BUFFER = 256 * 1024
_FUNCTION_TYPE = "python_function"


_SAMPLE = b"""\
name: sample
inputs: {type: object, properties: {count: {type: integer}}}
tasks:
  - {id: first, activity_type: http_request, config: {method: GET, url: "https://example.test/${{ inputs.count }}"}}
"""


def _limit() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    memory = _MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard)
    for what, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(what, (value, value))
        except (ValueError, OSError):
            pass  # macOS refuses some; the parent's limit on time stands


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    types = ActivityTypes.default()
    check(
        _SAMPLE, "sample.yaml", types
    )  # whatever is loaded lazily is loaded now, before anybody waits for it
    # What is loaded stays: the collector need not look at it again, and a check leaves hardly a cycle behind.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    _send(answers, {}, b"")
    answers.flush()
    while header := questions.read(QUESTION.size):
        kind, name_length, text_length, waited_for = QUESTION.unpack(header)
        file = questions.read(name_length).decode("utf-8")
        text = questions.read(text_length)
        _send(answers, *(_module(text) if kind == MODULE else _answer(file, text, types)))
        if waited_for:
            answers.flush()


def _send(answers: IO[bytes], head: dict[str, Any], compiled: bytes) -> None:
    encoded = json.dumps(head).encode("ascii")
    answers.write(ANSWER.pack(len(encoded), len(compiled)) + encoded + compiled)


def _answer(file: str, text: bytes, types: ActivityTypes) -> tuple[dict[str, Any], bytes]:
    try:
        checked = check(text, file, types)
        if checked.problems or checked.definition is None or checked.compiled is None:
            return _head(checked.definition, [problem.to_json() for problem in checked.problems]), b""
        compiled = canonical(checked.compiled)
        return _head(checked.definition, []) | _facts(checked.compiled), compiled
    except Exception as error:  # a fault of ours must not stop the other files (promise P9)
        message = f"the checker failed on this file: {type(error).__name__}: {str(error)[:300]}"
        return _head(None, [Problem(code=CHECK_FAILED, message=message, file=file).to_json()]), b""


def _module(text: bytes) -> tuple[dict[str, Any], bytes]:
    names = names_of(text)
    return {"names": None if names is None else sorted(names)}, b""


def canonical(compiled: Any) -> bytes:
    """The bytes of a compiled definition that its digest is taken from."""
    return json.dumps(compiled, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _head(definition: Any, problems: list[dict[str, Any]]) -> dict[str, Any]:
    found = definition if isinstance(definition, dict) else {}
    labels = found.get("labels")
    return {
        **{key: str(found.get(key) or "") for key in ("name", "version", "title", "description")},
        "dsl": str(found.get("dsl") or "1"),
        "labels": labels if isinstance(labels, dict) else {},
        "problems": problems,
    }


def _facts(compiled: dict[str, Any]) -> dict[str, Any]:
    """What the registry keeps of a definition besides its bytes."""
    return {
        "uses_functions": _uses_functions(compiled),
        "functions": functions_called(compiled),
        "calls": compiled.get("calls", []),
        "triggers": [_times(trigger) for trigger in compiled.get("triggers", [])],
    }


def _times(trigger: dict[str, Any]) -> dict[str, Any]:
    """A trigger less its expressions, whose numbers change with any other expression of the file."""
    return {key: value for key, value in trigger.items() if key not in ("when", "inputs")}


def _uses_functions(compiled: dict[str, Any]) -> bool:
    """Whether a task calls a function, at any depth, or is undone by one."""
    todo = [task for part in ("tasks", "on_failure", "finally") for task in compiled.get(part) or ()]
    while todo:
        task = todo.pop()
        undo = task.get("compensate") or {}
        if _FUNCTION_TYPE in (task.get("activity_type"), undo.get("activity_type")):
            return True
        todo += task.get("tasks") or ()
    return False


def main() -> None:
    """Serve until the parent closes its end, or dies."""
    answers = os.fdopen(os.dup(1), "wb", buffering=_BUFFER)
    os.dup2(2, 1)  # what a third party's package prints must not pass for an answer
    _limit()
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
