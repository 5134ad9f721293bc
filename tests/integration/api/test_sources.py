"""How sources are shown, and what people may do about one, over the API."""

from __future__ import annotations

from engine.api.schemas.common import Page
from engine.api.schemas.history import Revision, Source
from engine.storage import sources
from tests.integration.api.conftest import Api


async def held(api: Api, code: str = "MASS_DELETION") -> str:
    """Make the last revision of the source a held one; its commit."""
    sha = "c" * 40
    await api.rows(
        "INSERT INTO revisions (source_id, seq, sha, parent_sha, tree_sha, status, author, author_email, committer,"
        " committed_at, subject) SELECT source_id, seq + 1, :sha, sha, '', 'REJECTED', 'a', 'b', 'c', now(), 's'"
        " FROM revisions ORDER BY seq DESC LIMIT 1",
        sha=sha,
    )
    await api.rows(
        'INSERT INTO revision_problems (revision_id, file, line, "column", code, path, message, hint)'
        " SELECT id, '', 0, 0, :code, '', 'held', 'do something' FROM revisions WHERE sha = :sha",
        sha=sha,
        code=code,
    )
    return sha


async def name_of(api: Api) -> str:
    return str((await api.rows("SELECT name FROM sources"))[0]["name"])


async def test_a_source_that_nobody_watches_and_one_that_is_contested_are_warned_of(api: Api) -> None:
    await api.rows(
        "UPDATE sources SET checked_at = now(), watched_until = now() - interval '1 minute',"
        " contested_at = now(), contested_by = 'x dev workflows definitions'"
    )
    (shown,) = Page[Source].model_validate((await api.call("GET", "/sources")).json()).items
    assert not shown.watched
    assert "no daemon watches it any more" in shown.warnings[0]
    assert "it would watch x dev workflows definitions" in shown.warnings[1]
    assert "pinflow sync retire" in shown.action
    await api.rows(
        "UPDATE sources SET watched_until = now() + interval '1 minute', contested_at = now() - interval '1 hour'"
    )
    (shown,) = Page[Source].model_validate((await api.call("GET", "/sources")).json()).items
    assert shown.watched
    assert shown.warnings == []


async def test_a_fault_in_the_daemons_file_is_shown_and_is_no_setting(api: Api) -> None:
    said = "sources.yaml:3:38: SOURCES_FILE there is no such key here"
    async with api.database.begin() as connection:
        await sources.note_file_fault(connection, ["main"], said)
    (shown,) = Page[Source].model_validate((await api.call("GET", "/sources")).json()).items
    assert said in shown.warnings[-1]
    assert "file_fault" not in shown.settings
    async with api.database.begin() as connection:
        await sources.note_file_fault(connection, ["main"], "")
    (shown,) = Page[Source].model_validate((await api.call("GET", "/sources")).json()).items
    assert shown.warnings == []


async def test_a_held_commit_is_confirmed_once_and_by_whom_is_told(api: Api) -> None:
    name, sha = await name_of(api), await held(api)
    path = f"/sources/{name}/confirm"
    reply = await api.call("POST", path, {"commit_sha": sha[:8]}, by="operator")
    assert reply.status_code == 202, reply.text
    assert reply.json() == {"source": name, "commit_sha": sha, "codes": ["MASS_DELETION"]}
    assert (await api.call("POST", path, {"commit_sha": sha}, by="operator")).status_code == 409
    (row,) = (await api.call("GET", f"/audit?commit_sha={sha}")).json()["items"]
    assert (row["action"], row["actor"]) == ("source.confirmed", "o-person")
    (source,) = await api.rows("SELECT sync_requested_at FROM sources")
    assert source["sync_requested_at"] is not None


async def test_a_missing_signature_cannot_be_confirmed_away(api: Api) -> None:
    name, sha = await name_of(api), await held(api, "UNTRUSTED")
    reply = await api.call("POST", f"/sources/{name}/confirm", {"commit_sha": sha})
    assert reply.status_code == 409
    assert "which no confirmation passes" in reply.json()["detail"]


async def test_what_is_no_commit_is_refused_at_the_door(api: Api) -> None:
    for body in ({}, {"commit_sha": ""}, {"commit_sha": "x" * 40}, {"commit_sha": "a" * 65}):
        assert (await api.call("POST", "/sources/main/confirm", body)).status_code == 422
    unknown = await api.call("POST", "/sources/nowhere/confirm", {"commit_sha": "abcdef"})
    assert unknown.status_code == 404
    assert (await api.call("POST", "/sources/nowhere/retire")).status_code == 404


async def test_a_retired_source_starts_nothing_by_name(api: Api) -> None:
    name = await name_of(api)
    reply = await api.call("POST", f"/sources/{name}/retire")
    assert reply.json() == {"source": name, "retired": ["hello"]}
    assert (await api.start()).status_code == 404
    body = {"inputs": {"service": "web"}, "ref": api.version.commit_sha}
    assert (await api.call("POST", "/executions/workflows/hello/execute", body)).status_code == 202
    (shown,) = (await api.call("GET", "/sources")).json()["items"]
    assert shown["retired_at"]


async def test_who_signed_is_shown_on_revisions_and_on_runs(api: Api) -> None:
    await api.rows("UPDATE revisions SET signer = 'ada@example.test', signer_key = 'SHA256:x'")
    run = (await api.start()).json()["id"]
    assert (await api.call("GET", f"/executions/{run}")).json()["signer"] == "ada@example.test"
    (listed,) = (await api.call("GET", "/executions")).json()["items"]
    assert listed["signer"] == "ada@example.test"
    (revision,) = Page[Revision].model_validate((await api.call("GET", "/revisions")).json()).items
    assert (revision.signer, revision.signer_key) == ("ada@example.test", "SHA256:x")
