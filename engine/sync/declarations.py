"""What is to be watched, and how: from the settings, from a file, and from lists in git. Every fault is located.

Credentials and trusts are the operator's: they stand in the operator's own file.  A list in git can name them and
nothing else, so that whoever may change the list cannot send a secret to a host that it is not for, read this machine's
files, or bring keys of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.dsl.loader import Document, load
from engine.errors import Misconfigured, Problem, SourceError
from engine.settings import Credential, IncludeSettings, Settings, SourceSettings, Trust
from engine.sync.git_credentials import check_host
from engine.sync.git_urls import parse_remote
from engine.sync.problems import SOURCES_FILE

MAX_SOURCES = 1000
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
_Entry = SourceSettings | IncludeSettings


@dataclass(frozen=True, slots=True)
class Declared:
    """A source (or a list of sources in git) with the credential and the trust that it names."""

    source: _Entry
    credential: Credential | None = None
    trust: Trust | None = None
    included_from: str = ""
    """The name of the list in git that it comes from."""

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def place(self) -> str:
        """The folder, or the file of a list."""
        found = self.source.folder if isinstance(self.source, SourceSettings) else self.source.file
        return found.strip("/")


@dataclass(frozen=True, slots=True)
class Declarations:
    """All that is declared on this machine. What the included lists hold is not in it."""

    sources: tuple[Declared, ...] = ()
    includes: tuple[Declared, ...] = ()
    credentials: Mapping[str, Credential] = field(default_factory=dict)
    trusts: Mapping[str, Trust] = field(default_factory=dict)


class _List(BaseModel):
    """A list of sources in git."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sources: tuple[SourceSettings, ...] = Field(max_length=MAX_SOURCES)


class _File(BaseModel):
    """The operator's own file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sources: tuple[SourceSettings, ...] = Field(default=(), max_length=MAX_SOURCES)
    include: tuple[IncludeSettings, ...] = ()
    credentials: dict[str, Credential] = Field(default_factory=dict)
    trust: dict[str, Trust] = Field(default_factory=dict)


_Model = TypeVar("_Model", _List, _File)


def read_declarations(settings: Settings) -> Declarations:
    """What the settings and the sources file declare. Raises `Misconfigured` with every fault, located."""
    file = _File()
    document: Document | None = None
    if settings.sources_file is not None:
        document, file = _read(settings.sources_file)
    given = Declarations(credentials=file.credentials, trusts=file.trust)
    found = [_named(settings.sources, given, "PINFLOW_SOURCES", (), _Places("PINFLOW_SOURCES"))]
    where = _Places(str(settings.sources_file or ""), document)
    names = {source.name for source in settings.sources}
    found.append(_named(file.sources, given, "sources", names, where))
    names |= {source.name for source in file.sources}
    found.append(_named(file.include, given, "include", names, where))
    problems = [problem for _, some in found for problem in some]
    if problems:
        raise Misconfigured(
            "\n".join(str(problem) for problem in problems), hint="docs/reference/sources-file.md"
        )
    (env, _), (sources, _), (includes, _) = found
    return Declarations((*env, *sources), tuple(includes), file.credentials, file.trust)


def read_list(
    text: bytes, file: str, given: Declarations, included_from: str
) -> tuple[tuple[Declared, ...], tuple[Problem, ...]]:
    """The sources of a list in git, or its problems. Names that are declared on this machine are taken already."""
    document = _load(text, file)
    if isinstance(document, list):
        return (), tuple(document)
    problems = _Places(file, document)
    listed = _validated(_List, document)
    if not isinstance(listed, _List):
        return (), listed
    taken = {each.name for each in (*given.sources, *given.includes)}
    found, faults = _named(listed.sources, given, "sources", taken, problems, included_from)
    faults += [
        problems.at(("sources", index, "url"), said)
        for index, source in enumerate(listed.sources)
        if (said := _unfit_for_git(source.url))
    ]
    return ((), tuple(faults)) if faults else (tuple(found), ())


def _read(path: Path) -> tuple[Document, _File]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            f"the sources file {path} cannot be read: {error.strerror}", hint="PINFLOW_SOURCES_FILE names it"
        ) from error
    document = _load(text, str(path))
    problems = tuple(document) if isinstance(document, list) else ()
    if isinstance(document, Document):
        found = _validated(_File, document)
        if isinstance(found, _File):
            return document, _anchored(found, path.resolve().parent)
        problems = found
    raise Misconfigured(
        "\n".join(str(problem) for problem in problems), hint="docs/reference/sources-file.md"
    )


def _load(text: bytes, file: str) -> Document | list[Problem]:
    if all(not line.strip() or line.lstrip().startswith(b"#") for line in text.splitlines()):
        return [Problem(SOURCES_FILE, "the file is empty", file, 1, 1, hint="for no sources: `sources: []`")]
    return load(text, file)


def _validated(model: type[_Model], document: Document) -> _Model | tuple[Problem, ...]:
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        return tuple(_problem(document, dict(fault)) for fault in error.errors())


def _problem(document: Document, fault: dict[str, Any]) -> Problem:
    path = tuple(part for part in fault["loc"] if isinstance(part, str | int))
    unknown = fault["type"] == "extra_forbidden"
    message = "there is no such key here" if unknown else str(fault["msg"]).removeprefix("Value error, ")
    return document.problem(SOURCES_FILE, f"{'.'.join(map(str, path))}: {message}", path, key=unknown)


def _anchored(file: _File, folder: Path) -> _File:
    """Relative paths are meant from the file's own folder, not from where a process happens to be started."""

    def path(value: Path | None) -> Path | None:
        return None if value is None else folder / value.expanduser()

    def url(value: str) -> str:
        return str(folder / value) if value.startswith((".", "..")) else value

    return file.model_copy(
        update={
            "sources": tuple(each.model_copy(update={"url": url(each.url)}) for each in file.sources),
            "include": tuple(each.model_copy(update={"url": url(each.url)}) for each in file.include),
            "credentials": {
                name: each.model_copy(
                    update={
                        key: path(getattr(each, key))
                        for key in ("token_file", "ssh_key", "known_hosts", "ca_file")
                    }
                )
                for name, each in file.credentials.items()
            },
            "trust": {
                name: each.model_copy(
                    update={key: path(getattr(each, key)) for key in ("allowed_signers", "gpg_keyring")}
                )
                for name, each in file.trust.items()
            },
        }
    )


class _Places:
    """Makes problems located in a file, or in a variable."""

    def __init__(self, file: str, document: Document | None = None) -> None:
        self._file = file
        self._document = document

    def at(self, path: Sequence[str | int], message: str) -> Problem:
        if self._document is not None:
            return self._document.problem(SOURCES_FILE, message, tuple(path))
        return Problem(SOURCES_FILE, f"{'.'.join(map(str, path))}: {message}", self._file)


def _named(
    entries: Sequence[_Entry],
    given: Declarations,
    key: str,
    taken: Iterable[str],
    places: _Places,
    included_from: str = "",
) -> tuple[list[Declared], list[Problem]]:
    """The entries with what they name; every name that is unknown or taken is a problem."""
    names = set(taken)
    found: list[Declared] = []
    problems: list[Problem] = []
    for index, entry in enumerate(entries):
        faults = list(_faults(entry, given))
        if entry.name in names:
            faults.append(("name", f"several sources are named {entry.name}"))
        names.add(entry.name)
        problems += [places.at((key, index, where), said) for where, said in faults]
        found.append(
            Declared(
                entry,
                given.credentials.get(entry.credential),
                given.trusts.get(entry.trust),
                included_from,
            )
        )
    return found, problems


def _faults(entry: _Entry, given: Declarations) -> Iterable[tuple[str, str]]:
    """(key, what is wrong with it)."""
    if entry.credential and entry.credential not in given.credentials:
        yield "credential", _unknown("credential", entry.credential, given.credentials)
    if entry.trust and entry.trust not in given.trusts:
        yield "trust", _unknown("trust", entry.trust, given.trusts)
    rules = entry.rules if isinstance(entry, SourceSettings) else ()
    if not entry.trust and (entry.verify != "none" or rules):
        yield ("verify" if entry.verify != "none" else "rules"), "a `trust` must say whose keys count"
    if entry.verify_from and entry.verify != "every_commit":
        yield "verify_from", "it says where `verify: every_commit` begins, which this entry does not ask for"
    trust = given.trusts.get(entry.trust)
    for rule in rules:
        if trust is not None and rule.group not in trust.groups:
            yield "rules", _unknown("group", rule.group, trust.groups)
    # A URL that is not allowed is the source's own condition, and stops no other; a credential for another host is not.
    try:
        remote = parse_remote(entry.url)
    except SourceError:
        return
    try:
        check_host(given.credentials.get(entry.credential), remote)
    except SourceError as error:
        yield "credential", error.message


def _unfit_for_git(url: str) -> str:
    try:
        remote = parse_remote(url)
    except SourceError as error:
        return error.message
    if remote.local is not None:
        return "a list in git names remotes, not paths of this machine"
    return "a list in git holds no credential: name one by `credential`" if remote.secrets else ""


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    return f"there is no {what} {name!r}; there are: {', '.join(sorted(known)) or 'none'}"
