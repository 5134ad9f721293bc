"""The types of the definition language: its one source.

The JSON Schema and the reference page are generated from these classes and their docstrings
(`engine/dsl/export.py`).  Checking a definition does not import this module: it uses the generated
schema, which a test holds to be equal to this.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from engine.dsl import durations, words

Name: TypeAlias = Annotated[str, Field(pattern=words.NAME_PATTERN, max_length=words.MAX_NAME)]
Id: TypeAlias = Annotated[str, Field(pattern=words.ID_PATTERN, max_length=words.MAX_NAME)]
Duration: TypeAlias = Annotated[str, Field(pattern=durations.PATTERN, examples=["90s", "1h30m", "PT10M"])]
Expression: TypeAlias = Annotated[
    str, Field(pattern=words.EXPRESSION_PATTERN, examples=["${{ inputs.amount > 100 }}"])
]
DurationOrExpression: TypeAlias = Annotated[
    str, Field(pattern=words.DURATION_OR_EXPRESSION_PATTERN, examples=["15m", "${{ inputs.pause }}"])
]
Label: TypeAlias = Annotated[str, Field(max_length=1024)]
Queue: TypeAlias = Annotated[str, Field(pattern=words.QUEUE_PATTERN, max_length=200)]
Interval: TypeAlias = Annotated[str, Field(pattern=durations.PATTERN, examples=["2s"])]


class Strict(BaseModel):
    """An unknown key, a wrong type or a null where a value belongs is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_null(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name, field in cls.model_fields.items():
                key = field.alias or name
                if field.annotation is not Any and key in data and data[key] is None:
                    raise ValueError(f"`{key}` is empty: leave the key out or give it a value")
        return data


class Retry(Strict):
    """How often and when a failed attempt is repeated. Written out, it replaces `defaults.retry` as a whole."""

    max_attempts: int = Field(default=words.DEFAULT_MAX_ATTEMPTS, ge=1, le=words.MAX_ATTEMPTS)
    """Attempts in all, the first one included."""

    initial_interval: Interval = "1s"
    """Wait before the second attempt."""

    backoff_coefficient: float = Field(default=words.DEFAULT_BACKOFF, ge=1, le=100)
    """By how much each wait is longer than the one before."""

    max_interval: Interval = "1m"
    """No wait is longer than this."""

    non_retryable_errors: list[Annotated[str, Field(pattern=words.ERROR_TYPE_PATTERN)]] = Field(
        default_factory=list, max_length=100
    )
    """Error types that end the task at once, such as `HTTP_4XX` or the class name of a Python exception."""

    when: bool | Expression | None = None
    """Judged after each failed attempt, with `attempt` and `error`; false ends the task."""


class Defaults(Strict):
    """What activities other than `human_approval` have if they do not say it themselves."""

    timeout: Duration | None = None
    """Limit of one attempt."""

    retry: Retry | None = None
    """How failed attempts are repeated."""


class Task(Strict):
    """What all tasks have."""

    id: Id
    """Known by this everywhere: in `depends_on`, in expressions, in the history. Unique in the definition."""

    name: Annotated[str, Field(max_length=200)] | None = None
    """A label for people."""

    description: Annotated[str, Field(max_length=10_000)] | None = None
    """What the task is for."""

    depends_on: list[str] = Field(default_factory=list)
    """Ids of tasks that must be done before this one is looked at."""

    run_on: Literal["success", "any_success", "failure", "always"] = "success"
    """Which outcome of `depends_on` lets the task run: `success` (all completed, or skipped by their own `when`),
    `any_success` (at least one completed), `failure` (one failed, or was skipped because an ancestor failed), `always`."""

    when: bool | Expression | None = None
    """A condition, judged after `run_on`. False skips the task, and its successors take it as done."""

    continue_on_failure: bool = False
    """A failure of this task does not make the run fail."""

    default_outputs: Any = None
    """What readers of `tasks.<id>.outputs` see if the task did not complete."""


class ActivityTask(Task):
    """Work that an activity type does."""

    type: Literal["activity"] = "activity"
    """The kind of task; `activity` if nothing is said."""

    activity_type: str
    """Which activity type does the work: `http_request`, `python_function`, `human_approval`, or one of your own."""

    config: dict[str, Any] = Field(default_factory=dict)
    """What the activity type needs; its own schema says what may stand here. Values may hold expressions."""

    success_when: bool | Expression | None = None
    """Judged on `result` after each attempt; if false, the attempt fails with `NOT_SUCCESSFUL` and may be retried."""

    retry: Retry | None = None
    """How failed attempts are repeated. Without it and without `defaults.retry` there is one attempt."""

    timeout: Duration | None = None
    """Limit of one attempt; 5 minutes if nothing is said."""

    total_timeout: Duration | None = None
    """Limit of all attempts and the waits between them together."""

    execution: Literal["auto", "local", "worker"] = "auto"
    """Where it runs: `local` inside of the workflow's own step (fast, for short work), `worker` as an ordinary
    activity, `auto` lets the engine choose."""

    task_queue: Queue = ""
    """Send the task to workers that listen on this queue."""

    outputs: Any = None
    """What readers of `tasks.<id>.outputs` see; `result` is the activity's result, and also what they see without this."""


class WaitTask(Task):
    """A pause: give either `duration` or `until`."""

    type: Literal["wait"]
    """The kind of task."""

    duration: DurationOrExpression | None = None
    """How long to wait."""

    until: Annotated[str, Field(min_length=1, examples=["2030-01-01T06:00:00Z"])] | None = None
    """The moment to wait for, in RFC 3339."""


class SetTask(Task):
    """Values worked out once, for later tasks to read as `tasks.<id>.outputs`."""

    type: Literal["set"]
    """The kind of task."""

    values: dict[str, Any]
    """Names and values; values may hold expressions."""


def _kind(value: Any) -> str:
    kind = value.get("type", "activity") if isinstance(value, dict) else getattr(value, "type", "activity")
    return kind if isinstance(kind, str) else "activity"


AnyTask: TypeAlias = Annotated[
    Annotated[ActivityTask, Tag("activity")]
    | Annotated[WaitTask, Tag("wait")]
    | Annotated[SetTask, Tag("set")],
    Discriminator(_kind),
]


class WorkflowDefinition(Strict):
    """One workflow, as a YAML document in git."""

    dsl: Literal["1"] = "1"
    """Version of this language."""

    name: Name
    """Known by this everywhere; unique in a source."""

    version: str | int | float = ""
    """A label for people, kept as written. The identity of a version is its commit, never this."""

    title: Annotated[str, Field(max_length=1024)] | None = None
    """Title of a run; may hold expressions over `inputs` and `env`."""

    description: Annotated[str, Field(max_length=10_000)] | None = None
    """What the workflow is for."""

    labels: dict[str, Label | int | float | bool] = Field(default_factory=dict, max_length=64)
    """Names and values to find runs by; values may hold expressions over `inputs` and `env`."""

    inputs: dict[str, Any] | None = None
    """A JSON Schema object: inputs are checked against it before a run starts. Without it a run takes no inputs;
    an input that it does not declare is refused unless it says `additionalProperties`."""

    env: dict[str, Any] = Field(default_factory=dict)
    """Constants, read as `env.<name>`."""

    timeout: Duration | None = None
    """Limit of the whole run, `on_failure` and `finally` not counted."""

    cleanup_timeout: Duration = "15m"
    """Limit of `on_failure` and `finally`."""

    max_concurrency: int | None = Field(default=None, ge=1, le=words.MAX_IN_FLIGHT)
    """Tasks in flight at once."""

    on_task_failure: Literal["finish", "drain", "cancel"] = "finish"
    """After a failure: `finish` all that can still run, `drain` (start nothing but `failure` and `always` tasks),
    or `cancel` what runs as well."""

    defaults: Defaults | None = None
    """Settings for all activities other than `human_approval`."""

    tasks: list[AnyTask] = Field(min_length=1, max_length=words.MAX_TASKS)
    """What is done."""

    outputs: Any = None
    """What the run gives; may hold expressions over all tasks. Without it, nothing."""

    on_failure: list[AnyTask] = Field(default_factory=list, max_length=words.MAX_TASKS)
    """Tasks that run when the run failed or timed out."""

    finally_: list[AnyTask] = Field(default_factory=list, max_length=words.MAX_TASKS, alias="finally")
    """Tasks that run at the end, however it came."""
