"""One commit made by plumbing and pushed: no work tree, no hook, and not a path touched that was not asked for.

A throw-away repository holds the tip of the branch and nothing older. The commit depends on nothing but its base and
the order: made twice, it is the same. What became of an earlier try is found out by the proposal's trailer.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engine import faults
from engine.settings import Credential, SourceSettings
from engine.sync import conditions, git_said
from engine.sync.commit_message import TRAILER, author
from engine.sync.git_credentials import NO_CREDENTIAL, Access, check_host
from engine.sync.git_objects import CommitObject, parse_commit
from engine.sync.git_source import Done, GitCommand
from engine.sync.git_urls import Remote, parse_remote

COMMITTER = ("Pinflow", "noreply@pinflow.invalid")
_LIMIT = 60.0
_NETWORK_LIMIT = 120.0
_LOOKED_BACK = 50
"""Commits of the source's branch that are looked through for an earlier try."""
_NAME = re.compile(rb"^name[ \t]*:[ \t]*[\"']?([^\"'#\r\n]*?)[\"']?[ \t]*(?:#.*)?\r?$", re.MULTILINE)
# What receive-pack would run in a local repository that is somebody else's: hooks, and a command for its alternates.
_QUIET_RECEIVER = (
    "--receive-pack=git -c core.hooksPath=/dev/null -c core.alternateRefsCommand= -c core.fsmonitor=false "
    "-c receive.autogc=false -c receive.denyCurrentBranch=refuse receive-pack"
)


class Refused(Exception):
    """The commit cannot be made or will never be taken: trying again does not help."""


class TooLate(Exception):
    """The branch has moved since we looked: try again from its new tip."""


@dataclass(frozen=True, slots=True)
class Order:
    """A commit to be made. `files` are contents by path; None removes one. `clears` is a folder whose other files go."""

    id: str
    name: str
    path: str
    branch: str
    direct: bool
    message: str
    author: str
    at: datetime
    files: Mapping[str, bytes | None]
    clears: str = ""
    again: bool = False
    """It was tried before, with an outcome that nobody knows."""
    live: bool = False
    """The registry has the definition at `path`: what stands there is an earlier text of it, whatever it looks like."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The commit on the remote, and the one that it stands on."""

    commit_sha: str
    base_sha: str


class Pusher:
    """Pushes commits to one source. Its methods block, and raise `SourceError` for what the remote does."""

    def __init__(self, source: SourceSettings, data_dir: Path, credential: Credential | None = None) -> None:
        self._remote: Remote = parse_remote(source.url)
        check_host(credential, self._remote)
        self._credential = credential
        self._base = source.branch.removeprefix("refs/heads/")
        self._root = (data_dir / "proposals").resolve()
        self._root.mkdir(parents=True, exist_ok=True)

    def push(self, order: Order) -> Pushed:
        """Bring the commit to the remote, or find that it is there. Raises `Refused` and `TooLate`."""
        with tempfile.TemporaryDirectory(dir=self._root, prefix="push-") as scratch:
            access = Access(self._credential, Path(scratch))
            return _Push(self._remote, self._base, Path(scratch), order, access).run()


class _Push:
    def __init__(
        self, remote: Remote, base: str, scratch: Path, order: Order, access: Access = NO_CREDENTIAL
    ) -> None:
        self._remote = remote
        self._base_ref = f"refs/heads/{base}"
        self._ref = self._base_ref if order.direct else f"refs/heads/{order.branch}"
        self._order = order
        self._scratch = scratch
        self._git = GitCommand(remote, scratch, access)
        self._repository = scratch / "repository.git"

    def run(self) -> Pushed:
        self._must(["init", "--quiet", "--bare", "--template=", "--", str(self._repository)], git_dir=None)
        if (found := self._find_earlier()) is not None:
            return found
        base = self._fetch(self._base_ref, depth=1)
        if base is None:
            raise Refused(f"the remote has no branch {self._base_ref.removeprefix('refs/heads/')}")
        commit = self._commit(base)
        faults.hit("propose.before_push")
        self._push(base, commit)
        faults.hit("propose.after_push")
        return Pushed(commit, base)

    # --- what is there --------------------------------------------------------------------------------------------

    def _find_earlier(self) -> Pushed | None:
        """The commit of an earlier try, known by its trailer."""
        if self._order.direct:
            if not self._order.again:
                return None
            tip = self._fetch(self._base_ref, depth=_LOOKED_BACK)
            listed = (
                self._must(["rev-list", f"--max-count={_LOOKED_BACK}", "--end-of-options", tip, "--"])
                if tip
                else ""
            )
            for sha in listed.split():
                if (commit := self._read(sha)).trailer(TRAILER) == self._order.id:
                    return Pushed(sha, commit.parents[0] if commit.parents else "")
            return None
        tip = self._fetch(self._ref, depth=1)
        if tip is None:
            return None
        commit = self._read(tip)
        if commit.trailer(TRAILER) != self._order.id:
            raise Refused(f"the branch {self._order.branch} is there already, and holds something else")
        return Pushed(tip, commit.parents[0] if commit.parents else "")

    def _fetch(self, ref: str, *, depth: int) -> str | None:
        """The tip of a branch of the remote, brought here; None if there is no such branch."""
        done = self._run(
            ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", f"--depth={depth}",
             "--no-auto-maintenance", "--refmap=", "--", self._remote.fetch, f"+{ref}:refs/pinflow/found"],
            limit=_NETWORK_LIMIT,
        )  # fmt: skip
        if done.code == 0:
            return self._must(
                ["rev-parse", "--verify", "--end-of-options", "refs/pinflow/found^{commit}"]
            ).strip()
        reason = git_said.why(done.stderr)
        if reason == conditions.BRANCH_NOT_FOUND:
            return None
        raise self._git.error(reason or conditions.FETCH_FAILED, git_said.last_words(done.stderr))

    def _read(self, sha: str) -> CommitObject:
        done = self._run(["cat-file", "commit", sha])
        if done.code != 0:
            raise self._git.error(conditions.MIRROR_BROKEN, git_said.last_words(done.stderr))
        return parse_commit(sha, done.stdout)

    # --- the commit -----------------------------------------------------------------------------------------------

    def _commit(self, base: str) -> str:
        self._check_place(base)
        nothing = (
            self._scratch / "nothing"
        )  # git takes a path out of an index in a work tree only: an empty one
        nothing.mkdir()
        index = {"GIT_INDEX_FILE": str(self._scratch / "index"), "GIT_WORK_TREE": str(nothing)}
        self._must(["read-tree", base], environment=index)
        for path in self._cleared(index):
            self._must(["update-index", "--force-remove", "--", path], environment=index)
        for path, content in self._order.files.items():
            self._put(path, content, index)
        tree = self._must(["write-tree"], environment=index).strip()
        said = self._scratch / "message"
        said.write_text(self._order.message, encoding="utf-8")
        commit = self._must(
            ["commit-tree", tree, "-p", base, "-F", str(said)], environment=self._people()
        ).strip()
        self._check_touched(base, commit)
        return commit

    def _check_place(self, base: str) -> None:
        """Raise `Refused` if something other than this definition stands at the path, or would on some machines."""
        path = self._order.path
        listed = self._must(["ls-tree", "-z", "--end-of-options", base, "--", path])
        if not listed:
            self._check_case(base)
            return
        mode, kind, sha = listed.partition("\t")[0].split()
        if kind != "blob" or not mode.startswith("100"):
            raise Refused(f"{path} is no plain file on the branch")
        done = self._run(["cat-file", "blob", sha])
        named = _NAME.search(done.stdout)
        if named is None and not self._order.live:
            raise Refused(
                f"a file that is no definition of {self._order.name} stands at {path} on the branch"
            )
        if named is not None and named[1].decode("utf-8", "replace").strip() != self._order.name:
            raise Refused(f"another definition stands at {path} on the branch")

    def _check_case(self, base: str) -> None:
        """Raise `Refused` if the new path differs from one that is there in nothing but upper and lower case."""
        wanted = _with_folders(self._order.path)
        folded = {each.casefold(): each for each in wanted}
        listed = self._must(["ls-tree", "-r", "-t", "-z", "--name-only", "--end-of-options", base])
        for each in listed.split("\0"):
            if folded.get(each.casefold(), each) != each:
                raise Refused(
                    f"{self._order.path} differs from {each} on the branch in upper and lower case only"
                )

    def _cleared(self, index: Mapping[str, str]) -> list[str]:
        if not self._order.clears:
            return []
        listed = self._must(["ls-files", "-z", "--", f":(literal){self._order.clears}/"], environment=index)
        return [path for path in listed.split("\0") if path and path not in self._order.files]

    def _put(self, path: str, content: bytes | None, index: Mapping[str, str]) -> None:
        if content is None:
            self._must(["update-index", "--force-remove", "--", path], environment=index)
            return
        file = self._scratch / "content"
        file.write_bytes(content)
        blob = self._must(["hash-object", "-w", "--no-filters", "--", str(file)]).strip()
        done = self._run(["update-index", "--add", "--cacheinfo", f"100644,{blob},{path}"], environment=index)
        if done.code != 0:
            raise Refused(f"{path} cannot stand on the branch: {git_said.last_words(done.stderr)}")

    def _people(self) -> dict[str, str]:
        """The caller is the author. The times are those of the order, so that a second try makes the same commit."""
        name, email = author(self._order.author)
        when = f"@{int(self._order.at.timestamp())} +0000"
        return {
            "GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email, "GIT_AUTHOR_DATE": when,
            "GIT_COMMITTER_NAME": COMMITTER[0], "GIT_COMMITTER_EMAIL": COMMITTER[1], "GIT_COMMITTER_DATE": when,
        }  # fmt: skip

    def _check_touched(self, base: str, commit: str) -> None:
        """Whatever went wrong before: nothing leaves that was not asked for."""
        listed = self._must(["diff-tree", "-r", "-z", "--no-renames", "--name-only", base, commit])
        touched = {path for path in listed.split("\0") if path}
        if not touched:
            raise Refused("the branch holds just that already")
        inside = f"{self._order.clears}/"
        strange = {path for path in touched if path not in self._order.files and not (self._order.clears and path.startswith(inside))}  # fmt: skip
        if strange:
            raise AssertionError(f"the commit touches {sorted(strange)[:3]}")

    # --- the push -------------------------------------------------------------------------------------------------

    def _push(self, base: str, commit: str) -> None:
        expected = base if self._order.direct else ""
        receiver = [_QUIET_RECEIVER] if self._remote.scheme == "file" else []
        done = self._run(
            ["push", "--quiet", "--porcelain", "--no-verify", "--no-signed", "--no-follow-tags", "--recurse-submodules=no",
             *receiver, f"--force-with-lease={self._ref}:{expected}", "--", self._remote.fetch, f"{commit}:{self._ref}"],
            limit=_NETWORK_LIMIT,
        )  # fmt: skip
        if done.code == 0:
            return
        said = f"{done.stdout.decode('utf-8', 'replace')}\n{done.stderr}"
        if "(stale info)" in said or "(fetch first)" in said or "(non-fast-forward)" in said:
            raise TooLate(f"{self._ref.removeprefix('refs/heads/')} has moved meanwhile")
        if "[remote rejected]" in said:
            reason = next(line for line in said.splitlines() if "[remote rejected]" in line)
            if "failed to update ref" in reason or "cannot lock ref" in reason:
                raise TooLate("the remote was busy with the branch")
            why = reason.rpartition("(")[2].rstrip(")").strip()
            raise Refused(
                self._git.redact(f"the remote does not take it: {why}; {_remote_said(done.stderr)}")
            )
        raise self._git.error(
            git_said.why(done.stderr) or conditions.FETCH_FAILED, git_said.last_words(done.stderr)
        )

    def _must(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        git_dir: Path | str | None = "",
    ) -> str:
        done = self._run(arguments, environment=environment, git_dir=git_dir)
        if done.code != 0:
            raise self._git.error(conditions.MIRROR_BROKEN, git_said.last_words(done.stderr))
        return done.stdout.decode("utf-8", "surrogateescape")

    def _run(
        self,
        arguments: Sequence[str],
        *,
        limit: float = _LIMIT,
        environment: Mapping[str, str] | None = None,
        git_dir: Path | str | None = "",
    ) -> Done:
        place = self._repository if git_dir == "" else None
        return self._git.run(arguments, limit=limit, git_dir=place, environment=environment)


def _with_folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _remote_said(stderr: str) -> str:
    lines = [
        line.removeprefix("remote:").strip() for line in stderr.splitlines() if line.startswith("remote:")
    ]
    return "; ".join(line for line in lines if line)[:300] or "it does not say why"
