"""Who counts as an author of a version's commit, from real git merges to the decision."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from engine.sync.checker import Checker
from tests.integration.api.conftest import Api
from tests.support.git import Repository
from tests.support.syncing import Syncing, flow


@pytest_asyncio.fixture(loop_scope="session")
async def syncing(api: Api, git_repo: Repository, tmp_path: Path) -> AsyncIterator[Syncing]:
    checker = Checker()
    await checker.warm()
    made = Syncing(git_repo, api.database, checker, tmp_path / "data", name="team")
    yield made
    await made.reconciler.aclose()
    await checker.aclose()


async def ask_about_ship(api: Api) -> str:
    """A request of a run of the live `ship`, on which no author of its commit may decide."""
    started = await api.call("POST", "/executions/workflows/ship/execute", {"inputs": {}})
    assert started.status_code < 300, started.text
    run = started.json()["id"]
    request = await api.ask(run, prevent_self_approval=["commit_author"])
    await api.rows(
        "UPDATE approval_requests a SET commit_sha = e.commit_sha FROM workflow_executions e"
        " WHERE e.id = a.execution_id AND a.id = :id",
        id=request,
    )
    return request


async def refused(api: Api, request: str, by: str) -> bool:
    """Whether this person may not approve; somebody who may has then done so."""
    await api.token(by, "approver")
    reply = await api.call("POST", f"/approvals/{request}/approve", {"decision": "approve"}, by=by)
    assert reply.status_code in (200, 403), reply.text
    return reply.status_code == 403


async def test_whoever_wrote_a_merged_pull_request_does_not_approve_it(
    api: Api, syncing: Syncing, git_repo: Repository
) -> None:
    git_repo.commit({"workflows/ship.yaml": flow("ship")}, author="Old Hand <old@example.test>")
    await syncing.sync()
    git_repo.git("checkout", "--quiet", "-b", "change")
    git_repo.commit({"workflows/ship.yaml": flow("ship", "2")}, author="Pat <pat@example.test>")
    git_repo.commit({"README.md": "-"}, author="Quinn <quinn@example.test>")
    git_repo.git("checkout", "--quiet", "main")
    git_repo.merge("change")  # by Ada
    await syncing.sync()
    request = await ask_about_ship(api)
    for author in ("pat", "quinn@example.test", "ada"):
        assert await refused(api, request, author), author
    assert not await refused(api, request, "old")


async def test_a_merge_of_the_branch_into_ones_own_line_does_not_hide_who_wrote_it(
    api: Api, syncing: Syncing, git_repo: Repository
) -> None:
    git_repo.commit({"workflows/ship.yaml": flow("ship")}, author="Old Hand <old@example.test>")
    git_repo.git("branch", "mine")
    git_repo.commit({"README.md": "-"}, author="Quinn <quinn@example.test>")
    await syncing.sync()
    git_repo.git("checkout", "--quiet", "mine")
    git_repo.commit({"workflows/ship.yaml": flow("ship", "2")}, author="Pat <pat@example.test>")
    git_repo.merge("main")  # the first parent is Pat's commit, not what was live
    git_repo.commit({"NOTES.md": "-"}, author="Robin <robin@example.test>")
    git_repo.git("checkout", "--quiet", "-B", "main")
    await syncing.sync()
    request = await ask_about_ship(api)
    for author in ("pat", "ada", "robin"):
        assert await refused(api, request, author), author
    assert not await refused(api, request, "quinn")


async def test_whoever_is_named_as_a_co_author_does_not_approve_it(
    api: Api, syncing: Syncing, git_repo: Repository
) -> None:
    squashed = "Ship it (#12)\n\nCo-authored-by: Pat <12+pat@users.noreply.example.test>"
    git_repo.commit({"workflows/ship.yaml": flow("ship")}, squashed, author="Robin <robin@example.test>")
    await syncing.sync()
    request = await ask_about_ship(api)
    for author in ("pat", "robin"):
        assert await refused(api, request, author), author
    assert not await refused(api, request, "quinn")
