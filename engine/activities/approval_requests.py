"""What the engine does for `human_approval`: make the request visible, and close it when its time has come."""

from __future__ import annotations

from typing import Any, Literal

import structlog

from engine import faults
from engine.activities.configs import parse_config
from engine.activities.failures import ActivityFailure
from engine.activities.human_approval import HumanApprovalConfig
from engine.core.approvals import ApprovalPolicy, approval_id, expiry
from engine.core.contracts import ActivityCall
from engine.storage import approvals, audit
from engine.storage.database import Database
from engine.storage.rows import Record

_ACTOR = "worker"
_log = structlog.get_logger(__name__)


async def request(database: Database, call: ActivityCall, *, told: str = "") -> dict[str, Any]:
    """Make the request of a task, once whatever the number of attempts. `told` is the workflow that waits for the answer.

    Gives `{approval_id, requested_at, deadline}`; times are seconds since the epoch by the database's clock.
    Raises `ActivityFailure` RUN_IS_OVER if nobody waits for the answer any more.
    """
    config = parse_config(HumanApprovalConfig, call.config)
    id = approval_id(call.execution_id, call.task)
    policy = config.model_dump(mode="json", exclude={"message"})
    async with database.begin() as connection:
        made = await approvals.request(
            connection,
            id=id,
            execution_id=call.execution_id,
            task=call.task,
            message=config.message,
            told=told,
            policy=policy,
            actor=_ACTOR,
        )
    await faults.point("approval.after_commit")
    if made is None:
        raise ActivityFailure(
            "RUN_IS_OVER", f"run {call.execution_id} has ended or is unknown", retryable=False
        )
    _log.info("approval requested", approval_id=id, deadline=made["deadline"])
    return {"approval_id": id, **made}


async def close(
    database: Database, execution_id: str, task: str, why: Literal["deadline", "cancelled"]
) -> dict[str, Any]:
    """Apply a passed deadline, or the end of the run, to the request if it is still open; tell how it stands.

    Gives `{outcome, decisions, deadline}`. `outcome` PENDING means: wait until `deadline`.
    """
    id = approval_id(execution_id, task)
    async with database.begin() as connection:
        row = await approvals.lock(connection, id)
        if row is None:
            return {"outcome": "CANCELLED", "decisions": [], "deadline": None}
        outcome, deadline = row["status"], row["deadline"]
        if outcome == "PENDING" and (why == "cancelled" or not _is_repeat(row)):
            wanted = "CANCELLED" if why == "cancelled" else _expire(row)
            if wanted == "ESCALATED":
                deadline = await approvals.escalate(connection, id, row["policy"]["deadline"])
            else:
                await approvals.resolve(connection, id, wanted)
                outcome = wanted
            await audit.record(
                connection,
                f"approval.{wanted.lower()}",
                actor=_ACTOR,
                source=row["source"],
                workflow=row["workflow"],
                execution_id=execution_id,
                commit_sha=row["commit_sha"],
                details={"approval_id": id, "task": task, "why": why},
            )
        decisions = await approvals.decisions(connection, id)
    return {
        "outcome": outcome,
        "decisions": decisions,
        "deadline": deadline if outcome == "PENDING" else None,
    }


def _expire(row: Record) -> str:
    return expiry(ApprovalPolicy.from_json(row["policy"]), escalated=row["escalated"])


def _is_repeat(row: Record) -> bool:
    """Whether this is the first deadline's call once more, after an escalation whose answer was lost.

    The run's clock decides when a deadline has passed, and the two clocks may differ; so the question is only
    whether the moment is nearer to the old deadline than to the new one.
    """
    span = float(row["policy"].get("deadline") or 0)
    return bool(row["escalated"]) and (row["remaining"] or 0) > span / 2
