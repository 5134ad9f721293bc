"""GitHub, GitLab and Gitea as far as they are called, over real sockets, with the faults that networks have."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.evil_server import Seen, Server, answer, serving

_LIMITS: dict[str, tuple[str, str, dict[str, str]]] = {
    "429": ("429 Slow down", "slow down", {"retry_after": "1"}),
    "spent": (
        "403 Forbidden",
        "API rate limit exceeded",
        {"x_ratelimit_remaining": "0", "x_ratelimit_reset": ""},
    ),
    "secondary": ("403 Forbidden", "You have exceeded a secondary rate limit.", {}),
    "quota": ("429 Too Many Requests", "Retry later", {"ratelimit_remaining": "0", "ratelimit_reset": ""}),
}
"""Answers of a forge that has had enough; an empty header is half an hour from now."""


@dataclass
class FakeForge:
    """What it was told. `faults` are taken one per request: `drop` (done, and no answer), `refuse` (not done, and no
    answer), `garbage`, `huge`, `ok`, a status (`500`, `422`, `403`, `404`, `301`), or a limit: `429`, `spent` (403 until a
    moment), `secondary` (403 and words) or `quota` (429 until a moment, as GitLab has it)."""

    kind: str
    repository: str = "ada/flows"
    token: str = "forge-token"
    statuses: list[dict[str, Any]] = field(default_factory=list)
    comments: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """The method and path of each request."""
    page: int = 100
    absent: set[int] = field(default_factory=set)
    """Pull requests that there are not."""
    server: Server | None = None

    @property
    def api(self) -> str:
        """What the settings have for `api`."""
        assert self.server is not None
        return self.server.url(
            {"github": "", "gitlab": "/api/v4", "gitea": "/api/v1"}[self.kind] or "/"
        ).rstrip("/")

    async def handle(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        """Answer one request, or misbehave."""
        fault = self.faults.pop(0) if self.faults else "ok"
        self.asked.append(f"{seen.method} {seen.target}")
        if fault == "refuse":
            writer.transport.abort()
            return
        if fault.isdigit() and fault != "429":
            said = b'{"message": "no", "errors": [{"message": "not like this"}]}'
            writer.write(answer(said, f"{fault} No", content_type="application/json"))
            return
        if fault in _LIMITS:
            line, words, headers = _LIMITS[fault]
            moment = str(int(time.time()) + 1800)
            headers = {name: value or moment for name, value in headers.items()}
            said = json.dumps({"message": words}).encode()
            writer.write(answer(said, line, content_type="application/json", **headers))
            return
        if fault == "huge":
            writer.write(answer(b" " * 5_000_000))
            return
        status, said = self._do(seen)
        if fault == "drop":
            writer.transport.abort()
        elif fault == "garbage":
            writer.write(b"\xff\xfe not HTTP\r\n\r\n")
        else:
            writer.write(answer(json.dumps(said).encode(), f"{status} X", content_type="application/json"))

    def _do(self, seen: Seen) -> tuple[int, Any]:
        expected = {
            "github": ("authorization", f"Bearer {self.token}"),
            "gitea": ("authorization", f"token {self.token}"),
            "gitlab": ("private-token", self.token),
        }[self.kind]
        if seen.headers.get(expected[0]) != expected[1]:
            return 401, {"message": "Bad credentials"}
        target = urlsplit(seen.target)
        prefix = {"github": "/repos/", "gitea": "/api/v1/repos/", "gitlab": "/api/v4/projects/"}[self.kind]
        if not target.path.startswith(prefix):
            return 404, {"message": "Not Found"}
        rest = target.path.removeprefix(prefix)
        if self.kind == "gitlab":
            repository, _, rest = rest.partition("/")
            assert unquote(repository) == self.repository
        else:
            assert rest.startswith(f"{self.repository}/")
            rest = rest.removeprefix(f"{self.repository}/")
        body = json.loads(seen.body) if seen.body else {}
        return self._answer(seen.method, rest, body, parse_qs(target.query))

    def _answer(
        self, method: str, path: str, body: dict[str, Any], query: dict[str, list[str]]
    ) -> tuple[int, Any]:
        if method == "POST" and (found := re.fullmatch(r"statuses/(\w{40})", path)):
            return self._status(found[1], body)
        if method == "GET" and (found := re.fullmatch(r"commits/(\w{40})/statuses", path)):
            return 200, [each for each in reversed(self.statuses) if each["sha"] == found[1]]
        if method == "GET" and (found := re.fullmatch(r"repository/commits/(\w{40})/statuses", path)):
            same = [each for each in reversed(self.statuses) if each["sha"] == found[1]]
            return 200, [{**each, "status": each["state"]} for each in same]
        if found := re.fullmatch(r"(?:issues|merge_requests)/(\d+)/(?:comments|notes)", path):
            if int(found[1]) in self.absent:
                return 404, {"message": "Not Found"}
            mine = [each for each in self.comments if each["number"] == int(found[1])]
            if method == "GET":
                first = 0 if self.kind == "gitea" else (int(query["page"][0]) - 1) * self.page
                return 200, mine if self.kind == "gitea" else mine[first : first + self.page]
            self.comments.append({"id": self.next_id, "number": int(found[1]), **body})
            return 201, self.comments[-1]
        if method in ("PATCH", "PUT") and (
            found := re.fullmatch(r"(?:issues/comments|merge_requests/\d+/notes)/(\d+)", path)
        ):
            (comment,) = [each for each in self.comments if each["id"] == int(found[1])]
            if comment.get("of_a_stranger"):
                return 403, {"message": "not yours"}
            comment["body"] = body["body"]
            return 200, comment
        if method == "DELETE" and (
            found := re.fullmatch(r"(?:issues/comments|merge_requests/\d+/notes)/(\d+)", path)
        ):
            self.comments = [each for each in self.comments if each["id"] != int(found[1])]
            return 204, None
        if path in ("pulls", "merge_requests"):
            return self._pull(method, body)
        return 404, {"message": f"{method} {path} {query}"}

    def _status(self, sha: str, body: dict[str, Any]) -> tuple[int, Any]:
        said = {"sha": sha, "context": body.get("context") or body.get("name"), **body}
        self.statuses.append(said)
        return 201, said

    def _pull(self, method: str, body: dict[str, Any]) -> tuple[int, Any]:
        if method == "GET":
            return 200, self.pulls
        head = body.get("head") or body.get("source_branch")
        if any(each["head"]["ref"] == head for each in self.pulls):
            return (409 if self.kind != "github" else 422), {"message": "exists already"}
        address = f"https://forge.example.test/pulls/{len(self.pulls) + 1}"
        self.pulls.append({"html_url": address, "web_url": address, "head": {"ref": head}, **{"said": body}})
        return 201, self.pulls[-1]

    @property
    def next_id(self) -> int:
        """Of a comment."""
        return max((int(each["id"]) for each in self.comments), default=0) + 1

    def last(self, sha: str, context: str) -> str:
        """The state that the forge shows for a commit."""
        found = [each["state"] for each in self.statuses if (each["sha"], each["context"]) == (sha, context)]
        return str(found[-1]) if found else ""


@asynccontextmanager
async def fake_forge(kind: str, repository: str = "ada/flows") -> AsyncIterator[FakeForge]:
    """A forge that listens."""
    forge = FakeForge(kind, repository)
    async with serving(forge.handle, keep_alive=True) as server:
        forge.server = server
        yield forge
