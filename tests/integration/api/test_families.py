"""Looking at runs that have children, and at runs with very many tasks."""

from __future__ import annotations

from typing import Any

from engine.api.schemas.common import Page
from engine.api.schemas.executions import Execution, ExecutionDetail, Task
from engine.storage.run_detail import MANY
from tests.integration.api.conftest import Api
from tests.integration.api.test_steering import child_of
from tests.support.registered import compiled_form, register


async def tasks(api: Api, run: str, rows: list[tuple[str, str]]) -> None:
    """Recorded tasks (address, status) of a run."""
    await api.rows(
        "INSERT INTO task_states (execution_id, task, position, status, outputs, more)"
        " SELECT :run, task, position, status, '{}', CASE WHEN task = 'rollout' THEN"
        ' CAST(\'{"items": {"total": 9, "completed": 8, "failed": 1}}\' AS jsonb) END'
        " FROM unnest(CAST(:tasks AS text[]), CAST(:statuses AS text[])) WITH ORDINALITY AS t (task, status, position)",
        run=run,
        tasks=[task for task, _ in rows],
        statuses=[status for _, status in rows],
    )


async def listed(api: Api, path: str) -> list[dict[str, Any]]:
    """All pages of a listing."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        mark = "&" if "?" in path else "?"
        reply = await api.call("GET", f"{path}{mark}cursor={cursor}&limit=3")
        assert reply.status_code == 200, reply.text
        found += reply.json()["items"]
        cursor = reply.json()["next_cursor"]
        if not cursor:
            return found


async def test_a_family_is_found_by_parent_by_root_and_at_the_run_itself(api: Api) -> None:
    run = (await api.start()).json()["id"]
    child = await child_of(api, run, "a")
    grandchild = await child_of(api, child, "b", root=run)
    assert [row["id"] for row in await listed(api, f"/executions?parent={run}")] == [child]
    assert {row["id"] for row in await listed(api, f"/executions?root={run}")} == {child, grandchild}
    shown = (await api.call("GET", f"/executions/{run}")).json()
    ExecutionDetail.model_validate(shown, extra="forbid")
    assert [(each["id"], each["task"], each["status"]) for each in shown["children"]] == [
        (child, "smoke", "RUNNING")
    ]
    below = (await api.call("GET", f"/executions/{grandchild}")).json()
    assert (below["parent_id"], below["parent_task"], below["root_id"]) == (child, "smoke", run)
    page = (await api.call("GET", f"/executions?parent={run}")).json()
    Page[Execution].model_validate(page, extra="forbid")


async def test_the_closure_of_a_run_is_shown_and_its_digest_stands_in_the_audit(api: Api) -> None:
    await register(api.database, "leaf")
    calls = [{"workflow": "leaf", "ref": "same"}]
    version = await register(api.database, "root", compiled=compiled_form("root", calls=calls))
    await api.rows(
        """UPDATE workflow_versions SET calls = '[{"workflow": "leaf", "ref": "same"}]' WHERE id = :id""",
        id=version.version_id,
    )
    run = (await api.call("POST", "/executions/workflows/root/execute", {})).json()["id"]
    shown = (await api.call("GET", f"/executions/{run}")).json()
    ExecutionDetail.model_validate(shown, extra="forbid")
    assert list(shown["closure"]) == [f"main/leaf@{version.commit_sha}"]
    (row,) = await api.rows(
        "SELECT details FROM audit WHERE action = 'execution.requested' AND workflow = 'root'"
    )
    assert len(row["details"]["closure_digest"]) == 64
    # The next start takes the fast way, and so does one after a merge of the child alone.
    again = (await api.call("POST", "/executions/workflows/root/execute", {})).json()["id"]
    assert (await api.call("GET", f"/executions/{again}")).json()["closure"] == shown["closure"]
    newer = await register(api.database, "leaf", compiled=compiled_form("leaf", description="2"))
    last = (await api.call("POST", "/executions/workflows/root/execute", {})).json()["id"]
    closure = (await api.call("GET", f"/executions/{last}")).json()["closure"]
    assert [each["commit_sha"] for each in closure.values()] == [newer.commit_sha]


async def test_a_start_whose_child_is_missing_is_refused_in_words(api: Api) -> None:
    version = await register(api.database, "root")
    await api.rows(
        """UPDATE workflow_versions SET calls = '[{"workflow": "gone", "ref": "same"}]' WHERE id = :id""",
        id=version.version_id,
    )
    reply = await api.call("POST", "/executions/workflows/root/execute", {})
    assert (reply.status_code, reply.json()["code"]) == (422, "INVALID_DEFINITION")
    assert "root calls gone@same, and no workflow gone was deployed" in reply.json()["detail"]
    assert await api.rows("SELECT id FROM workflow_executions") == []


async def test_targets_are_kept_checked_and_part_of_the_request(api: Api) -> None:
    form = compiled_form("two", tasks=[{"id": "a", "type": "set"}, {"id": "b", "type": "set"}])
    await register(api.database, "two", compiled=form)
    path = "/executions/workflows/two/execute"
    wrong = await api.call("POST", path, {"targets": ["a", "c"]})
    assert (wrong.status_code, [fault["pointer"] for fault in wrong.json()["problems"]]) == (
        422,
        ["/targets/1"],
    )
    assert "a, b" in wrong.json()["hint"]
    run = await api.call("POST", path, {"targets": ["a"]}, Idempotency_Key="k")
    assert (await api.call("GET", f"/executions/{run.json()['id']}")).json()["targets"] == ["a"]
    assert (await api.call("POST", path, {}, Idempotency_Key="k")).status_code == 409


async def test_inner_tasks_are_listed_under_their_composite_by_status_and_in_order(api: Api) -> None:
    run = (await api.start()).json()["id"]
    rows = [("build", "COMPLETED"), ("rollout", "FAILED")]
    for item in range(12):
        rows += [
            (f"rollout[{item}].deploy", "COMPLETED"),
            (f"rollout[{item}].check", "FAILED" if item == 7 else "SKIPPED"),
        ]
    rows += [("rollout_2", "PENDING"), ("group.inner", "COMPLETED")]
    await tasks(api, run, rows)
    await api.rows("UPDATE workflow_executions SET status = 'FAILED', finished_at = now()")
    path = f"/executions/{run}/tasks"
    assert [task["id"] for task in await listed(api, path)] == [task for task, _ in rows]
    Page[Task].model_validate((await api.call("GET", path)).json(), extra="forbid")
    assert [task["id"] for task in await listed(api, f"{path}?under=rollout[7]")] == [
        "rollout[7].deploy",
        "rollout[7].check",
    ]
    assert len(await listed(api, f"{path}?under=rollout")) == 24
    assert [task["id"] for task in await listed(api, f"{path}?under=group")] == ["group.inner"]
    assert [task["id"] for task in await listed(api, f"{path}?under=rollout&status=FAILED")] == [
        "rollout[7].check"
    ]
    shown = (await api.call("GET", f"/executions/{run}")).json()
    ExecutionDetail.model_validate(shown, extra="forbid")
    assert (shown["task_count"], len(shown["tasks"])) == (28, 28)
    assert shown["tasks"][1]["items"] == {"total": 9, "completed": 8, "failed": 1}
    assert (await api.call("GET", "/executions/nope/tasks")).status_code == 404


async def test_of_very_many_tasks_the_outer_ones_are_shown_with_the_run(api: Api) -> None:
    run = (await api.start()).json()["id"]
    rows = [
        ("rollout", "COMPLETED"),
        *((f"rollout[{n}].deploy", "COMPLETED") for n in range(MANY)),
        ("after", "COMPLETED"),
    ]
    await tasks(api, run, rows)
    await api.rows("UPDATE workflow_executions SET status = 'COMPLETED', finished_at = now()")
    shown = (await api.call("GET", f"/executions/{run}")).json()
    assert (shown["task_count"], [task["id"] for task in shown["tasks"]]) == (MANY + 2, ["rollout", "after"])
