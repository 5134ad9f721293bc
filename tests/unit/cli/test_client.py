"""The HTTP client of the command line, against a real server on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine import errors
from engine.cli.client import Client, ServerFault

Answer = tuple[int, dict[str, str], Any]


class Target:
    """A server that answers as a test tells it, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.answer: Callable[[int, str], Answer] = lambda number, path: (200, {}, {})
        target = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                headers = {name.lower(): value for name, value in self.headers.items()}
                target.asked.append((self.command, self.path, headers, body))
                status, extra, content = target.answer(len(target.asked), self.path)
                payload = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_DELETE = _serve

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthenticated),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (422, errors.InvalidInput),
        (503, errors.Unavailable),
        (500, ServerFault),
    ],
)
def test_a_problem_of_the_server_becomes_our_error(
    target: Target, status: int, kind: type[Exception]
) -> None:
    target.answer = lambda number, path: (status, {}, {"title": "No", "detail": "what happened"})

    with pytest.raises(kind, match="what happened"):
        Client(target.url).get("/x")


def test_faults_of_inputs_keep_their_pointers(target: Target) -> None:
    said = {"detail": "bad", "errors": [{"pointer": "/name", "message": "is missing"}]}
    target.answer = lambda number, path: (422, {}, said)

    with pytest.raises(errors.InvalidInput) as caught:
        Client(target.url).post("/x")

    assert [(p.pointer, p.message) for p in caught.value.problems] == [("/name", "is missing")]


def test_an_answer_that_is_not_json_is_no_crash(target: Target) -> None:
    target.answer = lambda number, path: (404, {}, b"<html>")
    with pytest.raises(errors.NotFound, match="404"):
        Client(target.url).get("/x")


@pytest.mark.parametrize("status", [200, 301])
def test_another_kind_of_server_is_told(target: Target, status: int) -> None:
    target.answer = lambda number, path: (status, {"location": "https://here.test/"}, b"<html>")

    with pytest.raises(errors.Misconfigured, match="is no Pinflow server") as caught:
        Client(target.url).get("/x")

    assert caught.value.hint == "it names another place: https://here.test/"


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_before_a_server_that_is_away_is_try_again_later(target: Target, status: int) -> None:
    target.answer = lambda number, path: (status, {}, b"<html>Bad Gateway")

    with pytest.raises(errors.Unavailable):
        Client(target.url).get("/x")


@pytest.mark.parametrize(("status", "code"), [(500, "MISCONFIGURED"), (502, "SOURCE")])
def test_what_the_servers_operator_must_mend_is_no_bug(target: Target, status: int, code: str) -> None:
    target.answer = lambda number, path: (status, {}, {"detail": "what happened", "code": code})

    with pytest.raises(errors.PinflowError, match="what happened"):
        Client(target.url).get("/x")


@pytest.mark.parametrize("token", ["pf_a\nb", "pf_\u2192"])
def test_a_token_that_cannot_be_sent_is_told(token: str) -> None:
    with pytest.raises(errors.Misconfigured, match="PINFLOW_TOKEN"):
        Client("http://127.0.0.1:1", token).get("/x")


def test_the_line_break_at_the_end_of_a_token_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINFLOW_TOKEN", "pf_a\n")

    assert Client.from_environment().token == "pf_a"


def test_nobody_at_home_is_try_again_later() -> None:
    with pytest.raises(errors.Unavailable, match="no answer"):
        Client("http://127.0.0.1:9").get("/x")


@pytest.mark.parametrize("url", ["localhost:8000", "http://x:99999", "http://x: 80"])
def test_something_that_is_no_url_is_told(url: str) -> None:
    with pytest.raises(errors.Misconfigured, match="PINFLOW_URL"):
        Client(url).get("/x")


def test_pages_are_followed_up_to_the_limit(target: Target) -> None:
    pages = {1: {"items": [1, 2], "next_cursor": "c d"}, 2: {"items": [3, 4], "next_cursor": None}}
    target.answer = lambda number, path: (200, {}, pages[number])

    assert list(Client(target.url).pages("/x", 3, status="")) == [1, 2, 3]
    assert [path for _, path, _, _ in target.asked] == ["/x?limit=3", "/x?limit=1&cursor=c+d"]


def test_a_start_is_sent_again_with_the_same_key(target: Target) -> None:
    target.answer = lambda number, path: (
        (503, {"Retry-After": "0.1"}, {}) if number < 3 else (202, {}, {"id": "r"})
    )

    assert Client(target.url, "t").start("/x", {"inputs": {}}, "key") == {"id": "r"}
    assert [headers["idempotency-key"] for _, _, headers, _ in target.asked] == ["key"] * 3
    assert target.asked[0][2]["authorization"] == "Bearer t"


def test_the_local_token_goes_to_the_local_server_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".pinflow").mkdir()
    (tmp_path / ".pinflow" / "client.json").write_text(
        json.dumps({"url": "http://127.0.0.1:8123", "token": "mine"})
    )
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    assert Client.from_environment() == Client("http://127.0.0.1:8123", "mine")

    monkeypatch.setenv("PINFLOW_URL", "https://elsewhere.example")
    assert Client.from_environment() == Client("https://elsewhere.example", "")


def test_a_broken_client_file_is_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "client.json").write_text("{")
    monkeypatch.setenv("PINFLOW_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Client.from_environment().token == ""
