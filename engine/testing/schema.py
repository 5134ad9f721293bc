"""The shape of a test file, as a JSON Schema: the one source of it. `python -m engine.testing.export` writes it out."""

from __future__ import annotations

from typing import Any, Final

from engine.dsl import durations, words

SCHEMA_ID: Final = "https://pinflow.dev/schemas/test-1.schema.json"

TOOK_PATTERN: Final = r"^(?:<=|>=|<|>)? *[0-9A-Z.a-z]+$"
MOST_CASES: Final = 1_000

Schema = dict[str, Any]


def _object(description: str, required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {
        "type": "object",
        "description": description,
        "required": list(required),
        "additionalProperties": False,
        "properties": properties,
    }


def _by_task(description: str, values: Schema) -> Schema:
    return {"type": "object", "description": description, "additionalProperties": values}


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _after(description: str) -> Schema:
    return _text(description, pattern=durations.PATTERN, examples=["90s", "2h"])


_ERROR = _object(
    "The attempt fails.",
    ("type",),
    type=_text(
        "What `non_retryable_errors` and `tasks.<id>.error.type` see.", pattern=words.ERROR_TYPE_PATTERN
    ),
    message=_text("What `tasks.<id>.error.message` says."),
    details={"description": "Any JSON; what `error.details` holds."},
    retryable={
        "type": "boolean",
        "description": "Whether the activity lets it be tried again. Default true, but for errors that never are: "
        "`BUNDLE`, `DENIED`, `EXPRESSION`, `FUNCTION_NOT_FOUND`, `INVALID_CONFIG`, `INVALID_RESULT`, "
        "`UNKNOWN_ACTIVITY`.",
    },
)
_ANSWER = _object(
    "What the activity of a task answers: `result`, `cached` or `error`.",
    result={"description": "Any JSON: what the activity gives back, or the outputs of a child workflow."},
    cached={"description": "Any JSON: a result that the cache has, for a task with `cache`."},
    error=_ERROR,
    after=_after("How long the attempt takes. Without it: no time."),
)
_MOCK: Schema = {
    "description": "One answer for every attempt, or a list that answers attempt after attempt.",
    "if": {"type": "array"},
    "then": {"type": "array", "items": {"$ref": "#/$defs/Answer"}, "minItems": 1},
    "else": {"$ref": "#/$defs/Answer"},
}
_VOTE = _object(
    "What one person says of a request.",
    ("by", "decision"),
    by=_text("The person.", minLength=1),
    groups={
        "type": "array",
        "items": {"type": "string"},
        "description": "The person's groups. Without it: those that the request asks for.",
    },
    decision={"enum": ["approve", "reject"], "description": "One rejection decides."},
    after=_after("Counted from the moment at which the request can be seen. Without it: at once."),
    comment=_text("What the person adds."),
    form={"description": "The filled-in form, if the request asks for one."},
)
_SIGNAL = _object(
    "A signal that the run gets: by `name`, or by the callback address of one task.",
    (),
    name=_text("The signal's name.", minLength=1),
    task=_text("The task whose callback address is called, instead of a name.", minLength=1),
    correlation=_text("What tells this signal from others of its name."),
    payload={"description": "Any JSON."},
    by=_text("Who sends it."),
    after=_after("Counted from the run's start. Without it: at once."),
)
_TRIGGER = _object(
    "The trigger that fires; it gives the inputs, and its `when` says whether there is a run at all.",
    ("id",),
    id=_text("The trigger's id.", minLength=1),
    body={"description": "Any JSON: what a webhook was sent."},
    headers={
        "type": "object",
        "description": "The webhook's headers, in lower case.",
        "additionalProperties": {"type": "string"},
    },
    scheduled_at=_text("When the schedule fires, RFC 3339 with its zone.", maxLength=40),
    previous_scheduled_at=_text("When it fired before.", maxLength=40),
)
_STATUS: Schema = {"enum": ["COMPLETED", "FAILED", "SKIPPED", "CANCELLED"]}
_EXPECT = _object(
    "What must come of it. What is left out is not looked at.",
    ("status",),
    status={
        "enum": ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT", "IGNORED"],
        "description": "How the run ends; IGNORED if the trigger's `when` is false, and there is none.",
    },
    tasks=_by_task("How tasks end, by id.", _STATUS),
    path={
        "type": "array",
        "items": {"type": "string"},
        "description": "All tasks that were not skipped, in the order in which they ended.",
    },
    attempts=_by_task("How many attempts tasks took, by id.", {"type": "integer", "minimum": 0}),
    compensated=_by_task("What came of the undoing of tasks, by id.", {"enum": ["DONE", "FAILED"]}),
    outputs={
        "description": "The run's outputs. Of a mapping only the keys that stand here are compared, at every depth."
    },
    error=_object(
        "The run's error.",
        type=_text("Its type."),
        message=_text("A part of its message."),
        task=_text("The task that it comes from."),
    ),
    took=_text(
        "How long the run takes: `2h`, `<5h`, `<=5h`, `>1m` or `>=1m`.",
        pattern=TOOK_PATTERN,
        examples=["<5h"],
    ),
)
_CASE = _object(
    "One run.",
    ("name", "expect"),
    name=_text("What the case shows; unique in the file.", minLength=1, maxLength=200),
    inputs={"type": "object", "description": "The run's inputs; defaults are filled in."},
    mocks=_by_task(
        "What activities and child workflows answer, by task: `build`, `rollout.deploy`, `rollout[3].deploy`, `book~undo`.",
        {"$ref": "#/$defs/Mock"},
    ),
    approvals=_by_task(
        "What people say of the requests of `human_approval` tasks, by task id.",
        {"type": "array", "items": {"$ref": "#/$defs/Vote"}},
    ),
    signals={
        "type": "array",
        "items": {"$ref": "#/$defs/Signal"},
        "description": "The signals that the run gets.",
    },
    trigger={"$ref": "#/$defs/Trigger"},
    targets={
        "type": "array",
        "items": {"type": "string"},
        "minItems": 1,
        "description": "Start with these tasks and what they depend on, and nothing else.",
    },
    cancel=_object(
        "Somebody cancels the run.",
        after=_after("Counted from the run's start. Without it: at once."),
        by=_text("Who."),
        reason=_text("Why."),
    ),
    started_by=_text("Who starts the run. Default `tester`.", minLength=1),
    commit_author=_text("Who wrote the version's commit.", minLength=1),
    started_at=_text(
        "When the run starts, RFC 3339 with its zone. Default 2030-01-01T00:00:00Z.", maxLength=40
    ),
    expect={"$ref": "#/$defs/Expect"},
)

SCHEMA: Final[Schema] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": SCHEMA_ID,
    "title": "Pinflow tests of a workflow",
    **_object(
        "Tests of one workflow definition.",
        ("workflow", "cases"),
        workflow=_text("The name of the workflow; its definition stands in the same folder."),
        cases={
            "type": "array",
            "items": {"$ref": "#/$defs/Case"},
            "minItems": 1,
            "maxItems": MOST_CASES,
            "description": "The runs to play.",
        },
    ),
    "$defs": {
        "Case": _CASE,
        "Mock": _MOCK,
        "Answer": _ANSWER,
        "Vote": _VOTE,
        "Signal": _SIGNAL,
        "Trigger": _TRIGGER,
        "Expect": _EXPECT,
    },
}

# Codes that only test files have; docs/reference/test-files.md tells of each.
UNKNOWN_WORKFLOW: Final = "UNKNOWN_WORKFLOW"
INPUTS: Final = "INPUTS"
VOTE: Final = "VOTE"
SIGNAL: Final = "SIGNAL"
TRIGGER: Final = "TRIGGER"
