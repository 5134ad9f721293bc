"""`python_function`: a function of the source's `functions/` folder, at the run's own commit, in a child process."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from engine.activities.context import ActivityContext
from engine.activities.registry import ActivityConfig, activity_type


class PythonFunctionConfig(ActivityConfig):
    """Which function, and its arguments."""

    function: str = Field(
        description="`module:name`; the module is a file or package in the source's `functions/` folder, "
        "or belongs to an installed package that the operator allows.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$",
        max_length=255,
        examples=["deploys:apply"],
    )
    args: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments, as JSON.")


@activity_type(
    name="python_function",
    config=PythonFunctionConfig,
    result=Any,
    errors=(
        "FUNCTION_NOT_FOUND",
        "FUNCTION_ARGS",
        "FUNCTION_CRASHED",
        "BUNDLE",
        "TIMEOUT",
        "TOO_LARGE",
        "INVALID_RESULT",
    ),
    description="""
    Call a Python function with JSON in and JSON out. Its code comes from the `functions/` folder of the source at
    the run's own commit. It runs in a child process with a clean environment and limits on time, memory and output.
    An exception that the function raises becomes an error of the exception's class name (`ValueError`).
    """,
    builtin=True,
)
async def PYTHON_FUNCTION(config: PythonFunctionConfig, context: ActivityContext) -> Any:
    """Run the function in a child process of its own."""
    raise NotImplementedError
