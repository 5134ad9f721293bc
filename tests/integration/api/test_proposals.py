"""`POST /workflows` and promotions: a commit on the remote, or a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.api.schemas.proposals import Proposal
from engine.services import proposals as service
from engine.settings import SourceSettings
from engine.sync.checker import Checker
from engine.sync.proposer import Proposer
from engine.sync.reconciler import Reconciler
from tests.integration.api.conftest import Api
from tests.support.git import Repository
from tests.support.syncing import flow


class Sources:
    """Two branches of one repository, watched; a proposer pushes what waits."""

    def __init__(self, api: Api, repository: Repository, data_dir: Path, checker: Checker) -> None:
        self.api = api
        self.repository = repository
        self.settings = {
            name: SourceSettings(name=name, url=str(repository.path), branch=name, folder="flows")
            for name in ("staging", "production")
        }
        self._data_dir = data_dir
        self._checker = checker
        self.proposer = Proposer(api.database, lambda: self.settings, data_dir)

    async def sync(self) -> None:
        """One pass over each source."""
        for settings in self.settings.values():
            reconciler = Reconciler(settings, self._data_dir, self.api.database, self._checker)
            await reconciler.run_pass()
            await reconciler.aclose()

    def touched(self, sha: str) -> list[str]:
        """Paths that a commit touches."""
        return self.repository.git("diff-tree", "-r", "--name-only", f"{sha}^", sha).splitlines()

    async def post(
        self, path: str, body: dict[str, Any], *, by: str = "operator", status: int = 201, **headers: str
    ) -> dict[str, Any]:
        """A call, and its answer."""
        reply = await self.api.call("POST", path, body, by=by, **headers)
        assert reply.status_code == status, reply.text
        found: dict[str, Any] = reply.json()
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def checker() -> AsyncIterator[Checker]:
    made = Checker()
    await made.warm()
    yield made
    await made.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def sources(api: Api, tmp_path: Path, checker: Checker) -> AsyncIterator[Sources]:
    repository = Repository(tmp_path / "remote", branch="staging")
    repository.commit({"flows/release.yaml": flow("release", "1"), "flows/other.yaml": flow("other")})
    repository.git("branch", "production")
    repository.git("checkout", "-q", "--detach")
    await api.rows("DELETE FROM workflow_definitions")
    await api.rows("DELETE FROM version_ranges")
    made = Sources(api, repository, tmp_path / "data", checker)
    await made.sync()
    pushing = asyncio.create_task(made.proposer.run())
    yield made
    pushing.cancel()
    await asyncio.gather(pushing, return_exceptions=True)


async def test_a_posted_definition_is_a_commit_of_the_caller_on_a_branch(sources: Sources) -> None:
    said = await sources.post(
        "/workflows",
        {"definition": flow("fresh"), "source": "staging", "title": "Add fresh", "message": "We need it."},
    )
    proposal = Proposal.model_validate(said)
    assert (proposal.status, proposal.path, proposal.source) == ("PROPOSED", "flows/fresh.yaml", "staging")
    sha = sources.repository.git("rev-parse", proposal.branch)
    assert sha == proposal.commit_sha
    assert sources.touched(sha) == ["flows/fresh.yaml"]
    assert sources.repository.git("log", "-1", "--format=%an|%s|%b", sha).startswith(
        "o-person|Add fresh|We need it."
    )
    audit = await sources.api.rows(
        "SELECT action, actor FROM audit WHERE action LIKE 'proposal.%' ORDER BY id"
    )
    assert [(row["action"], row["actor"]) for row in audit] == [
        ("proposal.requested", "o-person"),
        ("proposal.pushed", "sync"),
    ]


async def test_nothing_is_live_before_the_branch_is_merged(sources: Sources) -> None:
    proposal = await sources.post("/workflows", {"definition": flow("release", "2"), "source": "staging"})
    await sources.sync()
    assert await live(sources, "staging") == flow("release", "1")
    sources.repository.git("branch", "-f", "staging", proposal["commit_sha"])
    await sources.sync()
    assert await live(sources, "staging") == flow("release", "2")


async def test_the_file_is_the_one_that_the_definition_stands_in(sources: Sources) -> None:
    sources.repository.git("checkout", "-q", "staging")
    sources.repository.git("mv", "flows/release.yaml", "flows/moved.yml")
    sources.repository.commit()
    sources.repository.git("checkout", "-q", "--detach")
    await sources.sync()
    said = await sources.post("/workflows", {"definition": flow("release", "2"), "source": "staging"})
    assert said["path"] == "flows/moved.yml"


async def test_one_key_leads_to_one_proposal(sources: Sources) -> None:
    body = {"definition": flow("release", "2"), "source": "staging"}
    first = await sources.post("/workflows", body, Idempotency_Key="k1")
    assert (await sources.post("/workflows", body, Idempotency_Key="k1"))["id"] == first["id"]
    other = body | {"definition": flow("release", "3")}
    await sources.post("/workflows", other, status=409, Idempotency_Key="k1")


async def test_a_definition_with_problems_is_told_where_and_leaves_nothing(sources: Sources) -> None:
    said = await sources.post(
        "/workflows", {"definition": "name: x\ntasks: [{id: a-b, type: set, values: {}}]\n"}, status=422
    )
    assert said["code"] == "INVALID_DEFINITION"
    assert (said["problems"][0]["line"], said["problems"][0]["code"]) == (2, "NAME")
    assert await sources.api.rows("SELECT id FROM proposals") == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"definition": flow("fresh")}, 422, "several sources"),
        ({"definition": flow("release", "2")}, 422, "several sources have a workflow release"),
        ({"definition": flow("fresh"), "source": "nowhere"}, 404, "no source 'nowhere'"),
        ({"definition": flow("release", "1"), "source": "staging"}, 409, "there is nothing to propose"),
        ({"definition": flow("fresh"), "source": "staging", "path": "other.yaml"}, 409, "holds the workflow other"),
        ({"definition": flow("release", "2"), "source": "staging", "path": "new.yaml"}, 409, "release stands at flows/release.yaml"),
        ({"definition": flow("fresh"), "source": "staging", "pull_request": True}, 422, "no forge is known for source staging"),
        *(
            ({"definition": flow("fresh"), "source": "staging", "path": path}, 422, "cannot stand at")
            for path in (
                "../x.yaml", "/etc/x.yaml", "x.txt", ".git/x.yaml", "a/../../x.yaml", "functions/x.yaml", "x.test.yaml",
                "a//x.yaml", "./x.yaml", "-x.yaml", "x\n.yaml", "x .yaml", "a\\b.yaml", ".github/workflows/ci.yaml", "x.yaml/",
                ".GIT/x.yaml", "a/.git/x.yaml", "GIT~1/x.yaml", "\u200c.git/x.yaml", "functions/sub/x.yaml", "a" * 101 + ".yaml",
                "a/" * 9 + "x.yaml",
            )
        ),
    ],
)  # fmt: skip
async def test_what_cannot_be_proposed_is_told(
    sources: Sources, body: dict[str, Any], status: int, said: str
) -> None:
    answer = await sources.post("/workflows", body, status=status)
    assert said in answer["detail"]
    if "path" in body and status == 422:
        assert [each["pointer"] for each in answer["problems"]] == ["/path"]
    assert await sources.api.rows("SELECT id FROM proposals") == []


async def test_it_needs_an_operator(sources: Sources) -> None:
    for role in ("viewer", "approver"):
        await sources.post("/workflows", {"definition": flow("fresh")}, by=role, status=403)
        await sources.post(
            "/workflows/release/promote",
            {"from_source": "staging", "to_source": "production"},
            by=role,
            status=403,
        )


async def test_a_remote_that_is_away_is_waited_for(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PATIENCE", 0.5)
    away = sources.repository.path.rename(sources.repository.path.with_name("away"))
    said = await sources.post("/workflows", {"definition": flow("fresh"), "source": "staging"}, status=202)
    assert said["status"] == "PROPOSING"
    away.rename(sources.repository.path)
    await sources.api.rows("UPDATE proposals SET due_at = now()")
    await sources.proposer.pass_once()
    told = (await sources.api.call("GET", f"/proposals/{said['id']}", by="viewer")).json()
    while told["status"] == "PROPOSING":
        await asyncio.sleep(0.05)
        told = (await sources.api.call("GET", f"/proposals/{said['id']}", by="viewer")).json()
    assert told["status"] == "PROPOSED"


async def test_what_was_durable_when_the_api_failed_is_pushed_all_the_same(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"definition": flow("fresh"), "source": "staging"}
    monkeypatch.setenv("PINFLOW_FAULTS", "propose.after_commit=error")
    await sources.post("/workflows", body, status=500, Idempotency_Key="lost")
    monkeypatch.delenv("PINFLOW_FAULTS")
    said = await sources.post("/workflows", body, Idempotency_Key="lost")
    assert said["status"] == "PROPOSED"
    assert len(await sources.api.rows("SELECT id FROM proposals")) == 1


async def test_a_promotion_brings_the_live_bytes_to_the_other_source(sources: Sources) -> None:
    sources.repository.git("checkout", "-q", "staging")
    newer = sources.repository.commit({"flows/release.yaml": flow("release", "2")})
    sources.repository.git("checkout", "-q", "--detach")
    await sources.sync()
    said = await sources.post(
        "/workflows/release/promote", {"from_source": "staging", "to_source": "production"}
    )
    assert (said["kind"], said["source"], said["path"], said["direct"]) == (
        "promotion",
        "production",
        "flows/release.yaml",
        False,
    )
    sha = said["commit_sha"]
    assert sources.touched(sha) == ["flows/release.yaml"]
    assert (
        sources.repository.git("log", "-1", "--format=%(trailers:key=Promoted-From,valueonly)", sha)
        == f"staging@{newer}"
    )
    assert sources.repository.git("rev-parse", f"{sha}^") == sources.repository.git("rev-parse", "production")


async def test_a_direct_promotion_is_live_after_the_next_pass(sources: Sources) -> None:
    sources.repository.git("checkout", "-q", "staging")
    sources.repository.commit({"flows/release.yaml": flow("release", "2")})
    sources.repository.git("checkout", "-q", "--detach")
    await sources.sync()
    said = await sources.post(
        "/workflows/release/promote", {"from_source": "staging", "to_source": "production", "direct": True}
    )
    assert sources.repository.git("rev-parse", "production") == said["commit_sha"]
    await sources.sync()
    assert await live(sources, "production") == flow("release", "2")
    answer = await sources.post(
        "/workflows/release/promote", {"from_source": "staging", "to_source": "production"}, status=409
    )
    assert "nothing to promote" in answer["detail"]


async def test_functions_are_promoted_only_if_that_is_said(sources: Sources) -> None:
    sources.repository.git("checkout", "-q", "staging")
    sources.repository.commit(
        {
            "flows/release.yaml": flow("release", "2", function="m:f"),
            "flows/functions/m.py": "def f(): return 2\n",
        }
    )
    sources.repository.git("checkout", "-q", "--detach")
    await sources.sync()
    asked = {"from_source": "staging", "to_source": "production"}
    answer = await sources.post("/workflows/release/promote", asked, status=409)
    assert "functions that are others in production" in answer["detail"]
    said = await sources.post("/workflows/release/promote", asked | {"with_functions": True})
    assert sources.touched(said["commit_sha"]) == ["flows/functions/m.py", "flows/release.yaml"]


async def test_a_list_of_sources_in_git_is_no_place_for_a_definition(sources: Sources) -> None:
    await sources.api.rows(
        "INSERT INTO sources (name, kind, url, branch, folder) SELECT 'teams', 'sources', url, branch, 'flows/teams.yaml'"
        " FROM sources WHERE name = 'staging'"
    )
    body = {"definition": flow("fresh"), "source": "staging", "path": "Teams.yaml"}
    answer = await sources.post("/workflows", body, status=409)
    assert "flows/Teams.yaml is the list of sources teams" in answer["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"from_source": "staging", "to_source": "staging"}, 422),
        ({"from_source": "staging", "to_source": "production", "pull_request": True}, 422),
        ({"from_source": "staging", "to_source": "production", "pull_request": True, "direct": True}, 422),
        ({"from_source": "nowhere", "to_source": "production"}, 404),
        ({"from_source": "staging", "to_source": "nowhere"}, 404),
        ({"from_source": "staging", "to_source": "production"}, 409),
        ({}, 422),
    ],
)
async def test_what_cannot_be_promoted_is_told(sources: Sources, body: dict[str, Any], status: int) -> None:
    await sources.post("/workflows/release/promote", body, status=status)


async def live(sources: Sources, source: str) -> str:
    version = await sources.api.service.registry.resolve(f"{source}/release")
    return (await sources.api.service.registry.content(version.pin.digest)).decode()
