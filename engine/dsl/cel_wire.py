"""Protobuf's wire format, read into plain nodes: as much of it as CEL's parser writes.

Importing protobuf itself takes longer than checking a whole definition does.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack_from
from typing import Any, ClassVar, TypeAlias

MAX_DEPTH = 100
"""Messages inside of each other, as in protobuf's own readers."""

_Kind: TypeAlias = "str | type[Message]"


class DecodeError(Exception):
    """The bytes are no such message, or one that is nested too deeply."""


class Message:
    """A message whose fields are attributes; one that was not written has its type's empty value."""

    fields: ClassVar[dict[int, tuple[str, _Kind, bool, bool]]]
    """Number → (name, kind, repeated, alternative)."""
    empty: ClassVar[dict[str, Callable[[], Any]]]
    _alternative: str | None = None

    def __getattr__(self, name: str) -> Any:
        """The empty value of a field that was not written."""
        try:
            return self.empty[name]()
        except KeyError:
            raise AttributeError(name) from None

    def alternative(self) -> str | None:
        """The name of the one field that was written of those that exclude each other."""
        return self._alternative

    def has(self, name: str) -> bool:
        """Whether a field was written."""
        return name in self.__dict__


def define(schema: dict[str, list[tuple[str, int, str]]]) -> dict[str, type[Message]]:
    """A class for each message of `schema`: name → (field, number, type), with the type's words as in `_EMPTY`.

    `repeated` stands before the type of a field that may come often, `|` before that of an alternative.
    """
    made: dict[str, type[Message]] = {name: type(name, (Message,), {}) for name in schema}
    for name, fields in schema.items():
        made[name].fields = {}
        made[name].empty = {}
        for field, number, words in fields:
            label, _, word = words.lstrip("|").rpartition(" ")
            kind = made.get(word, word)
            made[name].fields[number] = (field, kind, bool(label), words.startswith("|"))
            made[name].empty[field] = list if label else _EMPTY.get(word) or made[word]
    return made


def decode(kind: type[Message], data: bytes) -> Any:
    """The message in `data`. Raises DecodeError; fields that the schema does not name are passed over."""
    try:
        return _message(kind, data, 0, len(data), 0)
    except (IndexError, UnicodeDecodeError) as error:
        raise DecodeError("the bytes end in the middle of a field, or hold no text") from error


def _message(kind: type[Message], data: bytes, at: int, end: int, depth: int) -> Message:
    if depth > MAX_DEPTH:
        raise DecodeError(f"more than {MAX_DEPTH} messages inside of each other")
    made = kind()
    values = made.__dict__
    known = kind.fields
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            found, at = _varint(data, at)
            begin = at
        elif wire == 2:
            found, begin = _varint(data, at)
            at = begin + found
        elif wire == 1 or wire == 5:
            found, begin = 0, at
            at += 8 if wire == 1 else 4
        else:
            raise DecodeError(f"wire type {wire}")
        if at > end:
            raise DecodeError("a field ends behind its message")
        field = known.get(tag >> 3)
        if field is None:
            continue
        name, type_, repeated, alternative = field
        if repeated and wire == 2 and isinstance(type_, str) and type_ in _NUMBERS:  # packed
            values.setdefault(name, []).extend(_packed(data, begin, at))
            continue
        value = _value(type_, wire, found, data, begin, at, depth)
        if repeated:
            values.setdefault(name, []).append(value)
            continue
        values[name] = value
        if alternative:
            made._alternative = name
    return made


def _value(kind: _Kind, wire: int, found: int, data: bytes, begin: int, end: int, depth: int) -> Any:
    if not isinstance(kind, str):
        return _message(kind, data, begin, end, depth + 1)
    if kind == "string":
        return data[begin:end].decode()
    if kind == "bytes":
        return data[begin:end]
    if kind == "double":
        return unpack_from("<d", data, begin)[0]
    if kind == "bool":
        return found != 0
    return found if kind == "uint64" else _signed(found)


def _packed(data: bytes, at: int, end: int) -> list[int]:
    numbers = []
    while at < end:
        number, at = _varint(data, at)
        numbers.append(_signed(number))
    return numbers


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    if byte < 128:
        return byte, at
    value = byte & 127
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise DecodeError("a number has more than ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


_NUMBERS = frozenset({"int32", "int64", "uint64", "enum", "bool"})
_EMPTY: dict[str, Callable[[], Any]] = {
    "bool": bool,
    "double": float,
    "int64": int,
    "int32": int,
    "uint64": int,
    "enum": int,
    "string": str,
    "bytes": bytes,
}
