"""Where a pipeline of a forge runs: which pull request it is about, what that would bring, and how to comment on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import Misconfigured

_MERGED = ("merged_result", "merge_train")
"""Pipelines of GitLab in which HEAD is what the merge would be; in the others it is the branch."""
_ZERO = "0" * 40
"""What forges say for "there was nothing before"."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One run of a pipeline. `number` is that of its pull request, None if it is about none.

    `token_env` names the variable with the token that may comment.
    """

    kind: Literal["github", "gitlab", "gitea"]
    api: str
    repository: str
    number: int | None
    base: str
    """What the range begins with: a commit or a branch; "" if the pipeline does not say."""
    merged: bool
    """HEAD is what the merge would be, so that its first parent is the base."""
    token_env: str

    def range(self, is_merge: Callable[[], bool]) -> str:
        """The range of commits that the pipeline is about. Raises `Misconfigured` if it is about none."""
        if self.merged and is_merge():
            return "HEAD^1..HEAD"
        if not self.base:
            raise Misconfigured(
                "this pipeline does not say what came before",
                hint="give the range: `pinflow plan BASE..HEAD`",
            )
        return f"{self.base}...HEAD"


def pipeline(environ: Mapping[str, str]) -> Pipeline:
    """The pipeline of this process. Raises `Misconfigured` outside of one."""
    if environ.get("GITLAB_CI"):
        return _gitlab(environ)
    if environ.get("GITHUB_ACTIONS") or environ.get("GITEA_ACTIONS"):
        return _actions(environ)
    raise Misconfigured(
        "this is no pipeline of GitHub, GitLab or Gitea", hint="give the range: `pinflow plan main..HEAD`"
    )


def _actions(environ: Mapping[str, str]) -> Pipeline:
    """GitHub Actions, and those of Gitea, which has the same variables."""
    event = _event(environ.get("GITHUB_EVENT_PATH", ""))
    asked = event.get("pull_request")
    number = asked.get("number") if isinstance(asked, dict) else None
    branch = environ.get("GITHUB_BASE_REF", "")
    before = event.get("before")
    base = f"origin/{branch}" if branch else before if isinstance(before, str) and before != _ZERO else ""
    gitea = bool(environ.get("GITEA_ACTIONS"))
    return Pipeline(
        kind="gitea" if gitea else "github",
        api=environ.get("GITHUB_API_URL", "https://api.github.com"),
        repository=environ.get("GITHUB_REPOSITORY", ""),
        number=number if isinstance(number, int) else None,
        base=base,
        merged=bool(branch),
        token_env="GITHUB_TOKEN",
    )


def _event(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _gitlab(environ: Mapping[str, str]) -> Pipeline:
    number = environ.get("CI_MERGE_REQUEST_IID", "")
    before = environ.get("CI_COMMIT_BEFORE_SHA", "")
    base = environ.get("CI_MERGE_REQUEST_DIFF_BASE_SHA", "") or ("" if before == _ZERO else before)
    return Pipeline(
        kind="gitlab",
        api=environ.get("CI_API_V4_URL", ""),
        repository=environ.get("CI_PROJECT_PATH", ""),
        number=int(number) if number.isdigit() else None,
        base=base,
        merged=environ.get("CI_MERGE_REQUEST_EVENT_TYPE") in _MERGED,
        token_env="PINFLOW_GITLAB_TOKEN",
    )


def comment(found: Pipeline, marker: str, text: str) -> None:
    """Put a comment on the pull request, in place of the one that begins with the marker.

    Raises `Misconfigured` for a token that is missing or refused, `Unavailable` if the forge is away.
    """
    # What follows needs the server's packages.
    import asyncio

    from engine.forge.apis import Denied, Http, Refused, api_of
    from engine.forge.places import Place
    from engine.settings import ForgeSettings

    if found.number is None:
        raise Misconfigured("this pipeline is about no pull request", hint="leave --comment out there")
    settings = ForgeSettings(name="pipeline", kind=found.kind, api=found.api, token_env=found.token_env)
    number = found.number

    async def tell() -> None:
        http = Http()
        try:
            await api_of(Place(settings, found.repository), http).comment(number, marker, text)
        except (Refused, Denied) as error:
            raise Misconfigured(
                str(error), hint=f"the token in {found.token_env} must have the right to comment"
            ) from error
        finally:
            await http.aclose()

    asyncio.run(tell())
