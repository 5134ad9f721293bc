"""The two ends of a range of commits in somebody's own clone: what `pinflow plan` compares.

Nothing but objects is read, over the same fenced git as everywhere: no work tree, no index, no hook of the clone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from engine.dsl.definition_files import is_definition
from engine.errors import InvalidInput, Misconfigured, NotFound, Problem, SourceError
from engine.planning.planner import FileChange
from engine.registry.refs import ambiguous_ref
from engine.sync import git_said
from engine.sync.git_objects import CommitObject, Difference, Entry, TreeTooLarge
from engine.sync.git_reader import Reader
from engine.sync.git_source import Done, GitCommand, close_process, kill_group
from engine.sync.git_urls import Remote
from engine.sync.plan import FUNCTIONS, join, sort_difference

_LIMIT = 60.0
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_SHALLOW = "the clone is shallow and lacks the older commits: `git fetch --unshallow`, or have the pipeline fetch all"
_SHALLOW += " (GitHub: `fetch-depth: 0` of actions/checkout, GitLab: `GIT_DEPTH: 0`)"
_PARTIAL = (
    "a partial clone lacks contents until they are asked for: `git fetch --refetch --no-filter` brings them"
)
_MAX_TEXT = 1024 * 1024
_SHORT = re.compile(r"[0-9a-f]{4,63}")
_MANY = 1000
_USES_FUNCTIONS = b"python_function"
_NAME = re.compile(rb"^name[ \t]*:[ \t]*[\"']?([a-z][a-z0-9-]*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Range:
    """Two commits, as full SHAs."""

    base: str
    head: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two commits below some folders: the arguments of `engine.planning.planner.make_plan`."""

    base: str
    head: str
    files: tuple[FileChange, ...]
    names: dict[tuple[str, str], str]
    """Folder and name of definitions that stay as they are, with the path of each."""
    problems: tuple[Problem, ...]


class Clone:
    """The git repository around a folder. Not for two threads at once."""

    def __init__(self, git: GitCommand, git_dir: Path, prefix: str, work_tree: Path | None) -> None:
        self._git = git
        self._git_dir = git_dir
        self._prefix = prefix
        self._work_tree = work_tree

    def resolve(self, text: str) -> Range:
        """What `BASE..HEAD` means: the two commits. `BASE...HEAD` begins where HEAD left BASE, as in `git diff`.

        Without `..` the text is the base, and HEAD the head. Raises `NotFound` for what is no commit here.
        """
        left, dots, right = text.partition("...")
        if not dots:
            left, dots, right = text.partition("..")
        base, head = self._commit(left or "HEAD"), self._commit(right or "HEAD")
        if dots == "...":
            done = self._run(["merge-base", "--end-of-options", base, head])
            if done.code != 0:
                raise NotFound(
                    f"{left or 'HEAD'} and {right or 'HEAD'} have no commit in common here",
                    hint=_SHALLOW if self._is_shallow() else "name a base that HEAD began from",
                )
            base = done.stdout.decode("ascii").strip()
        return Range(base, head)

    def is_merge(self) -> bool:
        """Whether HEAD has a second parent. Asked of the commit itself: a shallow clone hides what it lacks."""
        with self._reader() as reader:
            return len(reader.commit(self._commit("HEAD")).parents) > 1

    def compare(self, commits: Range, paths: Sequence[str]) -> Comparison:
        """What differs below `paths`: folders of a source each, or single definitions, from the current folder."""
        files: dict[str, FileChange] = {}
        names: dict[tuple[str, str], str] = {}
        problems: list[Problem] = []
        with self._reader() as reader:
            base, head = reader.commit(commits.base), reader.commit(commits.head)
            for path in paths:
                for found in _compare(reader, base, head, self._place(path), self._prefix):
                    if isinstance(found, Problem):
                        problems.append(found)
                    elif isinstance(found, FileChange):
                        files.setdefault(found.path, found)
                    else:
                        names.setdefault(*found)
        return Comparison(commits.base, commits.head, tuple(files.values()), names, tuple(problems))

    def uncommitted(self, commits: Range, paths: Sequence[str]) -> list[str]:
        """Definitions below `paths` whose file is another than in the head, if the head is what is checked out.

        Files are read and compared here: git would run filters and monitors that the clone's configuration names.
        """
        if self._work_tree is None or self._commit("HEAD") != commits.head:
            return []
        found: list[str] = []
        with self._reader() as reader:
            head = reader.commit(commits.head)
            for path in paths:
                place = self._place(path)
                entry = reader.folder(head, place)
                listing = reader.diff("", _tree(entry))
                known = {
                    join(place, name): now.sha
                    for name, (_, now) in listing.items()
                    if now and now.is_file and is_definition(name)
                }
                if entry is not None and entry.is_file:
                    known[place] = entry.sha
                found += _differing(self._work_tree, place, known)
        return sorted(set(found))

    def _commit(self, ref: str) -> str:
        if (found := self._names(ref)) is not None:
            return found
        if len(meant := self._meant(ref)) > 1:
            raise ambiguous_ref(ref, meant)
        raise NotFound(f"{ref[:200]!r} is no commit in this clone", hint=self._way_to(ref))

    def _way_to(self, ref: str) -> str:
        """What helps somebody whose clone lacks a commit."""
        if self._names("HEAD") is None:
            return "nothing is committed here yet"
        if self._names(f"origin/{ref}") is not None:
            return f"origin/{ref} is one"
        if self._is_shallow():
            return _SHALLOW
        if _BRANCH.fullmatch(ref) and not ref.startswith("origin/"):
            return f"`git fetch origin {ref}` brings it, if it is a branch, and `FETCH_HEAD` is its name then"
        return "`git log` lists the commits that there are"

    def _names(self, ref: str) -> str | None:
        """The commit that a text names here."""
        asked = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"]
        done = self._run(asked)
        return done.stdout.decode("ascii").strip() if done.code == 0 else None

    def _is_shallow(self) -> bool:
        return self._run(["rev-parse", "--is-shallow-repository"]).stdout.strip() == b"true"

    def _meant(self, ref: str) -> list[str]:
        """The commits whose SHA begins with `ref`."""
        if not _SHORT.fullmatch(ref):
            return []
        done = self._run(["rev-parse", f"--disambiguate={ref}"])
        with self._reader() as reader:
            found = [(sha, reader.kind(sha)) for sha in done.stdout.decode("ascii").split()[:_MANY]]
        return sorted(sha for sha, kind in found if kind == "commit")

    def _place(self, path: str) -> str:
        """A path as given, from the root of the repository."""
        parts: list[str] = []
        for part in f"{self._prefix}{path}".split("/"):
            if part == "..":
                if not parts:
                    raise InvalidInput(f"{path} lies outside of the repository")
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        return "/".join(parts)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[Reader]:
        process = self._git.start(["cat-file", "--batch"], stdin=subprocess.PIPE, git_dir=self._git_dir)
        try:
            yield Reader(process, "HEAD")
        except SourceError as error:
            raise Misconfigured("the clone lacks some of what the range is made of", hint=_PARTIAL) from error
        finally:
            self._git.running.discard(process)
            kill_group(process)
            close_process(process)

    def _run(self, arguments: Sequence[str]) -> Done:
        return self._git.run(arguments, limit=_LIMIT, git_dir=self._git_dir)


@contextlib.contextmanager
def open_clone(folder: Path) -> Iterator[Clone]:
    """The repository that `folder` lies in. Raises `Misconfigured` if there is none."""
    with tempfile.TemporaryDirectory(prefix="pinflow-git-") as scratch:
        own = Path(scratch) / "git"
        own.mkdir()
        git = GitCommand(Remote(fetch="", shown=str(folder), scheme="file"), own)
        asked = [
            "-C",
            str(folder),
            "rev-parse",
            "--absolute-git-dir",
            "--is-inside-work-tree",
            "--show-prefix",
        ]
        done = git.run(asked, limit=_LIMIT, git_dir=None)
        if done.code != 0:
            raise Misconfigured(
                f"{folder} lies in no git repository: {git_said.last_words(done.stderr)}",
                hint="call it in a clone of the repository",
            )
        git_dir, inside, prefix, *_ = (*done.stdout.decode("utf-8", "surrogateescape").split("\n"), "")
        work_tree = _above(folder, prefix) if inside == "true" else None
        yield Clone(git, Path(git_dir), prefix, work_tree)


def _above(folder: Path, prefix: str) -> Path:
    """The folder that the repository's paths begin in."""
    for _ in Path(prefix).parts:
        folder = folder.parent
    return folder


def _differing(work_tree: Path, place: str, known: Mapping[str, str]) -> Iterator[str]:
    """Definitions in a work tree that are others than the blobs of the same paths, new ones and lost ones included.

    New ones are looked for below a folder only: in the whole of a repository, who knows what lies about.
    """
    new = _files_below(work_tree, place) if place else ()
    for path in {*known, *new}:
        if not _is_blob(work_tree / path, known.get(path, "")):
            yield path


def _files_below(work_tree: Path, place: str) -> Iterator[str]:
    """The definitions that stand below a folder of a work tree; links are not followed."""
    root = work_tree / place
    for folder, _, names in os.walk(root):
        for file in (Path(folder) / name for name in names):
            if is_definition(file.relative_to(root).as_posix()) and not file.is_symlink():
                yield file.relative_to(work_tree).as_posix()


def _is_blob(file: Path, sha: str) -> bool:
    """Whether a file holds what the blob holds; line ends may be those of another system."""
    try:
        content = file.read_bytes() if file.stat().st_size <= _MAX_TEXT else b""
    except OSError:
        return False
    make = hashlib.sha256 if len(sha) == 64 else hashlib.sha1
    texts = (content, content.replace(b"\r\n", b"\n"))
    return any(make(b"blob %d\0" % len(text) + text).hexdigest() == sha for text in texts)


_Found: TypeAlias = FileChange | Problem | tuple[tuple[str, str], str]


def _compare(
    reader: Reader, base: CommitObject, head: CommitObject, place: str, prefix: str
) -> Iterator[_Found]:
    """Files that differ, problems, and names of definitions that stay as they are, with the path of each."""
    was, now = reader.folder(base, place), reader.folder(head, place)
    if (was is None or not was.is_tree) and (now is None or not now.is_tree):
        if was is None and now is None:
            raise NotFound(
                f"{place or '.'} stands at neither end of the range",
                hint="name the folder of the definitions"
                + (f", from {prefix} where you stand" if prefix else ""),
            )
        folder, _, name = place.rpartition("/")
        yield from _below(reader, base, head, folder, only=name)
        return
    yield from _below(reader, base, head, place)


def _below(
    reader: Reader, base: CommitObject, head: CommitObject, folder: str, *, only: str = ""
) -> Iterator[_Found]:
    source = "" if only else folder  # of single files nobody knows the source
    trees = [_tree(reader.folder(commit, folder)) for commit in (base, head)]
    try:
        difference = reader.diff(*trees)
        listing: Difference = reader.diff("", trees[1])
    except TreeTooLarge as error:
        raise InvalidInput(f"{folder or '.'} holds {error}", hint="name a smaller folder") from error
    if only:
        difference = {path: pair for path, pair in difference.items() if path == only or _of_functions(path)}
    changes = sort_difference(difference, folder)
    yield from changes.problems
    functions = tuple(sorted(join(folder, path) for path in difference if _of_functions(path)))
    here = {
        join(folder, path): now
        for path, (_, now) in listing.items()
        if now and now.is_file and is_definition(path)
    }
    touched = sorted({*changes.files, *changes.removed})
    old = {join(folder, path): was for path, (was, _) in difference.items() if was and was.is_file}
    texts = _texts(reader, [old[path].sha if path in old else "" for path in touched])
    news = _texts(reader, [changes.files.get(path, "") for path in touched])
    for path, before, after in zip(touched, texts, news, strict=True):
        yield FileChange(path, before, after, functions, source)
    rest = [path for path in here if path not in changes.files and (not only or path == join(folder, only))]
    if not touched and not functions:
        return
    for path, text in zip(rest, _texts(reader, [here[path].sha for path in rest]), strict=True):
        if text is None:
            continue
        if functions and _USES_FUNCTIONS in text:
            yield FileChange(path, text, text, functions, source)
        elif found := _NAME.search(text):
            yield (source, found[1].decode()), path


def _tree(entry: Entry | None) -> str:
    return entry.sha if entry is not None and entry.is_tree else ""


def _of_functions(path: str) -> bool:
    return path.startswith(f"{FUNCTIONS}/")


def _texts(reader: Reader, shas: Sequence[str]) -> list[bytes | None]:
    """The contents of blobs; None where there is no id, and an unreadably long text for one that is too large."""
    wanted = [sha for sha in shas if sha]
    contents = dict(zip(wanted, reader.blobs(wanted, _MAX_TEXT), strict=True))
    return [(contents[sha] or b" " * (_MAX_TEXT + 1)) if sha else None for sha in shas]
