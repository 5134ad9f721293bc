"""Every route is closed, by default and by role; every error is a problem; every body is bounded."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import httpx2
import pytest

from engine.api.app import create_app
from engine.api.limits import MAX_BODY
from tests.integration.api.conftest import Api

OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/oauth2-redirect"),
    ("POST", "/callbacks/{execution_id}/{address}"),
    ("POST", "/hooks/{workflow}/{trigger}"),
}

WRITES = {
    ("POST", "/executions/workflows/{workflow}/execute"): "operator",
    ("POST", "/executions/{execution_id}/cancel"): "operator",
    ("POST", "/executions/{execution_id}/pause"): "operator",
    ("POST", "/executions/{execution_id}/resume"): "operator",
    ("POST", "/executions/{execution_id}/signal"): "operator",
    ("POST", "/executions/{execution_id}/rerun"): "operator",
    ("POST", "/approvals/{approval_id}/approve"): "approver",
    ("POST", "/sources/{name}/sync"): "operator",
    ("POST", "/sources/{name}/confirm"): "operator",
    ("POST", "/sources/{name}/retire"): "admin",
    ("POST", "/workflows/{workflow}/triggers/{trigger}/backfill"): "operator",
    ("POST", "/workflows"): "operator",
    ("POST", "/workflows/{workflow}/promote"): "operator",
    ("POST", "/tokens"): "admin",
    ("GET", "/tokens"): "admin",
    ("DELETE", "/tokens/{token_id}"): "admin",
}
BODIES: dict[str, Any] = {
    "/executions/workflows/{workflow}/execute": {"inputs": {}},
    "/approvals/{approval_id}/approve": {"decision": "approve"},
    "/sources/{name}/confirm": {"commit_sha": "abcdef"},
    "/executions/{execution_id}/signal": {"name": "go"},
    "/workflows/{workflow}/triggers/{trigger}/backfill": {
        "from": "2026-01-01T00:00:00Z",
        "to": "2026-01-02T00:00:00Z",
    },
    "/tokens": {"subject": "x", "roles": ["viewer"]},
}


def routes(api: Api) -> list[tuple[str, str]]:
    """Method and template of every route that the app has."""
    schema = create_app(api.service).openapi()
    return [(method.upper(), path) for path, operations in schema["paths"].items() for method in operations]


def paths(found: Any) -> set[str]:
    """The templates of routes and of those that they include."""
    own = {route.path for route in found if getattr(route, "path", None)}
    inner = [route.original_router.routes for route in found if hasattr(route, "original_router")]
    return own.union(*(paths(routers) for routers in inner))


def concrete(path: str) -> str:
    """The template with something in its places."""
    return re.sub(r"\{[^}]*\}", "x1", path)


async def test_every_route_refuses_who_has_no_valid_token(api: Api) -> None:
    walked = 0
    for method, path in routes(api):
        if (method, path) in OPEN:
            continue
        for header in (
            None,
            "Bearer",
            "Bearer nothing",
            f"Bearer pf_{'a' * 43}",
            "Basic YTpi",
            f"bearer {'x' * 10_000}",
        ):
            headers = {"authorization": header} if header else {}
            reply = await api.client.request(method, concrete(path), headers=headers, json={})
            assert reply.status_code == 401, f"{method} {path} with {header!r}: {reply.status_code}"
            assert reply.headers["content-type"] == "application/problem+json"
            assert reply.headers["www-authenticate"].startswith("Bearer")
        walked += 1
    assert walked >= 18


async def test_no_route_is_hidden_from_the_walk(api: Api) -> None:
    app = create_app(api.service)
    walked = {path for _, path in routes(api)} | {path for _, path in OPEN}
    assert {path.replace(":path}", "}") for path in paths(app.routes)} == walked


async def test_each_role_may_do_what_it_includes_and_no_more(api: Api) -> None:
    allowed = {
        "viewer": {"viewer"},
        "operator": {"viewer", "operator"},
        "approver": {"viewer", "approver"},
        "admin": {"viewer", "operator", "approver", "admin"},
    }
    for method, path in routes(api):
        if (method, path) in OPEN:
            continue
        needed = WRITES.get((method, path), "viewer")
        for role, roles in allowed.items():
            reply = await api.call(method, concrete(path), BODIES.get(path, {}), by=role)
            assert (reply.status_code == 403) == (needed not in roles), (
                f"{role}: {method} {path}: {reply.text}"
            )
            assert reply.status_code < 500


async def test_a_revoked_or_expired_token_is_refused(api: Api) -> None:
    made = (await api.call("POST", "/tokens", {"subject": "bob", "roles": ["viewer"]})).json()
    api.tokens["bob"] = made["token"]
    assert (await api.call("GET", "/workflows", by="bob")).status_code == 200
    assert (await api.call("DELETE", f"/tokens/{made['id']}")).json()["revoked_at"]
    assert (await api.call("GET", "/workflows", by="bob")).status_code == 401
    short = (
        await api.call("POST", "/tokens", {"subject": "eve", "roles": ["viewer"], "expires_in": 0.001})
    ).json()
    api.tokens["eve"] = short["token"]
    assert (await api.call("GET", "/workflows", by="eve")).status_code == 401


async def test_the_text_of_a_token_is_shown_once_and_kept_nowhere(api: Api) -> None:
    made = (await api.call("POST", "/tokens", {"subject": "bob", "roles": ["viewer"]})).json()
    secret = made["token"]
    assert re.fullmatch(r"pf_[A-Za-z0-9_-]{43}", secret)
    assert secret not in (await api.call("GET", "/tokens")).text
    assert secret not in str(await api.rows("SELECT * FROM tokens")) + str(
        await api.rows("SELECT * FROM audit")
    )


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"subject": "sync", "roles": ["viewer"]}, "/subject"),
        ({"subject": "a b", "roles": ["viewer"]}, "/subject"),
        ({"subject": "bob", "roles": ["god"]}, "/roles/0"),
        ({"subject": "bob", "roles": []}, "/roles"),
        ({"subject": "bob", "roles": ["viewer"], "groups": ["a,b"]}, "/groups/0"),
        ({"subject": "bob", "roles": ["viewer"], "expires_in": -1}, "/expires_in"),
        ({"subject": "bob", "roles": ["viewer"], "admin": True}, "/admin"),
    ],
)
async def test_a_token_that_makes_no_sense_is_refused(api: Api, body: dict[str, Any], pointer: str) -> None:
    reply = await api.call("POST", "/tokens", body)
    assert reply.status_code == 422
    assert [problem["pointer"] for problem in reply.json()["problems"]] == [pointer]


async def test_unknown_paths_methods_and_bodies_are_problems(api: Api) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("DELETE", "/workflows", 405),
        ("PUT", "/approvals/x/approve", 405),
    ):
        reply = await api.call(method, path)
        assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
        assert set(reply.json()) >= {"type", "title", "status", "detail", "code"}


@pytest.mark.parametrize(
    ("path", "methods"), [("/workflows", "GET, POST"), ("/tokens", "GET, POST"), ("/executions/x", "GET")]
)
async def test_a_wrong_method_is_told_those_that_go(api: Api, path: str, methods: str) -> None:
    reply = await api.call("PUT", path)
    assert (reply.status_code, reply.headers["allow"]) == (405, methods)


async def test_what_the_edge_answers_is_documented_for_every_route(api: Api) -> None:
    paths = create_app(api.service).openapi()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            told = set(operation["responses"])
            assert told >= ({"400", "408", "413"} if method == "post" else {"400"}), (method, path)
    for path in ("/sources/{name}/confirm", "/sources/{name}/retire"):
        assert "409" in paths[path]["post"]["responses"]


async def test_a_number_is_no_yes_or_no(api: Api) -> None:
    for path, body in (("/executions/x/rerun", {"from_failed": 1}), ("/plan", {"files": [], "runs": True})):
        assert (await api.call("POST", path, body)).status_code == 422


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"inputs": ' + b"9" * 5000 + b"}"])
async def test_a_body_that_is_no_json_is_a_problem(api: Api, content: bytes) -> None:
    reply = await api.client.post(
        "/executions/workflows/hello/execute",
        content=content,
        headers={"authorization": f"Bearer {api.tokens['admin']}", "content-type": "application/json"},
    )
    assert reply.status_code in (400, 422), reply.text
    assert reply.headers["content-type"] == "application/problem+json"


async def test_a_body_is_cut_by_counted_bytes_whatever_it_declares(api: Api) -> None:
    async def chunks() -> Any:
        for _ in range(40):
            yield b" " * (MAX_BODY // 32)

    headers = {"authorization": f"Bearer {api.tokens['admin']}", "content-type": "application/json"}
    path = "/executions/workflows/hello/execute"
    for sent in (
        await api.client.post(path, content=b" " * (MAX_BODY + 1), headers=headers),
        await api.client.post(path, content=chunks(), headers=headers),
        await api.client.post(path, content=chunks(), headers={**headers, "content-length": "10"}),
    ):
        assert (sent.status_code, sent.json()["code"]) == (413, "TOO_LARGE")


async def test_hostile_parameters_never_make_a_fault(api: Api) -> None:
    hostile = [
        "%00",
        "a%00b",
        "' OR 1=1 --",
        "%F0%9F",
        "../../etc/passwd",
        "%25_%25",
        "x" * 2000,
        "\u202e",
        "{}",
        "-1",
        "1e9",
    ]
    for method, path in routes(api):
        for value in hostile:
            target = "/".join(value if part.startswith("{") else part for part in path.split("/"))
            reply = await api.call(
                method, f"{target}?cursor={value}&commit_sha={value}&workflow={value}&action={value}"
            )
            assert reply.status_code < 500 or path == "/readyz", f"{method} {target}: {reply.text}"


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/executions", ["a\0b"]),
        ("/executions", ["\ud800"]),
        ("/approvals", [2**63 - 1, "x"]),
        ("/approvals", [2**64, "x"]),
        ("/workflows", ["a", "b\0"]),
        ("/tokens", ["\0a"]),
    ],
)
async def test_forged_cursors_never_make_a_fault(api: Api, path: str, keys: list[Any]) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(keys).encode()).decode()
    assert (await api.call("GET", f"{path}?cursor={cursor}")).status_code in (200, 422)


async def test_health_needs_no_token_and_tells_the_truth(api: Api) -> None:
    assert (await api.call("GET", "/healthz", by="")).json() == {"status": "ok"}
    ready = await api.call("GET", "/readyz", by="")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "postgres": "ok", "temporal": "ok"})


async def test_metrics_tell_of_requests_runs_approvals_and_sources(api: Api) -> None:
    run = (await api.start()).json()["id"]
    await api.ask(run)
    page = (await api.call("GET", "/metrics", by="viewer")).text
    assert 'pinflow_open_runs{status="RUNNING"} 1.0' in page
    assert "pinflow_pending_approvals 1.0" in page
    assert 'route="/executions/workflows/{workflow:path}/execute",status="202"} 1.0' in page
    assert 'pinflow_source_condition{condition="Unknown",reason="",source="main"} 1.0' in page
    assert 'pinflow_source_condition_seconds{source="main"}' in page
    assert 'pinflow_source_watched{source="main"} 0.0' in page
    assert "pinflow_source_checked_seconds{" not in page, "nobody has looked"


async def test_metrics_tell_of_what_forges_and_remotes_wait_for(api: Api) -> None:
    await api.rows(
        "INSERT INTO forge_messages (source_id, kind, subject, body, sent_at, parked_at, created_at)"
        " SELECT s.id, 'status', t.subject, '{}', t.sent_at, t.parked_at, now() - interval '90 s' FROM sources s,"
        " (VALUES ('a', now(), NULL), ('b', NULL, now()), ('c', NULL, NULL)) AS t (subject, sent_at, parked_at)"
        " WHERE s.name = 'main'"
    )
    page = (await api.call("GET", "/metrics", by="viewer")).text
    for state in ("sent", "parked", "waiting"):
        assert f'pinflow_forge_messages{{kind="status",state="{state}"}} 1.0' in page
    (oldest,) = re.findall(r"^pinflow_forge_oldest_seconds (\S+)", page, re.MULTILINE)
    assert float(oldest) >= 90
    assert 'pinflow_proposals{status="PROPOSING"} 0.0' in page
    assert "pinflow_proposals_oldest_seconds 0.0" in page


async def test_the_openapi_names_problems_and_the_token(api: Api) -> None:
    schema = (await api.call("GET", "/openapi.json", by="")).json()
    execute = schema["paths"]["/executions/workflows/{workflow}/execute"]["post"]
    assert execute["security"] == [{"token": []}]
    assert list(execute["responses"]["409"]["content"]) == ["application/problem+json"]
    assert "HTTPValidationError" not in str(schema)
    assert isinstance(await api.call("GET", "/docs", by=""), httpx2.Response)
