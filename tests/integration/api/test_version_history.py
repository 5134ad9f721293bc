"""`GET /workflows/{id}/versions`: who brought each version, and how its runs ended."""

from __future__ import annotations

from engine.api.schemas.workflows import Version
from engine.storage import run_records
from engine.storage.run_records import RunRecord
from tests.integration.api.conftest import INPUTS, Api
from tests.support.registered import compiled_form, register


async def ended(api: Api, status: str) -> None:
    run = (await api.start()).json()["id"]
    record = RunRecord(run, status, None, None, [], 1_800_000_000.0)
    await run_records.finish(api.database, record, actor="test")


async def versions(api: Api) -> list[Version]:
    reply = await api.call("GET", "/workflows/hello/versions", by="viewer")
    assert reply.status_code == 200, reply.text
    return [Version.model_validate(each) for each in reply.json()["items"]]


async def test_each_version_has_its_commit_and_how_its_runs_ended(api: Api) -> None:
    for status in ("COMPLETED", "COMPLETED", "FAILED", "TIMED_OUT", "CANCELLED"):
        await ended(api, status)
    await api.start()
    await register(api.database, compiled=compiled_form("hello", inputs=INPUTS, description="new"))
    newer, older = await versions(api)
    assert (older.runs, older.runs_open, older.runs_completed, older.runs_failed) == (6, 1, 2, 2)
    assert older.failure_rate == 0.5
    assert (older.author, older.subject, older.live) == ("Ada Author", "Change hello", False)
    assert (newer.runs, newer.failure_rate, newer.live, newer.restored) == (0, None, True, False)


async def test_the_pull_request_is_the_one_that_the_commit_names(api: Api) -> None:
    await api.rows("UPDATE revisions SET subject = 'Merge pull request #12 from ada/topic'")
    assert [each.pull_request for each in await versions(api)] == [12]


async def test_a_restored_version_says_of_which_commit_its_bytes_are(api: Api) -> None:
    await register(api.database, compiled=compiled_form("hello", inputs=INPUTS, description="new"))
    # A revert: the first version is the live one again, from a third revision on.
    await api.rows("UPDATE version_ranges SET to_seq = 3 WHERE to_seq IS NULL")
    await api.rows(
        """
        WITH r AS (INSERT INTO revisions (source_id, seq, sha, parent_sha, tree_sha, status, author, author_email,
                                          committer, committed_at, subject)
                   SELECT source_id, 3, repeat('9', 40), '', '', 'REGISTERED', 'Eve', 'eve@example.test', 'Eve', now(),
                          'Revert' FROM revisions LIMIT 1 RETURNING source_id)
        INSERT INTO version_ranges (source_id, name, version_id, path, from_seq)
        SELECT r.source_id, 'hello', g.version_id, g.path, 3 FROM r, version_ranges g WHERE g.from_seq = 1
        """
    )
    newest = (await versions(api))[0]
    assert (newest.restored, newest.from_sha, newest.commit_sha) == (True, "9" * 40, api.version.commit_sha)
    assert newest.author == "Eve"
