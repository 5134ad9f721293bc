"""YAML text to plain data with positions: the only importer of PyYAML.

What is accepted is YAML 1.2 core, narrowed: UTF-8, one document, text keys, no anchors, aliases, merge
keys or tags, at most 256 KiB, 64 levels and 50,000 values.  Everything else is a located `Problem`.

libyaml's `compose` recurses on the C stack and dies on 50,000 open brackets, so text that could nest
deeply, or hold very many values, is first walked as a flat stream of events, which cannot crash, is
stopped at the first excess, and costs ordinary files nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent, NodeEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from engine.dsl import codes
from engine.errors import Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
MAX_VALUES = 50_000
MAX_INT_DIGITS = 18
"""Integers of this many digits fit in 64 bits, which CEL, Postgres and most JSON readers share."""

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands in a document: keys and indices from the root."""

# `compose` is safe at this depth on any thread's stack; a text that cannot reach it needs no event pass.
_SAFE_DEPTH = 400
# Without brackets every level takes a column, or half of one (a list may stand at the column of its key).
_DEEP_BLOCK = re.compile(r"[\n\r\x85\u2028\u2029][ \t\-?:]{64}")
_ANCHOR_OR_ALIAS = re.compile(r"[&*][0-9A-Za-z_\-]")
_BEFORE_ANCHOR = frozenset(" \t\n\r\x85\u2028\u2029,[]{}:?-")
_FORBIDDEN_CHARACTER = re.compile("[\x00\ud800-\udfff]")
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_NUMBER_START = frozenset("-+.0123456789")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip


class _Refused(Exception):
    """A fault inside of this module, with its place: 0-based line and column."""

    def __init__(self, code: str, message: str, line: int, column: int, hint: str = "") -> None:
        self.code, self.message, self.line, self.column, self.hint = code, message, line, column, hint


class _Text:
    """Tag of a scalar that is text. The tags are our own objects, so an explicit `!!str` is told from ours."""


class _Plain:
    """Tag of a plain scalar that the core schema may read as null, a bool or a number."""


class _Collection:
    """Tag of a mapping or sequence without an explicit tag."""


class _Core(yaml.CSafeLoader):
    """libyaml's composer with the resolving of tags put off: twice as fast as walking PyYAML's resolvers."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is ScalarNode:
            # The first test is all that most scalars meet: only a plain one that may be a word or a number
            # is looked at again.
            if implicit[0] and (value in _WORDS or value[0] in _NUMBER_START):
                return _Plain
            return _Text
        return _Collection

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        """Nothing: we resolve by value alone."""

    def ascend_resolver(self) -> None:
        """Nothing: see `descend_resolver`."""


@dataclass(slots=True)
class Document:
    """A loaded document: `data` is plain JSON data, and every path of it can be found again in the text."""

    data: Any
    file: str
    text: str
    root: Any

    def at_value(self, path: Path) -> tuple[int, int]:
        """Line and column, both from 1, of the value at `path`, or of the nearest one that exists."""
        return _place(self._find(path)[1])

    def at_key(self, path: Path) -> tuple[int, int]:
        """Line and column, both from 1, of the key that `path` ends with; of the item, in a list."""
        key, value = self._find(path)
        return _place(key or value)

    def inside(self, path: Path, offset: int) -> tuple[int, int]:
        """Line and column of the character `offset` of the text value at `path`.

        Exact where the value stands in the file as it is; where escapes or folding changed it, the start
        of the expression that holds the character, or else of the scalar.
        """
        node = self._find(path)[1]
        if not isinstance(node, ScalarNode):
            return _place(node)
        index = _index_inside(self.text, node, offset)
        if index is None:
            return _place(node)
        line_breaks = self.text.count("\n", node.start_mark.index, index)
        if not line_breaks:
            return node.start_mark.line + 1, node.start_mark.column + 1 + index - node.start_mark.index
        return node.start_mark.line + 1 + line_breaks, index - self.text.rfind("\n", 0, index)

    def raw(self, path: Path) -> str | None:
        """The scalar at `path` as written, without its quotes; None if there is no scalar."""
        node = self._find(path)[1]
        return str(node.value) if isinstance(node, ScalarNode) else None

    def problem(
        self,
        code: str,
        message: str,
        path: Path = (),
        *,
        hint: str = "",
        key: bool = False,
        offset: int | None = None,
    ) -> Problem:
        """A problem at `path`: at its key, at a character inside of its text, or at its value."""
        if offset is not None:
            line, column = self.inside(path, offset)
        else:
            line, column = self.at_key(path) if key else self.at_value(path)
        # Messages quote the file, which may hold escape sequences or text that runs from right to left.
        said, advice = (text if text.isprintable() else shown(text, 400) for text in (message, hint))
        return Problem(code, said, self.file, line, column, ".".join(map(str, path)), advice)

    def _find(self, path: Path) -> tuple[Any, Any]:
        key, node = None, self.root
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            key, node = found
        return key, node


def load(text: bytes, file: str = "") -> Document | list[Problem]:
    """The document in `text`, or the problems that make it unreadable (never another exception)."""
    try:
        decoded = _decode(text)
        _guard(decoded)
        return _compose(decoded, file)
    except _Refused as fault:
        return [Problem(fault.code, fault.message, file, fault.line + 1, fault.column + 1, "", fault.hint)]


def _decode(text: bytes) -> str:
    if len(text) > MAX_BYTES:
        raise _Refused(
            codes.TOO_LARGE, f"the file has {len(text)} bytes; at most {MAX_BYTES} are read", 0, 0,
            "split the workflow, or move data out of it",
        )  # fmt: skip
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        good = text[: error.start].decode("utf-8")
        raise _Refused(
            codes.ENCODING, f"byte {error.start} is not UTF-8", good.count("\n"), len(good) - good.rfind("\n") - 1,
            "save the file as UTF-8",
        ) from None  # fmt: skip
    # A byte order mark is no part of the text: libyaml would count it as a column.
    return decoded.removeprefix("\ufeff")


def _guard(text: str) -> None:
    """Walk the events of a text that could be dangerous to compose, or that may hold what only events show."""
    openers = text.count("[") + text.count("{")
    separators = text.count(",") + text.count("\n") + text.count(":") + text.count("- ") + text.count("? ")
    if (
        openers > _SAFE_DEPTH
        or openers + separators > MAX_VALUES // 2
        or _DEEP_BLOCK.search("\n" + text)
        or _may_hold_anchor(text)
    ):
        _walk_events(text)


def _may_hold_anchor(text: str) -> bool:
    if "&" not in text and "*" not in text:
        return False
    return any(
        found.start() == 0 or text[found.start() - 1] in _BEFORE_ANCHOR
        for found in _ANCHOR_OR_ALIAS.finditer(text)
    )


def _walk_events(text: str) -> None:
    depth = values = documents = 0
    for event in _events(text):
        mark: Any = event.start_mark
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _Refused(
                    codes.YAML,
                    "a second document begins here",
                    mark.line,
                    mark.column,
                    "one file holds one workflow",
                )
        elif isinstance(event, NodeEvent):
            values += 1
            if isinstance(event, AliasEvent) or event.anchor:
                _refuse_anchor(event)
            if values > MAX_VALUES:
                raise _Refused(codes.TOO_LARGE, f"more than {MAX_VALUES} values", mark.line, mark.column)
            if isinstance(event, CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise _too_deep(mark)
        elif isinstance(event, CollectionEndEvent):
            depth -= 1


def _refuse_anchor(event: NodeEvent) -> None:
    sign, what = ("*", "alias") if isinstance(event, AliasEvent) else ("&", "anchor")
    mark: Any = event.start_mark
    raise _Refused(
        codes.ANCHOR, f"{what} `{sign}{event.anchor}`: anchors and aliases are not part of the language",
        mark.line, mark.column,
        f"write the value out, or quote the text that begins with `{sign}`",
    )  # fmt: skip


def _events(text: str) -> Iterator[Any]:
    loader = _Core(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    except yaml.MarkedYAMLError as error:
        raise _yaml_fault(error, text) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _reader_fault(error, text) from None
    finally:
        loader.dispose()


def _compose(text: str, file: str) -> Document:
    loader = _Core(text)
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _yaml_fault(error, text) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _reader_fault(error, text) from None
    finally:
        loader.dispose()
    if root is None:
        raise _Refused(codes.YAML, "the file is empty", 0, 0, "a workflow needs at least `name` and `tasks`")
    try:
        data = _value(root, 0)
    except _Refused as fault:
        _hint_quoting(fault, text)
        raise
    return Document(data, file, text, root)


def _value(node: Any, depth: int) -> Any:
    tag = node.tag
    if tag is _Text:
        return _text(node)
    if tag is _Plain:
        return _plain(node)
    if tag is not _Collection:
        raise _fault(
            node,
            codes.TAG,
            f"tag `{shown(node.tag)}`: tags are not part of the language",
            "leave the tag out",
        )
    if depth >= MAX_DEPTH:
        raise _too_deep(node.start_mark)
    if type(node) is SequenceNode:
        return [_value(item, depth + 1) for item in node.value]
    return _mapping(node, depth + 1)


def _text(node: Any) -> str:
    text: str = node.value
    if "\x00" in text or (not text.isascii() and _FORBIDDEN_CHARACTER.search(text)):
        raise _fault(node, codes.SCALAR, "text may not hold NUL or half of a surrogate pair")
    return text


def _mapping(node: Any, depth: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in node.value:
        name = _key(key)
        if name in data:
            first = next(k for k, _ in node.value if k.value == name)
            raise _fault(
                key, codes.DUPLICATE_KEY,
                f"key `{shown(name)}` stands here and already in line {first.start_mark.line + 1}",
                "keep one of the two",
            )  # fmt: skip
        data[name] = _value(value, depth)
    return data


def _key(key: Any) -> str:
    if key.tag is _Text:
        if key.value == "<<" and not key.style:
            raise _fault(
                key, codes.ANCHOR, "merge keys (`<<`) are not part of the language", "write the keys out"
            )
        return _text(key)
    if key.tag is _Plain:
        if isinstance(_plain(key), str):
            return str(key.value)
        raise _fault(
            key, codes.KEY, f"key `{shown(key.value)}` is not text", f'quote it: "{shown(key.value)}"'
        )
    if isinstance(key, ScalarNode):
        raise _fault(
            key, codes.TAG, f"tag `{shown(key.tag)}`: tags are not part of the language", "leave the tag out"
        )
    raise _fault(key, codes.KEY, "a list or a mapping cannot be a key", "quote it to make it text")


def _plain(node: Any) -> Any:
    """The core schema of YAML 1.2 for a plain scalar that may be a word or a number."""
    text: str = node.value
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        if len(text) > MAX_INT_DIGITS:
            raise _fault(node, codes.SCALAR, f"a number of {len(text)} digits", "quote it to keep it as text")
        return int(text)
    if _FLOAT.match(text):
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise _fault(
                node, codes.SCALAR, f"number `{shown(text)}` is too large", "quote it to keep it as text"
            )
        return number
    if _OCTAL.match(text) or _HEX.match(text):
        if len(text) > MAX_INT_DIGITS:
            raise _fault(node, codes.SCALAR, f"a number of {len(text)} digits", "quote it to keep it as text")
        return int(text, 0)
    if _NOT_FINITE.match(text):
        raise _fault(node, codes.SCALAR, f"`{text}` has no JSON form", "quote it to keep it as text")
    return text


def _fault(node: Any, code: str, message: str, hint: str = "") -> _Refused:
    return _Refused(code, message, node.start_mark.line, node.start_mark.column, hint)


def _too_deep(mark: Any) -> _Refused:
    return _Refused(codes.TOO_DEEP, f"more than {MAX_DEPTH} levels of nesting", mark.line, mark.column)


def shown(text: object, limit: int = 60) -> str:
    """Foreign text as it may stand in a message: one line, printable, short."""
    line = str(text)[: limit + 1]
    if not line.isprintable():
        line = line.encode("unicode_escape", "backslashreplace").decode("ascii")
    return line if len(line) <= limit else line[: limit - 3] + "..."


_YAML_HINTS = {
    "did not find expected key": "check the indentation of this line and of those above it",
    "expected '-' indicator": "check the indentation of this line and of those above it",
    "mapping values are not allowed": "check the indentation, or quote a text that holds `: `",
    "could not find expected ':'": "a key ends with `: `; check the indentation",
}
"""What people usually did, by what libyaml says."""


def _yaml_fault(error: yaml.MarkedYAMLError, text: str) -> _Refused:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    message = " ".join(part for part in (error.context, error.problem) if part)
    if "expected a single document" in message:
        return _Refused(
            codes.YAML, "a second document begins here", line, column, "one file holds one workflow"
        )
    hint = "a tab cannot indent; use spaces" if "cannot start any token" in message and "\t" in text else ""
    fault = _Refused(codes.YAML, message or "not readable as YAML", line, column, hint)
    if error.context_mark is not None:
        _hint_quoting(fault, text, error.context_mark.line)
    _hint_quoting(fault, text)
    fault.hint = fault.hint or next((hint for sign, hint in _YAML_HINTS.items() if sign in message), "")
    return fault


def _reader_fault(error: Exception, text: str) -> _Refused:
    """libyaml's reader and our own decoder name a character, not a line."""
    position = getattr(error, "position", 0) or 0
    before = text.encode("utf-8", "replace")[:position].decode("utf-8", "ignore")
    reason = str(getattr(error, "reason", "") or error).split("\n")[0]
    return _Refused(
        codes.YAML,
        f"not readable as YAML: {reason}",
        before.count("\n"),
        len(before) - before.rfind("\n") - 1,
    )


def _hint_quoting(fault: _Refused, text: str, line: int | None = None) -> None:
    """A YAML error on a line with an expression is nearly always an expression without quotes."""
    lines = text.split("\n")
    number = fault.line if line is None else line
    if not fault.hint and number < len(lines) and "${{" in lines[number]:
        fault.hint = 'quote this expression: "${{ … }}"'


def _place(node: Any) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _child(node: Any, part: str | int) -> tuple[Node | None, Node] | None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key, value
    elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None


def _index_inside(text: str, node: Any, offset: int) -> int | None:
    """The place in `text` of character `offset` of the scalar `node`, or None if it cannot be told."""
    start, end = node.start_mark.index, node.end_mark.index
    raw, value = text[start:end], node.value
    whole = raw.find(value)
    if whole >= 0:
        return int(start + whole + offset)
    # Folded, indented or escaped text: the n-th `${{` of the value is the n-th one of the file's text.
    opening = value.rfind("${{", 0, offset + 1)
    if opening < 0 or value.count("${{") != raw.count("${{"):
        return None
    at = -1
    for _ in range(value.count("${{", 0, opening) + 1):
        at = raw.find("${{", at + 1)
    lead = value[opening:offset]
    return int(start + at + (len(lead) if raw.startswith(lead, at) else 0))
