"""An activity type in a package of its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from typing_extensions import TypedDict

from engine.activities.registry import ActivityConfig, ActivityContext, ActivityFailure, activity_type


class GreetConfig(ActivityConfig):
    """Whom to greet, and how."""

    name: str = Field(description="Who is greeted.", min_length=1)
    tone: Literal["warm", "cold"] = Field(default="warm", description="How.")


class Greeting(TypedDict):
    """What was said."""

    text: str


@activity_type(name="example.greet", config=GreetConfig, result=Greeting, errors=["NOBODY_THERE"])
async def GREET(config: GreetConfig, context: ActivityContext) -> Greeting:
    """Greet somebody by name."""
    if config.name == "nobody":
        raise ActivityFailure("NOBODY_THERE", "there is nobody to greet", retryable=False)
    word = "Hello" if config.tone == "warm" else "Oh,"
    return {"text": f"{word} {config.name} ({context.task}, attempt {context.attempt})"}
