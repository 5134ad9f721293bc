"""What a commit changes: pure functions from listings and checked files to a decision. No git, no database, no clock."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.errors import Problem
from engine.registry.revisions import LiveDefinition, VersionContent
from engine.sync import problems as codes
from engine.sync.conditions import HELD_BY
from engine.sync.git_objects import Difference, Entry

CONFIRM_TRAILER = "Pinflow-Confirm-Deletions"
FUNCTIONS = "functions"
MAX_PATH = 1000
"""Bytes of a definition's path: an index of Postgres takes no more than 2,700."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME_LINE = re.compile(rb"^name[ \t]*:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TreeChanges:
    """A difference of two trees, sorted by what it means. Paths are from the repository's root."""

    files: dict[str, str] = field(default_factory=dict)
    """Definition files that are new or changed: path → id of the content."""
    removed: frozenset[str] = frozenset()
    """Paths at which a definition file stood and stands no more."""
    functions: bool = False
    """Something below `functions/` differs."""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A definition file and what the check said. `content.name` is "" if the file has no usable name."""

    content: VersionContent
    problems: tuple[Problem, ...] = ()
    functions: tuple[str, ...] = ()
    """The functions that it calls."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a commit: with `problems`, nothing, unless these are `partial` and leave only their files as they were.

    `confirmed` says that it would have been held without a confirmation.
    """

    deploys: tuple[VersionContent, ...] = ()
    retires: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    partial: bool = False
    confirmed: bool = False

    @property
    def held(self) -> bool:
        """Nothing is wrong with the files: somebody must confirm or sign."""
        return bool(self.problems) and self.problems[0].code in HELD_BY


@dataclass(frozen=True, slots=True)
class Guard:
    """What deletions are judged by. `live` is the number of live definitions before the commit."""

    live: int
    max_deletions: int
    max_percent: float = 50.0
    confirmed: bool = False


def is_definition(path: str) -> bool:
    """Whether a path (from the source's folder) is that of a definition.

    YAML files at any depth are, but those of `functions/`, tests of definitions (`<name>.test.yaml`), and hidden ones.
    """
    parts = path.split("/")
    if parts[0] == FUNCTIONS and len(parts) > 1:
        return False
    if any(part.startswith(".") for part in parts):
        return False
    stem, _, suffix = parts[-1].rpartition(".")
    return suffix in ("yaml", "yml") and bool(stem) and not stem.endswith(".test")


def sort_difference(difference: Difference, folder: str) -> TreeChanges:
    """Sort what differs below a source's folder: definitions, functions, and what may not stand there."""
    files: dict[str, str] = {}
    removed: set[str] = set()
    found: list[Problem] = []
    functions = False
    for path, (before, now) in difference.items():
        full = join(folder, path)
        if now is not None and (problem := _unfit(full, now)):
            found.append(problem)
            continue
        if path.startswith(f"{FUNCTIONS}/"):
            functions = True
        elif is_definition(path):
            if now is not None and len(full.encode()) > MAX_PATH:
                message = f"the file's path is longer than {MAX_PATH} bytes"
                found.append(Problem(code=codes.FILE_NAME, message=message, file=full))
                continue
            same = before is not None and before.is_file and now is not None and before.sha == now.sha
            if now is None:
                removed.add(full)
            elif not same:  # a change of the executable bit alone is none
                files[full] = now.sha
    return TreeChanges(files=files, removed=frozenset(removed), functions=functions, problems=tuple(found))


def compare_with_live(listing: Difference, folder: str, live: Iterable[LiveDefinition]) -> TreeChanges:
    """The same as `sort_difference`, where there is no old tree to compare with: what is live stands for it."""
    changes = sort_difference(listing, folder)
    known = {each.path: each.git_blob for each in live}
    return TreeChanges(
        files={path: sha for path, sha in changes.files.items() if known.get(path) != sha},
        # What is no fit file has a problem, and is not gone.
        removed=frozenset(known.keys() - changes.files.keys() - {each.file for each in changes.problems}),
        functions=True,
        problems=changes.problems,
    )


def join(folder: str, path: str) -> str:
    """The path from the repository's root, fit to be stored and shown."""
    prefix = "/".join(part for part in folder.split("/") if part not in ("", "."))
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return f"{prefix}/{shown}" if prefix else shown


def _unfit(path: str, entry: Entry) -> Problem | None:
    if not entry.is_file:
        code = codes.SUBMODULE if entry.kind == "submodule" else codes.SYMLINK
        return Problem(
            code=code, message=f"a {entry.kind} may not stand in a source's folder", file=_shown(path)
        )
    if _CONTROL.search(path) or "\\x" in path:
        return Problem(
            code=codes.FILE_NAME, message="the file's name is not plain UTF-8 text", file=_shown(path)
        )
    return None


def _shown(path: str) -> str:
    return _CONTROL.sub("?", path)


def decide(
    files: Sequence[CheckedFile],
    removed: Iterable[str],
    live: Sequence[LiveDefinition],
    *,
    guard: Guard,
    bundle_digest: str,
    function_users: Sequence[LiveDefinition] = (),
    isolated: bool = False,
    others: Sequence[Problem] = (),
    kept: Sequence[Problem] = (),
) -> Decision:
    """What a commit does to a source.

    `files` are the new and changed definition files, `removed` the paths that lost theirs; `live` holds at least the
    live definitions at any of these paths or with any of the files' names.  `bundle_digest` is that of the commit's
    functions; if they changed, `function_users` are all live definitions that call them.  If `isolated`, a file with a
    problem keeps its last good version; `others` are problems that concern no definition, `kept` those of what the
    commit leaves alone, which then stays as it is.
    """
    found = [*others, *kept, *(problem for file in files for problem in file.problems)]
    found += _duplicates(files, [*removed, *(problem.file for problem in others)], live)
    if found and not isolated:
        return Decision(problems=_sorted(found))
    bad = {problem.file for problem in found}
    good = [file for file in files if file.content.path not in bad]
    names = {file.content.name for file in good}
    touched = {file.content.path for file in files} | set(removed)
    gone = [each for each in live if each.path in touched and each.name not in names]
    unsure = _unsure(gone, files, bad)
    found += [_not_retired(each, path) for each, path in unsure if each.path not in bad]
    keeps = {each.name for each, _ in unsure} | {each.name for each in live if each.path in bad}
    retires = tuple(sorted(each.name for each in gone if each.name not in keeps))
    deploys = [_with_bundle(file.content, bundle_digest) for file in good]
    deploys += [
        _carried(user, bundle_digest)
        for user in function_users
        if user.name not in names
        and user.name not in retires
        and user.name not in keeps
        and user.path not in bad
        and user.bundle_digest != bundle_digest
    ]
    added = len(names - {each.name for each in live})
    implausible = _implausible(retires, added, guard)
    if implausible and not guard.confirmed:
        return Decision(problems=(implausible,))
    return Decision(
        deploys=tuple(sorted(deploys, key=lambda each: each.name)),
        retires=retires,
        problems=_sorted(found),
        partial=bool(found),
        confirmed=implausible is not None,
    )


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))


def _unsure(
    gone: Iterable[LiveDefinition], files: Sequence[CheckedFile], bad: Collection[str]
) -> list[tuple[LiveDefinition, str]]:
    """Which of the definitions that lost their place stay, and the bad file that they may stand in.

    A bad file at the same path keeps what is live there, one with the same name what has that name.  One whose name
    cannot be read may hold any definition whose own file is gone: nothing is retired on a guess.
    """
    # In a fixed order: a second look must name the same files.
    unreadable = sorted((f.content for f in files if f.content.path in bad), key=lambda each: each.path)
    by_name = {content.name: content.path for content in reversed(unreadable)}
    places = {each.path for each in gone}
    nameless = next((c.path for c in unreadable if not c.name and c.path not in places), "")
    found = []
    for each in gone:
        place = each.path if each.path in bad else by_name.get(each.name, nameless)
        if place:
            found.append((each, place))
    return found


def _not_retired(each: LiveDefinition, place: str) -> Problem:
    return Problem(
        code=codes.NOT_RETIRED,
        message=f"workflow {each.name} stays live: its file is gone, but {place} has a problem and may define it",
        file=each.path,
        hint=f"mend or remove {place}",
    )


def _with_bundle(content: VersionContent, bundle_digest: str) -> VersionContent:
    return replace(content, bundle_digest=bundle_digest if content.uses_functions else "")


def _carried(user: LiveDefinition, bundle_digest: str) -> VersionContent:
    """The same text with other functions: a new version, whose bytes are stored already."""
    return VersionContent(
        name=user.name,
        path=user.path,
        git_blob=user.git_blob,
        digest=user.digest,
        compiled_digest=user.compiled_digest,
        bundle_digest=bundle_digest,
        dsl=user.dsl,
        version=user.version,
        title=user.title,
        description=user.description,
        labels=user.labels,
        uses_functions=True,
        calls=user.calls,
        triggers=user.triggers,
    )


def _duplicates(
    files: Sequence[CheckedFile], removed: Iterable[str], live: Sequence[LiveDefinition]
) -> list[Problem]:
    """Each place at which a name stands that stands elsewhere as well."""
    gone = set(removed) | {file.content.path for file in files}
    places: dict[str, dict[str, int]] = {}
    for file in files:
        if file.content.name:
            places.setdefault(file.content.name, {})[file.content.path] = name_line(file.content.text)
    for each in live:
        if each.name in places and each.path not in gone:
            places[each.name][each.path] = each.name_line
    return [_duplicate(name, path, at) for name, at in places.items() if len(at) > 1 for path in at]


def _duplicate(name: str, path: str, at: Mapping[str, int]) -> Problem:
    others = ", ".join(f"{other}:{at[other]}" for other in sorted(at) if other != path)
    return Problem(
        code=codes.DUPLICATE_NAME,
        message=f"workflow {name} is also defined in {others}",
        file=path,
        line=at[path],
        column=1,
        path="name",
        hint="rename one of them",
    )


def _implausible(retires: Sequence[str], added: int, guard: Guard) -> Problem | None:
    if not retires:
        return None
    hint = (
        "if this is meant: `pinflow sync confirm`, or a commit whose message ends with the line "
        f"`{CONFIRM_TRAILER}: yes`"
    )
    if guard.live - len(retires) + added <= 0:
        message = f"no definition would be left; {len(retires)} would be retired: {_few(retires)}"
        return Problem(code=codes.EMPTY_FOLDER, message=message, hint=hint)
    share = 100 * len(retires) / max(guard.live, 1)
    if len(retires) > guard.max_deletions and share > guard.max_percent:
        message = f"{len(retires)} of {guard.live} definitions would be retired: {_few(retires)}"
        return Problem(code=codes.MASS_DELETION, message=message, hint=hint)
    return None


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def name_line(text: bytes | None) -> int:
    """The line of the top-level key `name`, 1 if it is not found."""
    found = _NAME_LINE.search(text or b"")
    return 1 if found is None or text is None else text.count(b"\n", 0, found.start()) + 1
