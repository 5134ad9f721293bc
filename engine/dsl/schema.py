"""The types of the definition language: its one source.

The JSON Schema and the reference page are generated from these classes and their docstrings
(`engine/dsl/export.py`).  Checking a definition does not import this module: it uses the generated
schema, which a test holds to be equal to this.  The parts stand in `schema_base`, `schema_tasks` and
`schema_triggers`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from engine.dsl import words
from engine.dsl.schema_base import Defaults, Duration, Id, InFlight, Name, RunConcurrency, Strict
from engine.dsl.schema_tasks import AnyTask
from engine.dsl.schema_triggers import AnyTrigger

Label: TypeAlias = Annotated[str, Field(max_length=1024)]


class WorkflowDefinition(Strict):
    """One workflow, as a YAML document in git."""

    dsl: Literal["1"] = "1"
    """Version of this language."""

    name: Name
    """Known by this everywhere; unique in a source."""

    version: str | int | float = ""
    """A label for people, kept as written. The identity of a version is its commit, never this."""

    title: Annotated[str, Field(max_length=1024)] | None = None
    """Title of a run; may hold expressions over `inputs`, `env` and `trigger`."""

    description: Annotated[str, Field(max_length=10_000)] | None = None
    """What the workflow is for."""

    labels: dict[str, Label | int | float | bool] = Field(default_factory=dict, max_length=64)
    """Names and values to find runs by; values may hold expressions over `inputs`, `env` and `trigger`."""

    inputs: dict[str, Any] | None = None
    """A JSON Schema object: inputs are checked against it before a run starts. Without it a run takes no inputs;
    an input that it does not declare is refused unless it says `additionalProperties`."""

    env: dict[str, Any] = Field(default_factory=dict)
    """Constants, read as `env.<name>`."""

    secrets: list[Id] = Field(default_factory=list, max_length=words.MAX_SECRETS)
    """Names of secrets that configs may hold, as `${{ secrets.NAME }}`. Their values exist only inside of an activity."""

    triggers: list[AnyTrigger] = Field(default_factory=list, max_length=words.MAX_TRIGGERS)
    """What starts the workflow by itself."""

    concurrency: RunConcurrency | None = None
    """A group of runs of which only so many run at once."""

    timeout: Duration | None = None
    """Limit of the whole run, `on_failure` and `finally` not counted."""

    cleanup_timeout: Duration = "15m"
    """Limit of `on_failure` and `finally`."""

    max_concurrency: InFlight | None = None
    """Tasks in flight at once, those inside of maps and groups included."""

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
