"""`POST /plan`: the plan of a change, and what it would meet on this server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from sqlalchemy import text

from engine.api.app import create_app
from engine.api.schemas.plans import PlanAnswer
from engine.cli.main import run as pinflow
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.dsl.compiler import canonical, digest
from engine.planning.planner import FileChange, make_plan
from engine.planning.plans import DefinitionPlan, Plan, from_json
from engine.planning.reports import as_markdown
from engine.registry.revisions import Bundle, Commit, RevisionPlan, VersionContent
from engine.storage import run_records, sources
from engine.storage.run_records import RunRecord
from tests.integration.api.conftest import Api
from tests.support.fake_forge import fake_forge
from tests.support.git import Repository
from tests.support.pipelines import environment, run_action, run_job

RELEASE = """\
name: release
inputs: {type: object, properties: {loud: {type: boolean, default: false}}}
tasks:
  - {id: build, activity_type: http_request, config: {method: POST, url: "https://x.example.test/"}}
  - {id: shout, type: set, depends_on: [build], when: "${{ inputs.loud }}", values: {done: true}}
"""
FLIPPED = RELEASE.replace("inputs.loud }}", "!inputs.loud }}")
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


async def deploy(api: Api, source: str, definition: str, *, commit: str, folder: str = "workflows") -> None:
    """Make a definition live, as the daemon does."""
    async with api.database.begin() as connection:
        source_id = await sources.ensure(connection, name=source, url="/r", branch="main", folder=folder)
    checked = check(definition.encode(), "release.yaml", ActivityTypes.default())
    assert checked.compiled is not None, checked.problems
    compiled = canonical(checked.compiled)
    plan = RevisionPlan(
        source_id=source_id,
        source=source,
        folder=folder,
        commit=Commit(commit, "", "", "Ada", "ada@example.test", "Ada", NOON, "Change"),
        expected=await api.service.registry.cursor(source_id),
        bundle=Bundle(),
        deploys=(
            VersionContent(
                name=checked.name, path=f"{folder}/release.yaml", git_blob="0" * 40, digest=digest(definition.encode()),
                compiled_digest=digest(compiled), bundle_digest="", dsl="1", version="", title="", description="",
                labels={}, uses_functions=False, text=definition.encode(), compiled=compiled,
            ),
        ),
    )  # fmt: skip
    await api.service.registry.publish(plan)


async def ran(api: Api, *, loud: bool) -> str:
    """A run of `release` that has ended, as its last step and the workers recorded it."""
    started = await api.call("POST", "/executions/workflows/release/execute", {"inputs": {"loud": loud}})
    assert started.status_code == 202, started.text
    run = str(started.json()["id"])
    at = NOON.timestamp()
    tasks: list[dict[str, Any]] = [
        {"id": "build", "status": "COMPLETED", "attempts": 1, "started_at": at, "finished_at": at + 2,
         "outputs": {"status": 200, "headers": {}, "body": {}}},
        {"id": "shout", "status": "COMPLETED", "attempts": 0, "started_at": at + 2, "finished_at": at + 2, "outputs": {"done": True}}
        if loud
        else {"id": "shout", "status": "SKIPPED", "skip_reason": "condition", "attempts": 0, "outputs": {}},
    ]  # fmt: skip
    await run_records.finish(
        api.database, RunRecord(run, "COMPLETED", None, None, tasks, at + 3), actor="test"
    )
    return run


async def ask(api: Api, old: str | None, new: str | None, *, folder: str = "", **more: Any) -> Plan:
    files = [{"path": "workflows/release.yaml", "old": old, "new": new, "folder": folder}]
    reply = await api.call("POST", "/plan", {"files": files, **more}, by="viewer")
    assert reply.status_code == 200, reply.text
    PlanAnswer.model_validate(reply.json())
    return from_json(reply.json())


@pytest_asyncio.fixture(loop_scope="session")
async def live(api: Api) -> Api:
    await deploy(api, "production", RELEASE, commit="1" * 40)
    return api


async def test_the_plan_is_the_one_that_is_made_offline(live: Api) -> None:
    offline = make_plan(
        "base",
        "head",
        [FileChange("workflows/release.yaml", RELEASE.encode(), FLIPPED.encode())],
        types=ActivityTypes.default(),
    )
    assert without_server(await ask(live, RELEASE, FLIPPED)) == offline


async def test_it_says_what_is_live_and_whether_the_plan_starts_from_it(live: Api) -> None:
    [definition] = (await ask(live, RELEASE, FLIPPED)).definitions
    [met] = definition.live
    assert (met.source, met.commit_sha, met.is_base) == ("production", "1" * 40, True)
    [definition] = (await ask(live, RELEASE + "\n", FLIPPED)).definitions
    assert not definition.live[0].is_base


async def test_open_runs_are_counted_by_the_commit_that_they_keep(live: Api) -> None:
    for _ in range(2):
        await live.call("POST", "/executions/workflows/release/execute", {"inputs": {}})
    await deploy(live, "production", FLIPPED, commit="2" * 40)
    await live.call("POST", "/executions/workflows/release/execute", {"inputs": {}})
    [definition] = (await ask(live, FLIPPED, None)).definitions
    assert [(runs.commit_sha, runs.count) for runs in definition.live[0].runs] == [
        ("1" * 40, 2),
        ("2" * 40, 1),
    ]


async def test_a_flipped_condition_names_the_recorded_runs_that_would_go_another_way(live: Api) -> None:
    quiet, loud = await ran(live, loud=False), await ran(live, loud=True)
    before = await live.rows("SELECT count(*) AS count FROM audit")
    [definition] = (await ask(live, RELEASE, FLIPPED)).definitions
    [met] = definition.live
    assert met.replayed == 2
    assert {(each.run, each.task, each.was, each.would) for each in met.differ} == {
        (quiet, "shout", "SKIPPED", "COMPLETED"),
        (loud, "shout", "COMPLETED", "SKIPPED"),
    }
    assert await live.rows("SELECT count(*) AS count FROM audit") == before


async def test_a_condition_that_hits_some_names_these_alone(live: Api) -> None:
    await ran(live, loud=False)
    loud = await ran(live, loud=True)
    never = RELEASE.replace("inputs.loud }}", "inputs.loud && false }}")
    [definition] = (await ask(live, RELEASE, never)).definitions
    assert [each.run for each in definition.live[0].differ] == [loud]


async def test_history_can_be_left_out(live: Api) -> None:
    await ran(live, loud=True)
    [definition] = (await ask(live, RELEASE, FLIPPED, runs=0)).definitions
    assert (definition.live[0].replayed, definition.live[0].differ) == (0, ())


async def test_a_plan_looks_at_so_many_runs_and_says_so(live: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await ran(live, loud=True)
    await ran(live, loud=True)
    monkeypatch.setattr("engine.services.plans.MAX_RUNS", 1)
    plan = await ask(live, RELEASE, FLIPPED)
    assert plan.definitions[0].live[0].replayed == 1
    assert plan.notes == ("of 1 definitions not all recorded runs were looked at: name some as PATH",)


async def test_each_source_that_has_the_name_is_told_unless_one_is_named(live: Api) -> None:
    await deploy(live, "staging", FLIPPED, commit="3" * 40)
    [definition] = (await ask(live, RELEASE, FLIPPED)).definitions
    assert [met.source for met in definition.live] == ["production", "staging"]
    [definition] = (await ask(live, RELEASE, FLIPPED, source="staging")).definitions
    assert [met.source for met in definition.live] == ["staging"]


async def test_a_source_that_is_not_there_is_told_beside_those_that_are(live: Api) -> None:
    reply = await live.call("POST", "/plan", {"files": [], "source": "prodution"})
    assert reply.status_code == 404
    assert "prodution" in reply.json()["detail"]
    assert "production" in reply.json()["hint"]


async def test_parents_that_start_it_by_name_are_told(live: Api) -> None:
    body = json.dumps(
        {"tasks": [{"type": "workflow", "workflow": "release"}]}, separators=(",", ":")
    ).encode()
    async with live.database.begin() as connection:
        await connection.execute(
            text("INSERT INTO blobs (digest, kind, content) VALUES ('p', 'compiled', :body)"), {"body": body}
        )
        await connection.execute(
            text(
                "WITH v AS (INSERT INTO workflow_versions (source_id, name, commit_sha, seq, path, digest, compiled_digest,"
                " git_blob, dsl, version, title, description, labels, uses_functions) SELECT id, 'nightly', 'x', 9, 'n.yaml',"
                " 'p', 'p', '', '1', '', '', '', '{}', false FROM sources WHERE name = 'production' RETURNING id, source_id)"
                " INSERT INTO workflow_definitions (source_id, name, live_version_id, path)"
                " SELECT source_id, 'nightly', id, 'n.yaml' FROM v"
            )
        )
    [definition] = (await ask(live, RELEASE, None)).definitions
    assert definition.live[0].parents == ("nightly",)


async def test_an_invalid_head_has_its_problems_and_meets_nothing(live: Api) -> None:
    plan = await ask(live, RELEASE, RELEASE.replace("type: set", "type: sett"))
    assert [problem.file for problem in plan.problems] == ["workflows/release.yaml"]
    assert all(not each.live for each in plan.definitions)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"files": [{"path": ""}]},
        {"files": [], "runs": 101},
        {"files": [], "unknown": 1},
        {"files": [{"path": "a", "old": "\x00", "new": "x"}], "base": "\x00"},
    ],
)
async def test_a_bad_request_is_told_by_pointer(live: Api, body: dict[str, Any]) -> None:
    reply = await live.call("POST", "/plan", body)
    assert reply.status_code == 422
    assert reply.json()["problems"]


async def test_hostile_texts_are_problems_of_the_definition(live: Api) -> None:
    for hostile in ("[" * 50_000, "\x00", "a: &a [*a]", "name: x\ntasks: 3", "\ud800"):
        body = json.dumps({"files": [{"path": "w/x.yaml", "old": hostile, "new": hostile + " "}]})
        headers = {"authorization": f"Bearer {live.tokens['viewer']}", "content-type": "application/json"}
        reply = await live.client.post("/plan", content=body, headers=headers)
        assert reply.status_code == 200, reply.text
        assert not reply.json()["valid"]


@pytest_asyncio.fixture(loop_scope="session")
async def served(live: Api) -> AsyncIterator[str]:
    """The address of the API on a socket, for a client that is a process of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(live.service), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    await serving


async def test_the_command_and_the_api_give_the_same_plan(
    live: Api,
    served: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await ran(live, loud=True)
    clone = Repository(tmp_path / "clone")
    base = clone.commit({"workflows/release.yaml": RELEASE})
    head = clone.commit({"workflows/release.yaml": FLIPPED})
    monkeypatch.chdir(clone.path)
    monkeypatch.setenv("PINFLOW_TOKEN", live.tokens["viewer"])
    asked = ["plan", f"{base}..{head}", "--format", "json"]
    assert await asyncio.to_thread(pinflow, [*asked, "--server", served]) == 0
    from_command = from_json(json.loads(capsys.readouterr().out))
    assert await asyncio.to_thread(pinflow, asked) == 0
    offline = from_json(json.loads(capsys.readouterr().out))
    from_api = await ask(live, RELEASE, FLIPPED, base=base, head=head)
    assert from_command == replace(from_api, server=served)
    assert without_server(from_command) == offline
    assert len(from_command.definitions[0].live[0].differ) == 1


async def test_what_changes_is_checked_against_what_stays(live: Api) -> None:
    parent = "name: parent\ntasks: [{id: c, type: workflow, workflow: release, inputs: {loud: true}}]\n"
    calls = "name: calls\ntasks: [{id: f, activity_type: python_function, config: {function: 'm:f'}}]\n"
    source = {
        "folder": "workflows",
        "others": {"workflows/parent.yaml": parent},
        "names": {"parent": "workflows/parent.yaml", "far": "workflows/far.yaml"},
        "modules": {"m.py": ["g"]},
        "lock": {"requirements.txt": "httpx\n"},
    }
    files = [
        {"path": "workflows/release.yaml", "old": RELEASE, "new": None, "folder": "workflows"},
        {"path": "workflows/calls.yaml", "old": None, "new": calls, "folder": "workflows"},
        {"path": "workflows/far2.yaml", "old": None, "new": parent.replace("parent", "far2").replace(" release", " far"), "folder": "workflows"},
    ]  # fmt: skip
    reply = await live.call("POST", "/plan", {"files": files, "sources": [source]}, by="viewer")
    assert reply.status_code == 200, reply.text
    found = [(each["file"], each["line"], each["code"]) for each in reply.json()["problems"]]
    assert found == [
        ("workflows/functions/requirements.txt", 1, "FUNCTION_LOCK"),
        ("workflows/calls.yaml", 2, "FUNCTION"),
        ("workflows/parent.yaml", 2, "CALL"),
    ]


async def test_the_command_sends_what_the_server_needs_to_say_the_same(
    live: Api,
    served: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clone = Repository(tmp_path / "clone")
    parent = "name: parent\ntasks:\n  - {id: c, type: workflow, workflow: release}\n"
    calls = "  - {id: f, activity_type: python_function, config: {function: 'm:f'}}\n"
    files = {"workflows/release.yaml": RELEASE, "workflows/functions/m.py": "def f(): ...\n"}
    base = clone.commit({**files})
    head = clone.commit({"workflows/parent.yaml": parent + calls})
    monkeypatch.chdir(clone.path)
    monkeypatch.setenv("PINFLOW_TOKEN", live.tokens["viewer"])
    asked = ["plan", f"{base}..{head}", "--format", "json", "--server", served]
    assert await asyncio.to_thread(pinflow, asked) == 0, capsys.readouterr()
    plan = from_json(json.loads(capsys.readouterr().out))
    assert (plan.server, [each.name for each in plan.definitions]) == (served, ["parent"])


async def test_the_pipelines_of_the_forges_give_the_same_plan(live: Api, served: str, tmp_path: Path) -> None:
    loud = await ran(live, loud=True)
    clone = Repository(tmp_path / "clone")
    base = clone.commit({"workflows/release.yaml": RELEASE})
    clone.git("checkout", "-q", "-b", "topic")
    clone.commit({"workflows/release.yaml": FLIPPED})
    clone.git("checkout", "-q", "main")
    head = clone.merge("topic")
    async with fake_forge("github") as github:
        done = await run_action(github, clone.path, tmp_path, server=served, token=live.tokens["viewer"])
    assert done["Plan"].returncode == 0, done["Plan"].stderr
    clone.git("checkout", "-q", "topic")
    async with fake_forge("gitlab") as gitlab:
        env = environment(PINFLOW_URL=served, PINFLOW_TOKEN=live.tokens["viewer"])
        done["gitlab"] = await run_job("pinflow-plan", gitlab, clone.path, base, env)
    assert done["gitlab"].returncode == 0, done["gitlab"].stderr
    from_api = replace(
        await ask(live, RELEASE, FLIPPED, base=base, head=head, folder="workflows"), server=served
    )
    from_action = from_json(json.loads((tmp_path / "pinflow-plan.json").read_text()))
    from_gitlab = from_json(json.loads((clone.path / "pinflow-plan.json").read_text()))
    assert from_action == from_api
    assert from_gitlab == replace(from_api, head=clone.git("rev-parse", "topic"))
    assert [each["body"] for each in (*github.comments, *gitlab.comments)] == [
        as_markdown(from_action),
        as_markdown(from_gitlab),
    ]
    assert loud in github.comments[0]["body"]


async def test_of_folders_as_environments_the_one_that_holds_the_file_is_told(live: Api) -> None:
    await deploy(live, "staging", RELEASE, commit="3" * 40, folder="staging")
    for path, met in (
        ("staging/release.yaml", ["staging"]),
        ("workflows/release.yaml", ["production"]),
        ("elsewhere/release.yaml", ["production", "staging"]),
    ):
        files = [{"path": path, "old": RELEASE, "new": FLIPPED}]
        reply = await live.call("POST", "/plan", {"files": files})
        [definition] = from_json(reply.json()).definitions
        assert [each.source for each in definition.live] == met


async def test_the_same_name_in_two_folders_is_two_workflows(live: Api) -> None:
    files = [
        {"path": f"{folder}/release.yaml", "old": RELEASE, "new": FLIPPED, "folder": folder}
        for folder in ("staging", "workflows")
    ]
    reply = await live.call("POST", "/plan", {"files": files})
    assert [each["path"] for each in reply.json()["definitions"]] == [each["path"] for each in files]
    of_one_source = [each | {"folder": ""} for each in files]
    assert not (await live.call("POST", "/plan", {"files": of_one_source})).json()["valid"]


def without_server(plan: Plan) -> Plan:
    """What an offline plan knows as well."""
    definitions = tuple(
        DefinitionPlan(each.name, each.change, each.path, each.old_path, each.changes)
        for each in plan.definitions
    )
    return Plan(plan.base, plan.head, definitions, plan.problems, notes=plan.notes)
