"""What the types of the language share: strictness, and the texts that stand in many places."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.dsl import durations, words

Name: TypeAlias = Annotated[str, Field(pattern=words.NAME_PATTERN, max_length=words.MAX_NAME)]
Id: TypeAlias = Annotated[str, Field(pattern=words.ID_PATTERN, max_length=words.MAX_NAME)]
Duration: TypeAlias = Annotated[str, Field(pattern=durations.PATTERN, examples=["90s", "1h30m", "PT10M"])]
Interval: TypeAlias = Annotated[str, Field(pattern=durations.PATTERN, examples=["2s"])]
Expression: TypeAlias = Annotated[
    str, Field(pattern=words.EXPRESSION_PATTERN, examples=["${{ inputs.amount > 100 }}"])
]
ListExpression: TypeAlias = Annotated[
    str, Field(pattern=words.EXPRESSION_PATTERN, examples=["${{ inputs.regions }}"])
]
DurationOrExpression: TypeAlias = Annotated[
    str, Field(pattern=words.DURATION_OR_EXPRESSION_PATTERN, examples=["15m", "${{ inputs.pause }}"])
]
NameOrExpression: TypeAlias = Annotated[
    str, Field(pattern=words.NAME_OR_EXPRESSION_PATTERN, max_length=1024, examples=["smoke-tests"])
]
Queue: TypeAlias = Annotated[str, Field(pattern=words.QUEUE_PATTERN, max_length=200)]
ErrorType: TypeAlias = Annotated[str, Field(pattern=words.ERROR_TYPE_PATTERN)]
Group: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=1024, examples=["deploys", "release-${{ inputs.service }}"])
]
InFlight: TypeAlias = Annotated[int, Field(ge=1, le=words.MAX_IN_FLIGHT)]


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

    non_retryable_errors: list[ErrorType] = Field(default_factory=list, max_length=100)
    """Error types that end the task at once, such as `HTTP_4XX` or the class name of a Python exception."""

    when: bool | Expression | None = None
    """Judged after each failed attempt, with `attempt` and `error`; false ends the task."""


class Defaults(Strict):
    """What activities other than `human_approval` have if they do not say it themselves."""

    timeout: Duration | None = None
    """Limit of one attempt."""

    retry: Retry | None = None
    """How failed attempts are repeated."""


class TaskConcurrency(Strict):
    """A group of tasks, over all runs and workflows of the server: no more than `limit` of them run at once, first come
    first served. While it waits its turn, a task is WAITING."""

    group: Group
    """Name of the group; may hold expressions."""

    limit: int = Field(default=1, ge=1, le=words.MAX_IN_FLIGHT)
    """How many may run at once."""


class RunConcurrency(Strict):
    """A group of runs, over all workflows of the server: no more than `limit` of them run at once. The others are
    QUEUED, and the time in the queue is not run time. A child belongs to its ancestors' groups already."""

    group: Group
    """Name of the group; may hold expressions over `inputs`, `env`, `trigger` and `run`."""

    limit: int = Field(default=1, ge=1, le=words.MAX_IN_FLIGHT)
    """How many may run at once."""

    on_conflict: Literal["queue", "skip", "cancel_running"] = "queue"
    """If the group is full: wait for a place (`queue`), end at once as CANCELLED (`skip`), or cancel the run that has
    been in the group longest (`cancel_running`)."""
