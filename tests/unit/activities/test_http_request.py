"""`http_request` against real sockets: what is sent, what comes back, and what a bad peer can do."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from engine.activities.context import Workbench
from tests.support.activities import attempt, call, workbench
from tests.support.evil_server import Seen, Server, always, answer, serving


@pytest.fixture
async def bench() -> AsyncIterator[Workbench]:
    async with workbench() as made:
        yield made


async def send(bench: Workbench, config: dict[str, Any], *, timeout: float = 10.0, number: int = 1) -> Any:
    return await attempt(bench, call("http_request", config), timeout=timeout, number=number)


async def failure(bench: Workbench, config: dict[str, Any], *, timeout: float = 10.0) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        await send(bench, config, timeout=timeout)
    return caught.value


def config(server: Server, path: str = "/", **more: Any) -> dict[str, Any]:
    return {"url": server.url(path), **more}


# --- what is sent -------------------------------------------------------------------------------------------


async def test_json_in_and_out(bench: Workbench) -> None:
    async with serving(always(answer(b'{"ok": [1, 2.5, null]}', content_type="application/json"))) as server:
        result = await send(bench, config(server, "/build", method="POST", json={"service": "wéb"}))
    assert result["status"] == 200
    assert result["body"] == {"ok": [1, 2.5, None]}
    assert result["headers"]["content-type"] == "application/json"
    seen = server.seen[0]
    assert (seen.method, seen.target) == ("POST", "/build")
    assert json.loads(seen.body) == {"service": "wéb"}
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["host"] == f"127.0.0.1:{server.port}"


async def test_idempotency_key_is_the_same_over_attempts(bench: Workbench) -> None:
    async with serving(always(answer(b""))) as server:
        await send(bench, config(server))
        await send(bench, config(server), number=2)
    assert [seen.headers["idempotency-key"] for seen in server.seen] == ["run-1/t", "run-1/t"]


async def test_json_null_is_a_body(bench: Workbench) -> None:
    async with serving(always(answer(b""))) as server:
        await send(bench, config(server, method="PUT", json=None))
    assert server.seen[0].body == b"null"


async def test_form_is_encoded(bench: Workbench) -> None:
    async with serving(always(answer(b""))) as server:
        await send(bench, config(server, method="POST", form={"a": "x & y", "b": [1, True]}))
    assert server.seen[0].body == b"a=x+%26+y&b=1&b=true"


async def test_query_is_encoded_and_added(bench: Workbench) -> None:
    async with serving(always(answer(b""))) as server:
        await send(
            bench, config(server, "/p?x=1", query={"q": "a&b=c#d\r\n", "n": None, "l": [1, 2], "t": True})
        )
    assert server.seen[0].target == "/p?x=1&q=a%26b%3Dc%23d%0D%0A&l=1&l=2&t=true"


async def test_headers_of_the_task_are_sent(bench: Workbench) -> None:
    async with serving(always(answer(b""))) as server:
        await send(
            bench, config(server, headers={"Authorization": "Bearer x", "X-N": 5, "idempotency-key": "own"})
        )
    headers = server.seen[0].headers
    assert (headers["authorization"], headers["x-n"], headers["idempotency-key"]) == ("Bearer x", "5", "own")


async def test_proxy_of_the_environment_is_ignored(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with workbench() as fresh, serving(always(answer(b"direct"))) as server:
        assert (await send(fresh, config(server)))["body"] == "direct"


async def test_cookies_are_not_kept_between_calls(bench: Workbench) -> None:
    async with serving(always(answer(b"", set_cookie="session=1"))) as server:
        await send(bench, config(server))
        await send(bench, config(server))
    assert "cookie" not in server.seen[1].headers


async def test_connection_is_used_again(bench: Workbench) -> None:
    async with serving(always(answer(b"x")), keep_alive=True) as server:
        for _ in range(5):
            await send(bench, config(server))
    assert server.connections == 1


# --- what comes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/problem+json; charset=utf-8", b'{"a":1}', {"a": 1}),
        ("application/json", b"not json", "not json"),
        ("application/json", b"NaN", "NaN"),
        ("application/json", b"[" * 100_000, "[" * 100_000),
        ("application/json", b"1" * 5000, "1" * 5000),
        ("text/plain", b'{"a":1}', '{"a":1}'),
        ("text/plain; charset=latin-1", b"\xe9", "é"),
        ("text/plain; charset=zip", b"\xe9", "\ufffd"),
        ("application/octet-stream", b"\xff\x00", "\ufffd\x00"),
        ("text/plain", b"", None),
    ],
)
async def test_body_is_json_or_text(bench: Workbench, content_type: str, body: bytes, expected: Any) -> None:
    async with serving(always(answer(body, content_type=content_type))) as server:
        assert (await send(bench, config(server)))["body"] == expected


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"hello", mtime=0)),
        ("gzip", gzip.compress(b"hel", mtime=0) + gzip.compress(b"lo", mtime=0)),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", zlib.compress(b"hello")[2:-4]),
        ("identity", b"hello"),
    ],
)
async def test_compressed_body(bench: Workbench, encoding: str, body: bytes) -> None:
    async with serving(always(answer(body, content_encoding=encoding))) as server:
        assert (await send(bench, config(server)))["body"] == "hello"


async def test_deep_json_is_refused_rather_than_carried_into_the_run(bench: Workbench) -> None:
    body = b"[" * 500 + b"]" * 500
    async with serving(always(answer(body, content_type="application/json"))) as server:
        error = await failure(bench, config(server))
    assert (error.type, error.non_retryable) == ("INVALID_RESULT", True)


@pytest.mark.parametrize(
    ("status", "expected", "kind"),
    [
        ("404 Not Found", "2xx", "HTTP_4XX"),
        ("429 Too Many", "2xx", "HTTP_4XX"),
        ("503 Away", "2xx", "HTTP_5XX"),
        ("302 Found", "2xx", "HTTP_STATUS"),
        ("200 OK", 201, "HTTP_STATUS"),
        ("200 OK", [201, "4xx"], "HTTP_STATUS"),
        ("404 Not Found", [200, 404], None),
        ("201 Created", "2xx", None),
    ],
)
async def test_expected_status(bench: Workbench, status: str, expected: Any, kind: str | None) -> None:
    async with serving(always(answer(b'{"why":"x"}', status, content_type="application/json"))) as server:
        if kind is None:
            assert (await send(bench, config(server, expected_status=expected)))["status"] == int(status[:3])
            return
        error = await failure(bench, config(server, expected_status=expected))
    assert error.type == kind
    assert error.details[0]["details"] == {"status": int(status[:3]), "body": {"why": "x"}}
    assert not error.non_retryable


async def test_error_does_not_show_path_or_query(bench: Workbench) -> None:
    async with serving(always(answer(b"", "500 Oops"))) as server:
        error = await failure(bench, config(server, "/hooks/s3cret", query={"token": "s3cret"}))
    assert "s3cret" not in f"{error.message}{error.details}"


# --- redirects ----------------------------------------------------------------------------------------------


async def test_redirects_are_followed_if_asked(bench: Workbench) -> None:
    async def handle(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", "307 Go", location="/there") if seen.target == "/" else answer(seen.body))

    async with serving(handle) as server:
        result = await send(bench, config(server, method="POST", body="hi", follow_redirects=True))
    assert result["body"] == "hi"
    assert [seen.method for seen in server.seen] == ["POST", "POST"]


async def test_see_other_becomes_a_get_without_body(bench: Workbench) -> None:
    async def handle(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", "303 See", location="/there") if seen.target == "/" else answer(b"done"))

    async with serving(handle) as server:
        await send(bench, config(server, method="POST", json={}, follow_redirects=True))
    last = server.seen[1]
    assert (last.method, last.body, "content-type" in last.headers) == ("GET", b"", False)


async def test_secrets_do_not_cross_origins(bench: Workbench) -> None:
    headers = {"authorization": "Bearer x", "cookie": "a=b", "x-api-key": "k", "accept": "text/plain"}
    async with (
        serving(always(answer(b"other"))) as other,
        serving(always(answer(b"", "302 Go", location=other.url("/x")))) as server,
    ):
        await send(bench, config(server, headers=headers, follow_redirects=True))
    got = other.seen[0].headers
    assert not {"authorization", "cookie", "x-api-key"} & got.keys()
    assert (got["accept"], got["idempotency-key"]) == ("text/plain", "run-1/t")


async def test_headers_stay_within_the_origin(bench: Workbench) -> None:
    async def handle(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", "302 Go", location="/b") if seen.target == "/" else answer(b""))

    async with serving(handle) as server:
        await send(bench, config(server, headers={"authorization": "Bearer x"}, follow_redirects=True))
    assert server.seen[1].headers["authorization"] == "Bearer x"


async def test_endless_redirects_end(bench: Workbench) -> None:
    async with serving(always(answer(b"", "302 Go", location="/"))) as server:
        assert (await failure(bench, config(server, follow_redirects=True))).type == "PROTOCOL"
    assert len(server.seen) == 11


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/", "file:///etc/passwd", "javascript:alert(1)"])
async def test_redirect_to_another_scheme_is_denied(bench: Workbench, location: str) -> None:
    async with serving(always(answer(b"", "302 Go", location=location))) as server:
        assert (await failure(bench, config(server, follow_redirects=True))).type == "DENIED"


# --- egress -------------------------------------------------------------------------------------------------

SPELLINGS = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001",
    "127.0.0.1.", "localhost", "LOCALHOST", "localhost.", "0.0.0.0", "0", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[fe80::1]", "169.254.169.254", "2852039166",
    "0xa9fea9fe", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "10.0.0.1", "192.168.0.1", "172.16.0.1",
    "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_a_private_address_is_connected_to(host: str) -> None:
    async with workbench(http_allow=()) as closed, serving(always(answer(b"secret"))) as server:
        error = await failure(closed, {"url": server.url(host=host)})
        assert error.type in ("DENIED", "CONNECT", "INVALID_CONFIG"), error
        assert server.connections == 0


async def test_denied_is_not_retried() -> None:
    async with workbench(http_allow=()) as closed:
        error = await failure(closed, {"url": "http://127.0.0.1:9"})
    assert (error.type, error.non_retryable) == ("DENIED", True)
    assert "PINFLOW_HTTP_ALLOW" in error.message


async def test_redirect_inward_is_denied() -> None:
    async with (
        serving(always(answer(b"secret"))) as inner,
        serving(always(answer(b"", "302 Go", location=inner.url()))) as outer,
        workbench(http_allow=(f"127.0.0.1:{outer.port}",)) as half,
    ):
        error = await failure(half, config(outer, follow_redirects=True))
    assert (error.type, inner.connections) == ("DENIED", 0)


async def test_name_with_one_private_address_among_public_ones_is_denied() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"]

    async with workbench(http_allow=(), resolve=resolve) as closed:
        assert (await failure(closed, {"url": "http://mixed.example/"})).type == "DENIED"


async def test_name_that_changes_its_answer_gains_nothing() -> None:
    """DNS rebinding: what was judged is what is connected to, and each connection is judged anew."""
    answers = [["198.51.100.1"], ["127.0.0.1"]]
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), 2) - 1]

    async with serving(always(answer(b"secret"))) as server:
        async with workbench(http_allow=("198.51.100.0/24",), resolve=resolve) as closed:
            first = asyncio.create_task(
                failure(closed, {"url": server.url(host="rebind.example")}, timeout=1.0)
            )
            await first
            second = await failure(closed, {"url": server.url(host="rebind.example")})
        assert (second.type, server.connections) == ("DENIED", 0)
    assert asked == ["rebind.example", "rebind.example"]


async def test_host_and_checked_address_are_kept_apart() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with (
        workbench(http_allow=("shop.example",), resolve=resolve) as bench,
        serving(always(answer(b"hi"))) as server,
    ):
        await send(bench, {"url": server.url(host="shop.example")})
    assert server.seen[0].headers["host"] == f"shop.example:{server.port}"


# --- bad config ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"url": "ftp://x/"}, "config.url"),
        ({"url": "http://user:pw@x/"}, "config.url"),
        ({"url": "http://good@127.0.0.1/"}, "config.url"),
        ({"url": "http://x/a b"}, "config.url"),
        ({"url": "http://x/\r\nX: y"}, "config.url"),
        ({"url": "http:///x"}, "config.url"),
        ({"url": "http://x:99999/"}, "config.url"),
        ({"url": 5}, "config.url"),
        ({}, "config.url"),
        ({"url": "http://x/", "headers": {"a": "b\r\nc: d"}}, "config.headers"),
        ({"url": "http://x/", "headers": {"a": "b\x00"}}, "config.headers"),
        ({"url": "http://x/", "headers": {"a\r\nb": "c"}}, "config.headers"),
        ({"url": "http://x/", "headers": {"Host": "y"}}, "config.headers"),
        ({"url": "http://x/", "headers": {"Transfer-Encoding": "chunked"}}, "config.headers"),
        ({"url": "http://x/", "method": "TRACE"}, "config.method"),
        ({"url": "http://x/", "json": {}, "body": ""}, "give one of"),
        ({"url": "http://x/", "expected_status": 99}, "config.expected_status"),
        ({"url": "http://x/", "max_response_bytes": 0}, "config.max_response_bytes"),
        ({"url": "http://x/", "bogus": 1}, "config.bogus"),
        ("text", "config"),
    ],
)
async def test_bad_config_is_not_retried_and_names_the_field(
    bench: Workbench, wrong: Any, where: str
) -> None:
    error = await failure(bench, wrong)
    assert (error.type, error.non_retryable) == ("INVALID_CONFIG", True)
    assert where in error.message


async def test_bad_config_does_not_show_the_value(bench: Workbench) -> None:
    assert "hunter2" not in (await failure(bench, {"url": "http://joe:hunter2@x/"})).message


# --- a bad peer ---------------------------------------------------------------------------------------------


async def drip(_: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def silence(_: Seen, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def endless_head(_: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        writer.write(b"x-%d: y\r\n" % number)
        await writer.drain()


async def endless_chunks(_: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        await writer.drain()


EVIL = {
    "silence": (silence, {"TIMEOUT"}),
    "drip": (drip, {"TIMEOUT"}),
    "close at once": (always(b""), {"PROTOCOL", "CONNECT"}),
    "garbage": (always(b"\x00\xff" * 100), {"PROTOCOL", "CONNECT"}),
    "another protocol": (always(b"SSH-2.0-OpenSSH_9\r\n"), {"PROTOCOL", "CONNECT"}),
    "http 0.9": (always(b"hello"), {"PROTOCOL", "CONNECT"}),
    "cut body": (always(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"), {"PROTOCOL", "CONNECT"}),
    "two lengths": (
        always(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"),
        {"PROTOCOL", "CONNECT"},
    ),
    "negative length": (always(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"), {"PROTOCOL", "CONNECT"}),
    "length that lies": (
        always(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + b"x" * 3_000_000),
        {"TOO_LARGE"},
    ),
    "bad chunk": (
        always(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        {"PROTOCOL", "CONNECT"},
    ),
    "endless chunks": (endless_chunks, {"TOO_LARGE"}),
    "100000 headers": (endless_head, {"PROTOCOL", "CONNECT"}),
    "long header": (
        always(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n"),
        {"PROTOCOL", "CONNECT"},
    ),
    "split header": (always(b"HTTP/1.1 200 OK\r\nx\x00: y\r\n\r\n"), {"PROTOCOL", "CONNECT"}),
    "gzip bomb": (always(answer(gzip.compress(bytes(50_000_000)), content_encoding="gzip")), {"TOO_LARGE"}),
    "no gzip": (always(answer(b"plain", content_encoding="gzip")), {"PROTOCOL"}),
    "cut gzip": (always(answer(gzip.compress(b"x" * 1000)[:15], content_encoding="gzip")), {"PROTOCOL"}),
    "unasked encoding": (always(answer(b"x", content_encoding="br")), {"PROTOCOL"}),
    "many encodings": (always(answer(b"x", content_encoding="gzip, gzip, gzip")), {"PROTOCOL"}),
    "redirect to nothing": (always(answer(b"", "302 Go", location="http://[::bad/")), {"PROTOCOL"}),
    "only interim answers": (always(b"HTTP/1.1 100 Continue\r\n\r\n" * 10), {"PROTOCOL", "CONNECT"}),
    "unasked upgrade": (
        always(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
        {"PROTOCOL", "CONNECT", "HTTP_STATUS"},
    ),
}


@pytest.mark.parametrize("name", EVIL)
async def test_evil_server_ends_in_a_typed_error_in_time(bench: Workbench, name: str) -> None:
    handler, kinds = EVIL[name]
    # Only who never ends is waited for to the end of the attempt; the others must not be taken for slow.
    limit = 1.5 if "TIMEOUT" in kinds else 20.0
    async with serving(handler) as server, asyncio.timeout(limit + 20.0):
        error = await failure(bench, config(server, follow_redirects=True), timeout=limit)
    assert error.type in kinds, f"{error.type}: {error.message}"


async def test_refused_connection(bench: Workbench) -> None:
    async with serving(always(b"")) as server:
        pass
    error = await failure(bench, config(server))
    assert (error.type, error.non_retryable) == ("CONNECT", False)


async def test_name_that_does_not_exist() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    async with workbench(resolve=resolve) as bench:
        assert (await failure(bench, {"url": "http://nowhere.example/"})).type == "CONNECT"
