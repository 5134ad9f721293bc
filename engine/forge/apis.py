"""What is asked of the forges' HTTP APIs: a status, a comment, a pull request. One class for each kind of forge.

Everything can be sent again: a status that is there is not set twice, a comment is found by its marker and replaced, a
pull request that exists is taken as opened.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, Protocol
from urllib.parse import quote, urlencode

import httpx2

from engine.errors import Unavailable
from engine.forge.places import Place, token_of

State = Literal["success", "failure", "pending"]
_TIMEOUT = 20.0
_MAX_ANSWER = 4 * 1024 * 1024
_MAX_DESCRIPTION = 140
_PAGE = 100
_PAGES = 30
"""Of comments, that are looked through for our own."""


class Refused(Exception):
    """The forge does not do it, and says why; the message holds no secret."""


class Away(Unavailable):
    """The forge cannot do it now: it is down, or has had enough of us for `retry_after` seconds."""


class Denied(Exception):
    """The forge does not let us: the operator must see to the token. `unknown` if the forge does not know the token."""

    def __init__(self, message: str, *, unknown: bool) -> None:
        super().__init__(message)
        self.unknown = unknown


class ForgeApi(Protocol):
    """One repository of one forge."""

    async def set_status(
        self, sha: str, context: str, state: State, description: str, url: str, *, again: bool
    ) -> None:
        """Set the status of a commit. With `again`, look first: the answer of an earlier try was lost."""

    async def comment(self, number: int, marker: str, text: str, *, fresh: bool = True) -> None:
        """Put a comment on a pull request, in place of the one that begins with the marker. If there is none, only if `fresh`."""

    async def open_pull_request(self, branch: str, base: str, title: str, text: str) -> str:
        """Open a pull request and return its address; that of the one that is open already."""


class Http:
    """One client for all forges. Makes the calls, and turns what can happen into `Refused`, `Denied` and `Away`."""

    def __init__(self) -> None:
        self._client = httpx2.AsyncClient(
            timeout=_TIMEOUT, follow_redirects=False, headers={"user-agent": "pinflow"}, trust_env=False
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Any = None,
        *,
        expected: tuple[int, ...] = (),
    ) -> tuple[int, Any]:
        """The status and the JSON of an answer. Statuses of 400 and above are errors unless `expected`."""
        try:
            async with self._client.stream(method, url, headers=dict(headers), json=body) as answer:
                content = bytearray()
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > _MAX_ANSWER:
                        raise Refused(f"the forge answers with more than {_MAX_ANSWER} bytes")
        except httpx2.HTTPError as error:
            raise Away(f"the forge does not answer: {type(error).__name__}", retry_after=5) from error
        said = _json(bytes(content))
        status = answer.status_code
        if status in expected or 200 <= status < 300:
            return status, said
        told = f"the forge answers {status}: {_words(said)}"
        if status >= 500:
            raise Away(
                f"the forge answers {status}", retry_after=_seconds(answer.headers.get("retry-after"), 5)
            )
        if (pause := _limited(status, answer.headers, said)) is not None:
            raise Away(told, retry_after=pause)
        if status in (401, 403):
            raise Denied(told, unknown=status == 401)
        if (
            status == 404
        ):  # of a commit or a pull request, but also of a repository that the token may not see
            raise Refused(f"{told}; there is no such thing, or the token may not see the repository")
        if 300 <= status < 400:
            raise Refused(
                f"{told}; if the repository has moved, correct the source's URL, or `repositories` of the forge"
            )
        raise Refused(told)


class GitHub:
    """GitHub, and GitHub Enterprise."""

    _STATES: Mapping[State, str] = {"success": "success", "failure": "failure", "pending": "pending"}

    def __init__(self, place: Place, http: Http) -> None:
        self._http = http
        self._place = place
        self._root = f"{place.forge.api.rstrip('/')}/repos/{quote(place.repository)}"

    def _headers(self) -> dict[str, str]:
        return {
            "authorization": f"Bearer {token_of(self._place.forge)}",
            "accept": "application/vnd.github+json",
            "x-github-api-version": "2022-11-28",
        }

    async def set_status(
        self, sha: str, context: str, state: State, description: str, url: str, *, again: bool
    ) -> None:
        """As the protocol says."""
        body = {
            "state": self._STATES[state],
            "context": context,
            "description": description[:_MAX_DESCRIPTION],
        }
        if again:
            _, listed = await self._call("GET", f"/commits/{sha}/statuses?per_page=100")
            newest = next((each for each in _dicts(listed) if each.get("context") == context), {})
            if (newest.get("state") or newest.get("status")) == body["state"] and newest.get("description") == body["description"]:  # fmt: skip
                return
        await self._call("POST", f"/statuses/{sha}", body | ({"target_url": url} if url else {}))

    async def comment(self, number: int, marker: str, text: str, *, fresh: bool = True) -> None:
        """As the protocol says."""
        listed = f"/issues/{number}/comments"
        await _put_comment(self._call, listed, "/issues/comments", "PATCH", marker, text, fresh=fresh)

    async def open_pull_request(self, branch: str, base: str, title: str, text: str) -> str:
        """As the protocol says."""
        body = {"title": title, "head": branch, "base": base, "body": text}
        status, said = await self._call("POST", "/pulls", body, expected=(409, 422))
        if status < 400:
            return str(said["html_url"])
        owner = self._place.repository.partition("/")[0]
        query = urlencode({"head": f"{owner}:{branch}", "state": "open", "per_page": 100})
        _, listed = await self._call("GET", f"/pulls?{query}")
        for each in _dicts(listed):
            head = each.get("head")
            if isinstance(head, dict) and head.get("ref") == branch:
                return str(each["html_url"])
        raise Refused(f"the forge answers {status}: {_words(said)}")

    async def _call(
        self, method: str, path: str, body: Any = None, *, expected: tuple[int, ...] = ()
    ) -> tuple[int, Any]:
        return await self._http.call(method, self._root + path, self._headers(), body, expected=expected)


class Gitea(GitHub):
    """Gitea and Forgejo: GitHub's calls with another way to say who asks."""

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"token {token_of(self._place.forge)}", "accept": "application/json"}


class GitLab:
    """GitLab."""

    _STATES: Mapping[State, str] = {"success": "success", "failure": "failed", "pending": "pending"}

    def __init__(self, place: Place, http: Http) -> None:
        self._http = http
        self._place = place
        self._root = f"{place.forge.api.rstrip('/')}/projects/{quote(place.repository, safe='')}"

    async def set_status(
        self, sha: str, context: str, state: State, description: str, url: str, *, again: bool
    ) -> None:
        """As the protocol says. GitLab refuses to set what a pipeline has set already: then it is there."""
        body = {"state": self._STATES[state], "name": context, "description": description[:_MAX_DESCRIPTION]}
        if again:
            query = urlencode({"name": context, "per_page": _PAGE, "order_by": "id", "sort": "desc"})
            _, listed = await self._call("GET", f"/repository/commits/{sha}/statuses?{query}")
            newest = next((each for each in _dicts(listed) if each.get("name") == context), {})
            if newest.get("status") == body["state"] and newest.get("description") == body["description"]:
                return
        status, said = await self._call(
            "POST", f"/statuses/{sha}", body | ({"target_url": url} if url else {}), expected=(400,)
        )
        if status == 400 and "Cannot transition status" not in _words(said):
            raise Refused(f"the forge answers 400: {_words(said)}")

    async def comment(self, number: int, marker: str, text: str, *, fresh: bool = True) -> None:
        """As the protocol says."""
        notes = f"/merge_requests/{number}/notes"
        await _put_comment(self._call, notes, notes, "PUT", marker, text, fresh=fresh)

    async def open_pull_request(self, branch: str, base: str, title: str, text: str) -> str:
        """As the protocol says."""
        body = {"source_branch": branch, "target_branch": base, "title": title, "description": text}
        status, said = await self._call("POST", "/merge_requests", body, expected=(409,))
        if status < 400:
            return str(said["web_url"])
        _, listed = await self._call(
            "GET", "/merge_requests?" + urlencode({"source_branch": branch, "state": "opened"})
        )
        for each in _dicts(listed):
            return str(each["web_url"])
        raise Refused(f"the forge answers {status}: {_words(said)}")

    async def _call(
        self, method: str, path: str, body: Any = None, *, expected: tuple[int, ...] = ()
    ) -> tuple[int, Any]:
        headers = {"private-token": token_of(self._place.forge)}
        return await self._http.call(method, self._root + path, headers, body, expected=expected)


APIS: Mapping[str, type[GitHub] | type[GitLab]] = {"github": GitHub, "gitlab": GitLab, "gitea": Gitea}


def api_of(place: Place, http: Http) -> ForgeApi:
    """The API of a repository's forge."""
    return APIS[place.forge.kind](place, http)


class _Call(Protocol):
    async def __call__(
        self, method: str, path: str, body: Any = None, *, expected: tuple[int, ...] = ()
    ) -> tuple[int, Any]: ...


async def _put_comment(
    call: _Call, listed: str, one: str, verb: str, marker: str, text: str, *, fresh: bool
) -> None:
    """Write over the comment that begins with the marker, and take away what an earlier race has doubled; else a new one.

    A person's answer that quotes ours has the marker further on: a token that may do all could write over it, too.
    One that is not ours to write over (somebody has copied all of it) is passed by.
    """
    ours = [each async for each in _comments(call, listed) if str(each.get("body")).startswith(marker)]
    for place, each in enumerate(ours):
        if each.get("body") != text:
            status, _ = await call(verb, f"{one}/{int(each['id'])}", {"body": text}, expected=(403, 404))
            if status >= 400:
                continue
        for other in ours[place + 1 :]:
            await call("DELETE", f"{one}/{int(other['id'])}", expected=(403, 404))
        return
    if fresh:
        await call("POST", listed, {"body": text})


async def _comments(call: _Call, listed: str) -> AsyncIterator[dict[str, Any]]:
    """All comments, each once, the oldest first as far as the forge keeps to it. Gitea has no pages: each is the whole."""
    query = {"per_page": _PAGE, "limit": _PAGE, "sort": "asc", "order_by": "created_at"}
    seen: set[int] = set()
    for page in range(1, _PAGES + 1):
        _, said = await call("GET", f"{listed}?{urlencode(query | {'page': page})}")
        new = [each for each in _dicts(said) if int(each["id"]) not in seen]
        for each in new:
            seen.add(int(each["id"]))
            yield each
        if len(new) < _PAGE:
            return


def _json(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except (ValueError, RecursionError):
        return None


def _dicts(listed: Any) -> list[dict[str, Any]]:
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _words(said: Any) -> str:
    """What the forge says of an error, short and on one line."""
    found = said.get("message") or said.get("error") if isinstance(said, dict) else None
    text = found if isinstance(found, str) else json.dumps(found) if found else "it does not say why"
    # GitHub puts what one can act on into a list beside the message.
    more = [str(each["message"]) for each in _dicts(said.get("errors") if isinstance(said, dict) else None) if each.get("message")]  # fmt: skip
    text = "; ".join([text, *more])
    return "".join(letter if letter.isprintable() else " " for letter in text)[:300]


def _limited(status: int, headers: Mapping[str, str], said: Any) -> float | None:
    """The seconds for which the forge wants to be left alone, if that is what it says; None if it says something else."""
    spent = headers.get("x-ratelimit-remaining", headers.get("ratelimit-remaining", "")) == "0"
    asked = "retry-after" in headers or spent or "rate limit" in _words(said).lower()
    if status != 429 and not (status == 403 and asked):
        return None
    if "retry-after" in headers:
        return _seconds(headers["retry-after"], 60)
    reset = headers.get("x-ratelimit-reset", headers.get("ratelimit-reset", ""))
    return _seconds(str(float(reset) - time.time()), 60) if reset.isdigit() else 60.0


def _seconds(text: str | None, otherwise: float) -> float:
    """Seconds as a header has them, between one and an hour."""
    try:
        return min(3600.0, max(1.0, float(text or otherwise)))
    except ValueError:
        return otherwise
