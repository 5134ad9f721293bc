"""Approval requests: what waits for people, and what they say."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal

from engine import faults
from engine.core import approvals as judge
from engine.core.contracts import Json
from engine.core.states import RUN_ENDS
from engine.dsl.json_schemas import SchemaFault
from engine.errors import Conflict, Forbidden, InputProblem, InvalidInput, NotFound
from engine.executor.dispatcher import HEAD_START, Dispatcher
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.services import cursors
from engine.services.callers import Caller
from engine.services.ids import new_id
from engine.services.inputs import canonical, validator_of
from engine.services.inputs import faults as schema_faults
from engine.services.starts import require_temporal, rfc3339
from engine.storage import approvals, audit, decisions, outbox
from engine.storage.database import Connection, Database
from engine.storage.rows import Record

Decision = Literal["approve", "reject"]


class ApprovalService:
    """The row of a request is the judge: locked, judged, written, and the intent to tell the run, in one transaction."""

    def __init__(
        self, database: Database, executor: TemporalWorkflowExecutor, dispatcher: Dispatcher
    ) -> None:
        self._database = database
        self._executor = executor
        self._dispatcher = dispatcher

    async def get(self, approval_id: str) -> Record:
        """One request with its decisions. Raises `NotFound`."""
        async with self._database.read() as connection:
            found = await decisions.get(connection, approval_id)
        if found is None:
            raise _unknown(approval_id)
        return found

    async def page(
        self, *, count: int, cursor: str = "", status: str = "", execution_id: str = "", workflow: str = ""
    ) -> tuple[list[Record], str]:
        """Requests, the newest first, and the cursor of the next page ("" if there is none)."""
        keys = cursors.decode(cursor, int, str)
        before = (_moment(keys[0]), keys[1]) if keys else None
        source, _, name = workflow.rpartition("/")
        async with self._database.read() as connection:
            rows = await decisions.page(
                connection,
                count=count + 1,
                before=before,
                status=status,
                execution_id=execution_id,
                workflow=name,
                source=source,
            )
        if len(rows) <= count:
            return rows, ""
        last = rows[count - 1]
        return rows[:count], cursors.encode(round(last["requested_at"].timestamp() * 1e6), last["id"])

    async def decide(
        self, caller: Caller, approval_id: str, decision: Decision, *, comment: str = "", form: Json = None
    ) -> Record:
        """Record what the caller says of a request; the request as it stands then.

        Raises `NotFound`, `Forbidden` (not an approver of it), `InvalidInput` (the form), `Unavailable`, and
        `Conflict` if it was resolved, its time has passed, its run has ended, or the caller has said so before.
        """
        caller.require("approver")
        canonical(form, "form")
        require_temporal(self._executor)
        async with self._database.begin() as connection:
            request = await decisions.lock(connection, approval_id)
            if request is None:
                raise _unknown(approval_id)
            resolved = await _decide(connection, caller, request, decision, comment, form)
        await faults.point("decide.after_commit")
        if resolved:
            await self._dispatcher.dispatch_now(request["execution_id"])
        return await self.get(approval_id)


async def _decide(
    connection: Connection, caller: Caller, request: Record, decision: Decision, comment: str, form: Json
) -> bool:
    """Judge and write; whether the request is resolved by it."""
    policy = judge.ApprovalPolicy.from_json(request["policy"])
    await _require_approver(connection, caller, request, policy)
    _require_open(caller, request, decision)
    _check_form(request["policy"].get("form"), decision, form)
    now = datetime.now(UTC)
    vote = {"by": caller.subject, "decision": decision, "comment": comment, "form": form, "at": rfc3339(now)}
    votes = [*request["decisions"], vote]
    await decisions.add(
        connection,
        decision_id=new_id(),
        approval_id=request["id"],
        by=caller.subject,
        decision=decision,
        comment=comment,
        form=form,
        at=now,
    )
    said = {"decision": decision, "comment": comment}
    await _audit(connection, caller.subject, "approval.decided", request, said)
    standing = judge.standing(policy, votes)
    if standing == "PENDING":
        return False
    if not await approvals.resolve(
        connection, request["id"], standing
    ):  # the row is locked, so this is our bug
        raise RuntimeError(f"request {request['id']} was resolved although it was locked")
    message = {
        "task": request["task"],
        "approval_id": request["id"],
        "outcome": standing,
        "decisions": votes,
        "deadline": None,
        "to": request["told"],
    }
    await outbox.enqueue(connection, "approval", request["execution_id"], message, delay=HEAD_START)
    await _audit(connection, caller.subject, f"approval.{standing.lower()}", request, {"votes": len(votes)})
    return True


async def _require_approver(
    connection: Connection, caller: Caller, request: Record, policy: judge.ApprovalPolicy
) -> None:
    authors: set[str] = set()
    if "commit_author" in policy.prevent_self_approval:
        for row in await decisions.authors(connection, request["source_id"], request["commit_sha"]):
            authors |= judge.author_names(row["author"], row["author_email"])
            # Who merges a pull request is the author of the merge; who wrote the change stands in its commits.
            for each in row["authors"]:
                authors |= judge.author_names(each["name"], each["email"])
    around = judge.Circumstances(request["started_by"], frozenset(authors), request["escalated"])
    refusal = judge.refusal(policy, caller.subject, caller.groups, around)
    if refusal:
        raise Forbidden(refusal)


def _require_open(caller: Caller, request: Record, decision: Decision) -> None:
    if request["status"] != "PENDING":
        last = request["decisions"][-1]["by"] if request["decisions"] else ""
        by = f" by {last}" if last and request["status"] in ("APPROVED", "REJECTED") else ""
        raise Conflict(f"this request is {request['status']} already{by}")
    if request["run_status"] in RUN_ENDS:
        raise Conflict(f"the run of this request has ended: {request['run_status']}")
    if request["expired"]:
        raise Conflict("the deadline of this request has passed")
    own = [said["decision"] for said in request["decisions"] if said["by"] == caller.subject]
    if own and own[-1] == decision:
        raise Conflict(f"{caller.subject} has decided so already: each person has one voice")


def _check_form(schema: Json, decision: Decision, form: Json) -> None:
    """A form is owed by those who approve; who rejects may leave it out."""
    if schema is None:
        if form is not None:
            raise InvalidInput("this request asks for no form", [InputProblem("/form", "leave it out")])
        return
    if form is None and decision == "reject":
        return
    problems = schema_faults(_form_validator(json.dumps(schema)), {} if form is None else form, "form")
    if problems:
        raise InvalidInput("the form does not fit what the request asks for", problems)


def _form_validator(schema: str) -> Any:
    try:
        return validator_of(schema)
    except SchemaFault as fault:
        # Built from an expression, so the validator of definitions could not see it.
        raise InvalidInput(f"the form of this request is no valid schema: {fault.message}") from fault


async def _audit(
    connection: Connection, actor: str, action: str, request: Record, details: dict[str, Json]
) -> None:
    await audit.record(
        connection,
        action,
        actor=actor,
        source=request["source"],
        workflow=request["workflow"],
        execution_id=request["execution_id"],
        commit_sha=request["commit_sha"],
        details={"approval_id": request["id"], "task": request["task"], **details},
    )


def _moment(microseconds: int) -> datetime:
    """What a cursor holds, as a time; one that no clock of ours can have told is the last one that there is."""
    try:
        return datetime.fromtimestamp(microseconds / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)


def _unknown(approval_id: str) -> NotFound:
    return NotFound(
        f"no approval request {approval_id}",
        hint="`pinflow approvals ls` and GET /approvals?status=PENDING list what waits",
    )
