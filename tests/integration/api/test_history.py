"""What a commit deployed, what ran on it, who decided what."""

from __future__ import annotations

from engine.api.schemas.history import Commit
from tests.integration.api.conftest import INPUTS, Api
from tests.support.registered import compiled_form, register


async def test_a_commit_tells_what_it_deployed_who_ran_it_and_who_decided(api: Api) -> None:
    run = (await api.start(by="operator")).json()["id"]
    request = await api.ask(run)
    await api.call(
        "POST", f"/approvals/{request}/approve", {"decision": "approve", "comment": "yes"}, by="approver"
    )
    for sha in (api.version.commit_sha, api.version.commit_sha[:7]):
        reply = await api.call("GET", f"/commits/{sha}")
        assert reply.status_code == 200, reply.text
        told = Commit.model_validate(reply.json())
        assert [(change.name, change.change) for change in told.changes] == [("hello", "deployed")]
        assert [(item.id, item.started_by) for item in told.runs] == [(run, "o-person")]
        assert [(said.by, said.comment) for said in told.approvals[0].decisions] == [("a-person", "yes")]
        assert told.revisions[0].subject == "Change hello"


async def test_a_new_version_does_not_move_a_run_and_each_commit_has_its_own(api: Api) -> None:
    old = (await api.start()).json()
    newer = await register(api.database, compiled=compiled_form("hello", inputs=INPUTS, description="new"))
    new = (await api.start()).json()
    assert (old["commit_sha"], new["commit_sha"]) == (api.version.commit_sha, newer.commit_sha)
    shown = (await api.call("GET", f"/executions/{old['id']}")).json()
    assert (shown["commit_sha"], shown["digest"]) == (api.version.commit_sha, api.version.digest)
    told = (await api.call("GET", f"/commits/{newer.commit_sha}")).json()
    assert [item["id"] for item in told["runs"]] == [new["id"]]


async def test_the_audit_of_a_commit_is_in_order_and_pages(api: Api) -> None:
    run = (await api.start()).json()["id"]
    await api.call("POST", f"/executions/{run}/cancel", {"reason": "no"})
    seen: list[str] = []
    cursor = ""
    for _ in range(2):
        page = (
            await api.call("GET", f"/audit?commit_sha={api.version.commit_sha[:10]}&limit=2&cursor={cursor}")
        ).json()
        seen += [row["action"] for row in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ["execution.requested", "execution.started", "execution.cancel_requested"]
    only = (await api.call("GET", "/audit?action=execution.started")).json()["items"]
    assert [row["execution_id"] for row in only] == [run]
    tokens = (await api.call("GET", "/audit?action=token.")).json()["items"]
    assert {row["action"] for row in tokens} == {"token.created"}


async def test_an_unknown_commit_is_not_found(api: Api) -> None:
    assert (await api.call("GET", "/commits/" + "0" * 40)).status_code == 404
    assert (await api.call("GET", "/commits/zzz")).status_code == 404


async def test_a_short_sha_of_two_commits_is_an_error_that_names_both_wherever_it_is_given(api: Api) -> None:
    shas = ["abcd" + end * 36 for end in "12"]
    for number, sha in enumerate(shas):
        form = compiled_form("hello", inputs=INPUTS, description=str(number))
        await register(api.database, compiled=form, commit_sha=sha)
    run = (await api.start()).json()["id"]
    replies = [
        await api.call("GET", "/commits/abcd"),
        await api.call("GET", "/audit?commit_sha=abcd"),
        await api.call("GET", "/executions?commit_sha=ABCD"),
        await api.call("POST", "/executions/workflows/hello/execute", {"inputs": {}, "ref": "abcd"}),
        await api.call("POST", f"/executions/{run}/rerun", {"ref": "abcd"}),
    ]
    for reply in replies:
        assert reply.status_code in (400, 422), (reply.request.url, reply.text)
        assert all(sha[:16] in reply.text for sha in shas), reply.text
        assert "more characters" in reply.text
    for sha in shas:
        assert (await api.call("GET", f"/audit?commit_sha={sha[:5]}")).status_code == 200
    found = (await api.call("GET", f"/executions?commit_sha={shas[1][:5]}")).json()["items"]
    assert [item["id"] for item in found] == [run]


async def test_workflows_are_listed_and_shown_with_the_schema_of_their_inputs(api: Api) -> None:
    await register(api.database, "another")
    first = (await api.call("GET", "/workflows?limit=1")).json()
    assert [item["name"] for item in first["items"]] == ["another"]
    second = (await api.call("GET", f"/workflows?limit=1&cursor={first['next_cursor']}")).json()
    assert [item["name"] for item in second["items"]] == ["hello"]
    assert second["items"][0]["labels"] == {}
    shown = (await api.call("GET", "/workflows/hello?definition=true")).json()
    assert (shown["inputs"], shown["commit_sha"]) == (INPUTS, api.version.commit_sha)
    assert shown["definition"].startswith("# {")
    assert (await api.call("GET", "/workflows/main/hello")).json()["name"] == "hello"
    assert (await api.call("GET", "/workflows/nope")).status_code == 404


async def test_versions_say_from_when_to_when(api: Api) -> None:
    newer = await register(api.database, compiled=compiled_form("hello", description="new"))
    page = (await api.call("GET", "/workflows/hello/versions")).json()["items"]
    assert [(item["commit_sha"], item["live"]) for item in page] == [
        (newer.commit_sha, True),
        (api.version.commit_sha, False),
    ]
    assert page[1]["to_sha"] == newer.commit_sha


async def test_sources_and_revisions_are_shown_with_problems(api: Api) -> None:
    await api.rows("UPDATE revisions SET status = 'REJECTED'")
    await api.rows(
        'INSERT INTO revision_problems (revision_id, file, line, "column", code, path, message, hint)'
        " SELECT id, 'a.yaml', 3, 7, 'UNKNOWN_KEY', 'tasks.0', 'no such key', '' FROM revisions"
    )
    (source,) = (await api.call("GET", "/sources")).json()["items"]
    assert (source["name"], source["live_sha"]) == ("main", api.version.commit_sha)
    (revision,) = (await api.call("GET", "/revisions?source=main&status=REJECTED")).json()["items"]
    assert [(p["file"], p["line"], p["column"]) for p in revision["problems"]] == [("a.yaml", 3, 7)]
    assert (await api.call("GET", "/revisions?status=REGISTERED")).json()["items"] == []


async def test_a_listing_shows_the_first_problems_of_a_revision_and_the_commit_all(api: Api) -> None:
    await api.rows(
        'INSERT INTO revision_problems (revision_id, file, line, "column", code, path, message, hint)'
        " SELECT id, 'a.yaml', n, 1, 'UNKNOWN_KEY', '', 'no', '' FROM revisions, generate_series(1, 60) AS n"
    )
    (revision,) = (await api.call("GET", "/revisions")).json()["items"]
    assert revision["problem_count"] == 60
    assert [p["line"] for p in revision["problems"]] == list(range(1, 51))
    (revision,) = (await api.call("GET", f"/commits/{api.version.commit_sha}")).json()["revisions"]
    assert len(revision["problems"]) == 60


async def test_a_sync_can_be_asked_for(api: Api) -> None:
    reply = await api.call("POST", "/sources/main/sync", by="operator")
    assert (reply.status_code, reply.json()) == (202, {"asked": ["main"]})
    (row,) = await api.rows("SELECT sync_requested_at FROM sources")
    assert row["sync_requested_at"]
    assert (await api.call("POST", "/sources/other/sync")).status_code == 404
