"""The states of a run and of a task, and every transition between them: the tables are the truth.

The brain checks each transition that it makes against them; `docs/reference/states.md` is drawn from them by
`python -m engine.core.states > docs/reference/states.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple


class Transition(NamedTuple):
    """One allowed step, and why it is taken."""

    source: str
    target: str
    why: str


TASK_TRANSITIONS: tuple[Transition, ...] = (
    Transition(
        "PENDING",
        "RUNNING",
        "its dependencies are done, `run_on` and `when` allow it, a place in the run is free",
    ),
    Transition(
        "PENDING",
        "WAITING",
        "it asks for an approval, starts a timer, awaits a signal or queues for its concurrency group",
    ),
    Transition(
        "PENDING",
        "COMPLETED",
        "a `set` or an `end` did its work, the time of a `wait` had already come, or the result of an earlier run is taken over",
    ),
    Transition(
        "PENDING", "FAILED", "an expression of `when` or of what it is told failed, or a map is too large"
    ),
    Transition("PENDING", "SKIPPED", "`when` is false, `run_on` does not fit, or the run takes no new tasks"),
    Transition(
        "RUNNING",
        "COMPLETED",
        "its activity returned, its child or what is inside of it is done, and `outputs` could be mapped",
    ),
    Transition(
        "RUNNING",
        "FAILED",
        "its activity, its child or what is inside of it failed for good, its time has passed, or `outputs` could not be mapped",
    ),
    Transition("RUNNING", "CANCELLED", "its work ended because it was asked to"),
    Transition("WAITING", "RUNNING", "the concurrency group had room"),
    Transition("WAITING", "COMPLETED", "the timer fired, the signal came, or the request was approved"),
    Transition(
        "WAITING",
        "FAILED",
        "the request was rejected or could not be made, the time has passed, or the group refused it",
    ),
    Transition(
        "WAITING", "CANCELLED", "the run ends, or another task failed under `on_task_failure: cancel`"
    ),
)

RUN_TRANSITIONS: tuple[Transition, ...] = (
    Transition("PENDING", "QUEUED", "its concurrency group has no room"),
    Transition("PENDING", "RUNNING", "Temporal started it"),
    Transition("PENDING", "CANCELLED", "cancelled before it started"),
    Transition("QUEUED", "RUNNING", "the group has room"),
    Transition("QUEUED", "PAUSED", "somebody paused it while it was queued"),
    Transition("QUEUED", "CANCELLED", "cancelled while it was queued, or `on_conflict` wants no queue"),
    Transition("RUNNING", "WAITING", "nothing runs, and an approval, a timer, a signal or a slot is awaited"),
    Transition("WAITING", "RUNNING", "what it waited for has come"),
    Transition("RUNNING", "PAUSED", "somebody paused it: nothing new is started"),
    Transition("WAITING", "PAUSED", "somebody paused it: nothing new is started"),
    Transition("PAUSED", "QUEUED", "resumed while it was queued"),
    Transition("PAUSED", "RUNNING", "resumed, or cancelled"),
    Transition("PAUSED", "WAITING", "resumed, or cancelled, and nothing runs"),
    Transition(
        "RUNNING", "COMPLETED", "every task is done, none FAILED unless tolerated, the clean-up succeeded"
    ),
    Transition("RUNNING", "FAILED", "a task FAILED, or the `outputs` or the clean-up of the run did"),
    Transition("RUNNING", "TIMED_OUT", "its `timeout` passed; the clean-up is over"),
    Transition("RUNNING", "CANCELLED", "somebody cancelled it; the clean-up is over or was skipped"),
    Transition("WAITING", "COMPLETED", "the last awaited thing came, and nothing was left to do"),
    Transition("WAITING", "FAILED", "the last awaited thing failed"),
    Transition("WAITING", "TIMED_OUT", "its `timeout` passed while it waited"),
    Transition("WAITING", "CANCELLED", "somebody cancelled it while it waited"),
    Transition("PAUSED", "COMPLETED", "what still ran was all there was to do"),
    Transition("PAUSED", "FAILED", "what still ran failed, and nothing was left to do"),
    Transition("PAUSED", "TIMED_OUT", "its `timeout` passed: clocks go on in a pause"),
    Transition("PAUSED", "CANCELLED", "somebody cancelled it"),
)

TASK_ENDS = frozenset({"COMPLETED", "FAILED", "SKIPPED", "CANCELLED"})
RUN_ENDS = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})

_TASK_STEPS = frozenset((step.source, step.target) for step in TASK_TRANSITIONS)
_RUN_STEPS = frozenset((step.source, step.target) for step in RUN_TRANSITIONS)


class ForbiddenTransition(AssertionError):
    """The brain tried a step that no table allows: our bug, never the author's."""


def check_task(source: str, target: str) -> None:
    """Raise `ForbiddenTransition` unless the table of tasks has the step."""
    if (source, target) not in _TASK_STEPS:
        raise ForbiddenTransition(f"a task cannot go from {source} to {target}")


def check_run(source: str, target: str) -> None:
    """Raise `ForbiddenTransition` unless the table of runs has the step."""
    if (source, target) not in _RUN_STEPS:
        raise ForbiddenTransition(f"a run cannot go from {source} to {target}")


def reference_page() -> str:
    """The whole of `docs/reference/states.md`."""
    return "\n".join(
        [
            "# States",
            "",
            "<!-- Made from engine/core/states.py by `python -m engine.core.states`; do not edit. -->",
            "",
            "Every transition of a run and of a task. The engine checks each step that it makes against these tables.",
            "",
            *_section("Run", RUN_TRANSITIONS, RUN_ENDS),
            "",
            *_section("Task", TASK_TRANSITIONS, TASK_ENDS),
            "",
            "A skipped task says why in `skip_reason`: `condition` (its own `when` is false, or it belongs to an",
            "`on_failure` of a run that did not fail), `upstream` (its dependencies did not end as `run_on` asks),",
            "`ended` (the run takes no new tasks: it failed under `drain` or `cancel`, was cancelled, timed out or came to",
            "an `end`) or `untargeted` (the run was started for other tasks only).",
            "",
            "A task whose `compensate` ran has `compensation` beside its status: `DONE` or `FAILED`.",
            "",
        ]
    )


def _section(title: str, table: Sequence[Transition], ends: frozenset[str]) -> list[str]:
    arrows = [f"    {step.source} --> {step.target}" for step in table]
    finals = [f"    {end} --> [*]" for end in sorted(ends)]
    rows = [f"| `{step.source}` | `{step.target}` | {step.why} |" for step in table]
    return [
        f"## {title}",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> PENDING",
        *arrows,
        *finals,
        "```",
        "",
        "| from | to | why |",
        "| --- | --- | --- |",
        *rows,
    ]


if __name__ == "__main__":
    sys.stdout.write(reference_page())
