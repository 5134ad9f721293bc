"""What the mirror says of one commit, read in one go by the source's own thread."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from engine.dsl import bundle as bundles
from engine.errors import Problem
from engine.forge.pull_requests import subject_of
from engine.registry.revisions import Author, Bundle, Commit, Cursor, LiveDefinition
from engine.sync import plan
from engine.sync import problems as codes
from engine.sync.git_objects import CommitObject, Entry, TreeTooLarge
from engine.sync.git_reader import Reader
from engine.sync.mirror import Mirror

MAX_TEXT = 1024 * 1024
"""Bytes of a file that are read at all; the language's own limit is lower and gives the better message."""
MAX_TEXTS = 256 * 1024 * 1024
"""Bytes of all files that a commit adds or changes: a few kilobytes in git can mean a hundred gigabytes of them."""
MAX_AUTHORS = 200
"""Distinct authors of one revision that are kept."""
_READ_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Tip:
    """The branch's tip and the commits up to it that are to be registered, oldest first."""

    sha: str
    pending: tuple[str, ...] = ()
    history_rewritten: bool = False


@dataclass(frozen=True, slots=True)
class CommitReading:
    """A commit, what it changes in the source's folder, and the texts of its new and changed definitions."""

    commit: Commit
    changes: plan.TreeChanges
    texts: dict[str, bytes | None]
    bundle: Bundle
    confirmed: bool
    problems: tuple[Problem, ...] = ()


def is_done(sha: str, cursor: Cursor, folder: str, *, recheck: bool) -> bool:
    """Whether the tip `sha` is registered and need not be looked at again.

    With `recheck`, one that has problems is: what was missing on this machine may have been installed.
    """
    if not cursor.last_sha or cursor.last_sha != sha or cursor.retired:
        return False
    rejected = cursor.last_status == "REJECTED"
    moved = cursor.live_seq > 0 and cursor.folder != folder and not rejected
    return not moved and not (recheck and (rejected or cursor.live_faulty))


def find_tip(mirror: Mirror, reader: Reader, cursor: Cursor, folder: str, *, recheck: bool) -> Tip:
    """What is new since the registry's last revision. The first sync takes the tip alone."""
    sha = reader.tip()
    if not cursor.last_sha:
        return Tip(sha, (sha,))
    if cursor.last_sha == sha:
        return Tip(sha, () if is_done(sha, cursor, folder, recheck=recheck) else (sha,))
    if reader.commit(sha).parents[:1] == (cursor.last_sha,):
        return Tip(sha, (sha,))
    pending, rewritten = mirror.history(cursor.last_sha, sha)
    if not rewritten and reader.commit(pending[0]).parents[:1] != (cursor.last_sha,):
        # Somebody pulled, and pushed the merge: the last revision was merged into their own line, whose commits were
        # never the tip and lack what had been deployed.  To make them live would take that back for a moment.
        pending = [sha]
    return Tip(sha, tuple(pending), rewritten)


def read_file(reader: Reader, sha: str, path: str, max_bytes: int) -> tuple[CommitReading, bytes | None]:
    """A commit and the content of one file of it; None if there is no such file, or it is too large."""
    found = reader.commit(sha)
    above, _, _ = path.rpartition("/")
    folder = reader.folder(found, above)
    entry = reader.folder(found, path) if folder is not None and folder.is_tree else None
    fit = entry is not None and entry.is_file
    commit = _commit(found, entry.sha if entry is not None and fit else "")
    content = next(reader.blobs([entry.sha], max_bytes)) if entry is not None and fit else None
    return CommitReading(commit, plan.TreeChanges(), {}, Bundle(), confirmed=False), content


def with_bundle(found: CommitReading, bundle: Bundle) -> CommitReading:
    """The same commit with what is kept of it."""
    return replace(found, bundle=bundle)


def commit_alone(reader: Reader, sha: str) -> Commit:
    """A commit whose content is not looked at."""
    return _commit(reader.commit(sha), "")


def needs_listing(reader: Reader, cursor: Cursor, folder: str) -> bool:
    """Whether there is no old tree to compare with: the source's folder changed, or a forced push took the tree away."""
    if cursor.live_seq == 0 or not cursor.live_tree:
        return False
    if cursor.retired:
        return True
    return cursor.folder != folder or not reader.has_tree(cursor.live_tree)


def read_commit(
    reader: Reader,
    sha: str,
    cursor: Cursor,
    folder: str,
    live: Sequence[LiveDefinition] | None,
    carried: Collection[str] = (),
    *,
    functions: bool = False,
    isolated: bool = False,
) -> CommitReading:
    """Read a commit and compare it with the live tree, or with all `live` definitions where these are given.

    `carried` are paths that had problems in the live revision: they are read again although they are the same, and
    with `functions` the functions are.
    """
    found = reader.commit(sha)
    entry = reader.folder(found, folder)
    tree = entry.sha if entry is not None and entry.is_tree else ""
    commit = _commit(found, tree)
    confirmed = found.trailer(plan.CONFIRM_TRAILER).lower() in ("yes", "true")
    bundle = Bundle(cursor.live_bundle)
    if entry is not None and not entry.is_tree:
        message = f"a {entry.kind} stands where the source's folder should be"
        problem = Problem(code=codes.NO_FOLDER, message=message, file=folder)
        return CommitReading(commit, plan.TreeChanges(), {}, bundle, confirmed, (problem,))
    try:
        if live is not None:
            changes = plan.compare_with_live(reader.diff("", tree), folder, live)
        else:
            changes = plan.sort_difference(reader.diff(cursor.live_tree, tree), folder)
    except TreeTooLarge as error:
        problem = Problem(code=codes.TOO_MANY_FILES, message=f"the folder holds {error}", file=folder)
        return CommitReading(commit, plan.TreeChanges(), {}, bundle, confirmed, (problem,))
    changes = _with_carried(reader, changes, found, carried)
    changes = replace(changes, functions=changes.functions or functions)
    texts = _texts(reader, changes)
    if texts is None:
        message = f"the new and changed files have more than {MAX_TEXTS} bytes"
        problem = Problem(code=codes.TOO_MANY_FILES, message=message, file=folder)
        return CommitReading(commit, plan.TreeChanges(), {}, bundle, confirmed, (problem,))
    if (
        changes.problems and not isolated
    ):  # rejected already; contents are read to show the other problems too
        return CommitReading(commit, changes, texts, bundle, confirmed)
    problems: tuple[Problem, ...] = ()
    if changes.functions:
        bundle, problems = _bundle(reader, found, folder)
    return CommitReading(commit, changes, texts, bundle, confirmed, problems)


def _with_carried(
    reader: Reader, changes: plan.TreeChanges, commit: CommitObject, carried: Collection[str]
) -> plan.TreeChanges:
    known = changes.files.keys() | changes.removed | {problem.file for problem in changes.problems}
    files: dict[str, str] = {}
    removed: set[str] = set()
    for path in sorted(set(carried) - known):
        above = reader.folder(commit, path.rpartition("/")[0])
        entry = reader.folder(commit, path) if above is not None and above.is_tree else None
        if entry is not None and entry.is_file:
            files[path] = entry.sha
        else:
            removed.add(path)
    return replace(changes, files=changes.files | files, removed=changes.removed | removed)


def touched_paths(found: CommitReading, folder: str) -> set[str]:
    """Paths (from the repository's root) that the commit changes and that rules can speak of."""
    touched = set(found.changes.files) | found.changes.removed
    touched |= {problem.file for problem in found.changes.problems}
    return touched | ({plan.join(folder, f"{plan.FUNCTIONS}/*")} if found.changes.functions else set())


def with_authors(
    mirror: Mirror, reader: Reader, commit: Commit, cursor: Cursor, *, history_rewritten: bool
) -> Commit:
    """The commit with the authors of all that it brought, where these are more than its own author.

    A merge brings what its first parent lacks; one of somebody who pulled and pushed, what the live revision lacks; and
    one that mends a rejected commit, that commit.
    """
    itself = reader.commit(commit.sha)
    parents = itself.parents
    base = "" if history_rewritten or cursor.live_sha == commit.sha else cursor.live_sha
    base = base or commit.parent_sha
    if not parents or parents == (base,):
        found = list(itself.authors[:MAX_AUTHORS]) if len(itself.authors) > 1 else []
    else:
        found = reader.authors(mirror.brought(base, commit.sha), MAX_AUTHORS)
    return replace(commit, authors=tuple(Author(name, email) for name, email in found))


def _commit(found: CommitObject, tree: str) -> Commit:
    return Commit(
        sha=found.sha,
        parent_sha=found.parents[0] if found.parents else "",
        tree_sha=tree,
        author=found.author,
        author_email=found.author_email,
        committer=found.committer,
        committed_at=found.committed_at,
        subject=subject_of(found.subject, found.message),
    )


def _texts(reader: Reader, changes: plan.TreeChanges) -> dict[str, bytes | None] | None:
    """The texts by path, None for one that is too large; None instead of all if they are too much together."""
    texts: dict[str, bytes | None] = {}
    paths = list(changes.files)
    size = 0
    for start in range(0, len(paths), _READ_AT_ONCE):
        some = paths[start : start + _READ_AT_ONCE]
        contents = list(reader.blobs([changes.files[path] for path in some], MAX_TEXT))
        texts.update(zip(some, contents, strict=True))
        size += sum(len(content or b"") for content in contents)
        if size > MAX_TEXTS:
            return None
    return texts


def _bundle(reader: Reader, commit: CommitObject, folder: str) -> tuple[Bundle, tuple[Problem, ...]]:
    place = plan.join(folder, plan.FUNCTIONS)
    entry = reader.folder(commit, place)
    if entry is None or not entry.is_tree:
        return Bundle(), ()
    files: dict[str, Entry] = {
        path: now for path, (_, now) in reader.diff("", entry.sha).items() if now is not None and now.is_file
    }
    try:
        if len(files) > bundles.MAX_FILES:
            raise bundles.BundleError(
                f"{len(files)} files in `functions/`, and {bundles.MAX_FILES} are the most"
            )
        contents: dict[str, bytes] = {}
        size = 0
        blobs = reader.blobs([each.sha for each in files.values()], bundles.MAX_BYTES)
        for path, content in zip(files, blobs, strict=True):
            size += len(content) if content is not None else bundles.MAX_BYTES + 1
            if size > bundles.MAX_BYTES:
                continue  # read on: the pipe must be empty for the next question
            contents[path] = content or b""
        if size > bundles.MAX_BYTES:
            raise bundles.BundleError(f"more than {bundles.MAX_BYTES} bytes in `functions/`")
        packed = bundles.pack(contents)
    except bundles.BundleError as error:
        return Bundle(), (Problem(code=codes.BUNDLE, message=str(error), file=place),)
    return Bundle(bundles.digest(packed), packed), ()
