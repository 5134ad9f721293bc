"""JSON Schemas that people write or that Pydantic makes: checked, closed to the network, and bounded.

The only importer of `jsonschema_rs`, whose patterns are matched in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

import jsonschema_rs

Schema: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str | int, ...]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
MAX_PATTERN = 200_000
"""Bytes of one compiled pattern."""
MAX_PATTERNS = 500
MAX_EXPANDED = 20_000
"""Subschemas after every `$ref` is written out: what one validation may have to look at."""

_INDEX = re.compile("[0-9]{1,9}")
"""Of a list in a reference. `²` is a digit to Python as well, and no number."""
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
_SINGLE = (
    "not", "if", "then", "else", "items", "contains", "additionalProperties", "propertyNames",
    "unevaluatedItems", "unevaluatedProperties", "contentSchema",
)  # fmt: skip
_REFUSED = (
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$anchor",
    "$id",
    "$vocabulary",
)
_PLAIN = (
    "type", "enum", "const", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
    "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength", "minLength", "pattern",
    "format", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains", "maxProperties", "minProperties",
    "required", "dependentRequired", "contentEncoding", "contentMediaType", "$ref", "$schema", "$comment",
)  # fmt: skip
_KEYWORDS = frozenset((*_PLAIN, *_LISTS, *_MAPS, *_SINGLE, *_REFUSED))


class SchemaFault(Exception):
    """The JSON Schema cannot be used: what, and where in it."""

    def __init__(self, message: str, path: Path = (), hint: str = "") -> None:
        super().__init__(message)
        self.message, self.path, self.hint = message, path, hint


def compile_schema(schema: Schema) -> jsonschema_rs.Draft202012Validator:
    """A validator that fetches nothing and cannot be slowed down by a pattern. Raises SchemaFault."""
    try:
        return jsonschema_rs.Draft202012Validator(
            schema, offline=True, pattern_options=jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN)
        )
    except jsonschema_rs.ValidationError as error:
        raise SchemaFault(_first_line(error.message), tuple(error.instance_path)) from None
    except (ValueError, RecursionError, jsonschema_rs.ReferencingError) as error:
        raise SchemaFault(_first_line(str(error))) from None


def check_user_schema(schema: Schema) -> list[SchemaFault]:
    """Every fault of a JSON Schema that stands in a definition.

    Beyond the meta-schema: no unknown keyword (JSON Schema itself would ignore a misspelt one) but those that begin
    with `x-`; references stay inside of the schema and never lead back to where they came
    from, and the whole, with every reference written out, stays below `MAX_EXPANDED` subschemas.
    """
    faults: list[SchemaFault] = []
    if not _meta_schema().is_valid(schema):
        faults = [
            SchemaFault(_meta_message(error), tuple(error.instance_path))
            for error in _meta_schema().iter_errors(schema)
        ]
    faults += _unknown_keywords(schema, ())
    if not faults:
        try:
            _Expansion(schema).count(schema, ())
            compile_schema(schema)
        except SchemaFault as fault:
            faults.append(fault)
    return faults


def subschemas(schema: Any) -> Iterator[tuple[Path, Any]]:
    """The schemas directly inside of `schema`, each with its path; definitions (`$defs`) included."""
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        if keyword in _SINGLE:
            yield (keyword,), value
        elif keyword in _LISTS and isinstance(value, list):
            for index, item in enumerate(value):
                yield (keyword, index), item
        elif keyword in _MAPS and isinstance(value, dict):
            for name, item in value.items():
                yield (keyword, name), item


def resolve(root: Schema, reference: str) -> Any:
    """What a local reference (`#/$defs/x`) points at. Raises KeyError if it points at nothing."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        raise KeyError(reference)
    found: Any = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and _INDEX.fullmatch(name) and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            raise KeyError(reference)
    return found


class _Expansion:
    """Counts the subschemas of a schema as if every reference were written out."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._known: dict[int, int] = {}
        self._open: set[int] = set()
        self._patterns = 0

    def count(self, schema: Any, path: Path) -> int:
        if not isinstance(schema, dict):
            return 1
        key = id(schema)
        if key in self._open:
            raise SchemaFault(
                "a `$ref` leads back to where it stands", path, "write the nesting out, as deep as it may go"
            )
        if key not in self._known:
            self._open.add(key)
            self._known[key] = self._sum(schema, path)
            self._open.discard(key)
        if self._known[key] > MAX_EXPANDED:
            raise SchemaFault(f"more than {MAX_EXPANDED} subschemas once every `$ref` is written out", path)
        return self._known[key]

    def _sum(self, schema: Schema, path: Path) -> int:
        for keyword in _REFUSED:
            if keyword in schema:
                raise SchemaFault(
                    f"`{keyword}` is not supported", (*path, keyword), "use `$ref: '#/$defs/…'`"
                )
        if schema.get("$schema", DRAFT).rstrip("#") != DRAFT:
            raise SchemaFault(
                "another `$schema` than draft 2020-12", (*path, "$schema"), "leave `$schema` out"
            )
        self._patterns += ("pattern" in schema) + len(schema.get("patternProperties", ()))
        if self._patterns > MAX_PATTERNS:
            raise SchemaFault(f"more than {MAX_PATTERNS} patterns", path)
        total = 1
        for inner, child in subschemas(schema):
            cost = self.count(child, path + inner)
            total += 0 if inner[0] in ("$defs", "definitions") else cost
        if "$ref" in schema:
            try:
                target = resolve(self._root, schema["$ref"])
            except KeyError:
                raise SchemaFault(
                    f"`$ref: {schema['$ref'][:80]}` leads nowhere in this schema", (*path, "$ref"),
                    "only references into the same schema are followed: `#/$defs/…`",
                ) from None  # fmt: skip
            total += self.count(target, (*path, "$ref"))
        return total


def _unknown_keywords(schema: Any, path: Path) -> list[SchemaFault]:
    if not isinstance(schema, dict):
        return []
    faults = [
        SchemaFault(
            f"unknown keyword `{str(keyword)[:60]}`", (*path, keyword), _keyword_hint(schema, keyword)
        )
        for keyword in schema
        if keyword not in _KEYWORDS and not str(keyword).startswith("x-")
    ]
    for inner, child in subschemas(schema):
        faults += _unknown_keywords(child, path + inner)
    return faults


def _keyword_hint(schema: Schema, keyword: str) -> str:
    if isinstance(schema[keyword], dict) and "type" in schema[keyword]:
        return "put the names of fields under `properties`"
    import difflib

    near = difflib.get_close_matches(keyword, _KEYWORDS, n=1)
    return f"did you mean `{near[0]}`?" if near else "a keyword of your own begins with `x-`"


@cache
def _meta_schema() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({"$ref": DRAFT}, offline=True)


def _meta_message(error: Any) -> str:
    if error.kind.name == "anyOf" and error.instance_path[-1:] == ["type"]:
        return "there is no such type: there are string, number, integer, boolean, array, object and null"
    return _first_line(error.message)


def _first_line(message: str) -> str:
    return message.split("\n", 1)[0][:300]
