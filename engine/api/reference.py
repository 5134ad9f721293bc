"""Writes docs/reference/http.md from the OpenAPI document: `python -m engine.api.reference`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

from engine.api.app import create_app
from engine.api.problems import TITLES, TYPES
from engine.services.workflow_service import WorkflowService

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "http.md"
_METHODS: Final = ("get", "post", "put", "patch", "delete")

_HEAD = """\
# HTTP

Generated from the program by `make schemas`; a test holds it. A running API shows the same at `/docs`, and as OpenAPI
at `/openapi.json`.

Every call carries `Authorization: Bearer TOKEN`, but for `/healthz`, `/readyz`, `/callbacks/...` (whose URL is the key)
and `/hooks/...` (which are signed). Roles: `viewer` reads, `operator` starts and steers, `approver` decides, `admin` does all of it and makes tokens. Every error is `application/problem+json`
(RFC 9457), with what happened, where, and what helps; 503 carries `Retry-After`. Lists have `items` and `next_cursor`:
give it as `cursor` for the next page.

```console
$ curl -s -X POST "$PINFLOW_URL/executions/workflows/hello/execute" \\
    -H "Authorization: Bearer $PINFLOW_TOKEN" -H "Content-Type: application/json" -H "Idempotency-Key: monday-1" \\
    -d '{"inputs": {"name": "Ada"}}'
```
"""


def page() -> str:
    """The whole page."""
    # The document is made from the routes alone; no service is asked.
    document = create_app(cast(WorkflowService, None)).openapi()
    schemas = document["components"]["schemas"]
    parts = [_HEAD, _problems()]
    for path, operations in sorted(document["paths"].items()):
        parts += [_operation(m, path, operations[m], schemas) for m in _METHODS if m in operations]
    return "".join(parts)


def _problems() -> str:
    rows = [f"| {status} | `{TYPES}{word}` | {title} |" for status, (word, title) in sorted(TITLES.items())]
    return "\n".join(["", "| status | `type` | title |", "|---|---|---|", *rows, ""])


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    lines = [f"\n## {method.upper()} {path}\n", operation.get("description", "")]
    rows = [
        (each["name"], each["in"], _type(each["schema"]), each.get("description", ""))
        for each in operation.get("parameters", [])
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    rows += _fields(body, schemas, "body") if body else []
    if rows:
        lines.append("\n| name | in | type | meaning |\n|---|---|---|---|")
        lines += [
            f"| `{name}` | {place} | {kind} | {_cell(meaning)} |" for name, place, kind, meaning in rows
        ]
    for status, response in sorted(operation["responses"].items()):
        content = response.get("content", {}).get("application/json", {})
        if status.startswith("2") and content.get("schema"):
            answer = _fields(content["schema"], schemas, status)
            lines.append(f"\nAnswers {status}" + (":" if answer else "."))
            if answer:
                lines.append("\n| field | type | meaning |\n|---|---|---|")
                lines += [f"| `{name}` | {kind} | {_cell(meaning)} |" for name, _, kind, meaning in answer]
    return "\n".join(lines) + "\n"


def _fields(schema: dict[str, Any], schemas: dict[str, Any], place: str) -> list[tuple[str, str, str, str]]:
    """The fields of an object, or of the items of a page."""
    found = _resolved(schema, schemas)
    items = found.get("properties", {}).get("items", {}).get("items")
    if items is not None and "next_cursor" in found["properties"]:
        inner = _resolved(items, schemas).get("properties", {})
        return [(f"items[].{n}", place, _type(s), s.get("description", "")) for n, s in inner.items()]
    return [(n, place, _type(s), s.get("description", "")) for n, s in found.get("properties", {}).items()]


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    options = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
    if options:
        return _resolved(options[0], schemas)
    name = schema.get("$ref", "").rpartition("/")[2]
    return cast(dict[str, Any], schemas[name]) if name else schema


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "any")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
