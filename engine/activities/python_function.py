"""`python_function`: a function of the source's `functions/` folder, at the run's own commit, in a child process."""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import replace
from typing import Any

from pydantic import Field

from engine.activities.context import ActivityContext
from engine.activities.failures import ActivityFailure
from engine.activities.function_process import FunctionCall
from engine.activities.registry import ActivityConfig, activity_type
from engine.dsl.bundle import has_module


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
        "ENVIRONMENT",
        "TIMEOUT",
        "TOO_LARGE",
        "INVALID_RESULT",
    ),
    description="""
    Call a Python function with JSON in and JSON out. Its code comes from the `functions/` folder of the source at
    the run's own commit, with the packages that a `uv.lock` or `requirements.txt` there names. It runs in a child process with a clean environment and limits on time, memory and output.
    An exception that the function raises becomes an error of the exception's class name (`ValueError`).
    """,
    builtin=True,
)
async def PYTHON_FUNCTION(config: PythonFunctionConfig, context: ActivityContext) -> Any:
    """Run the function in a child process of its own."""
    module = config.function.partition(":")[0]
    allowed = context.workbench.settings.function_packages
    files = await context.workbench.bundles.files(context.bundle_digest) if context.bundle_digest else {}
    if not has_module(files, module) and module.partition(".")[0] not in allowed:
        raise ActivityFailure(
            "FUNCTION_NOT_FOUND",
            f"module {module!r} is not in the folder functions/ beside the definitions at commit "
            f"{context.commit_sha[:12]}, nor in an installed package that PINFLOW_FUNCTION_PACKAGES allows",
            retryable=False,
        )
    call = FunctionCall(
        function=config.function,
        args=config.args,
        files=files,
        packages=_package_folders() if allowed else (),
        variables=_variables(context),
        timeout=context.timeout,
    )
    environments = context.workbench.environments
    lock = environments.lock_of(files) if has_module(files, module) else None
    if lock is None:
        result, printed = await context.workbench.functions.call(call)
    else:
        async with environments.use(lock) as environment:
            call = replace(call, packages=(), environment=environment)
            result, printed = await context.workbench.functions.call(call)
    if printed:
        context.log.info("function printed", output=printed)
    return result


def _variables(context: ActivityContext) -> dict[str, str]:
    return {
        "PINFLOW_EXECUTION_ID": context.execution_id,
        "PINFLOW_WORKFLOW": context.workflow,
        "PINFLOW_COMMIT_SHA": context.commit_sha,
        "PINFLOW_TASK": context.task,
        "PINFLOW_ATTEMPT": str(context.attempt),
        "PINFLOW_IDEMPOTENCY_KEY": context.idempotency_key,
    }


def _package_folders() -> tuple[str, ...]:
    """Where this worker's installed packages are: the child starts without them."""
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return tuple(p for p in sys.path if p and p not in standard and not p.endswith(("lib-dynload", ".zip")))
