"""The types of what starts a workflow by itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from engine.dsl import words
from engine.dsl.schema_base import Duration, Expression, Id, Strict

Cron: TypeAlias = Annotated[str, Field(min_length=1, max_length=200, examples=["0 6 * * 1-5"])]


class Trigger(Strict):
    """What all triggers have."""

    id: Id
    """Known by this in runs (`trigger.id`), in the address of a webhook and in `pinflow backfill`."""

    when: bool | Expression | None = None
    """A condition over `trigger` and `env`; false starts nothing."""

    inputs: dict[str, Any] = Field(default_factory=dict)
    """The inputs of the runs that it starts; values may hold expressions over `trigger` and `env`."""


class ScheduleTrigger(Trigger):
    """Starts runs by the clock. A run is pinned to the commit that is live when it fires."""

    type: Literal["schedule"]
    """The kind of trigger."""

    cron: Cron | Annotated[list[Cron], Field(min_length=1, max_length=words.MAX_CRONS)]
    """When: minute, hour, day of month, month, day of week, as in crontab; or a list of these."""

    timezone: Annotated[str, Field(max_length=100, examples=["Europe/Rome"])] = "UTC"
    """The clock by which `cron` is read: a name of the IANA time zones."""

    overlap: Literal["skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all"] = (
        "skip"
    )
    """If the run before is still open: leave this one out (`skip`), start it afterwards (`buffer_one`: at most one waits,
    `buffer_all`), end the other (`cancel_other` with its clean-up, `terminate_other` without), or run both (`allow_all`)."""

    catchup_window: Duration = "1m"
    """How late a run may start if the server was away; what is later is left out. 10 seconds at least."""

    jitter: Duration | None = None
    """Delay each start by a random time up to this."""


class WebhookTrigger(Trigger):
    """Starts a run for each request to `POST /hooks/<workflow>/<trigger>` that is signed with the secret."""

    type: Literal["webhook"]
    """The kind of trigger."""

    secret: Id
    """Name of the secret that signs the requests (HMAC-SHA256 of the body); need not stand in `secrets`."""


AnyTrigger: TypeAlias = Annotated[ScheduleTrigger | WebhookTrigger, Field(discriminator="type")]
