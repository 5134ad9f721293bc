"""Generates what others read of the language: JSON Schema, activity types' schemas, reference pages.

`python -m engine.dsl.export` writes them all, `--check` only says which are out of date.  This is the one
module of this room that imports Pydantic, and nothing that checks definitions imports it.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from engine.dsl import words
from engine.dsl.activity_types import GROUP, ActivityTypeInfo, from_json
from engine.dsl.opening import opened, tidied
from engine.dsl.reference import activity_types_page, language_page
from engine.dsl.schema import WorkflowDefinition

ROOT = Path(__file__).parents[2]
SCHEMA_ID = "https://pinflow.dev/schemas/workflow-1.schema.json"
EXAMPLES = "docs/reference/examples"
"""Definitions that the reference page shows."""
_BUILTIN_MODULES = "engine.activities."


class _IfThen(GenerateJsonSchema):
    """Tagged unions as `if … then` instead of `oneOf`, so that every validator names the exact fault."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        branches = {str(tag): self.generate_inner(choice) for tag, choice in schema["choices"].items()}
        # Where the type is worked out rather than read, a missing one means the first.
        default = next(iter(branches)) if callable(schema["discriminator"]) else None
        return {
            "type": "object",
            "properties": {"type": {"enum": list(branches), **({"default": default} if default else {})}},
            **({} if default else {"required": ["type"]}),
            "allOf": [
                {"if": self._is_tag(tag, is_default=tag == default), "then": branch}
                for tag, branch in branches.items()
            ],
        }

    @staticmethod
    def _is_tag(tag: str, *, is_default: bool) -> dict[str, Any]:
        test: dict[str, Any] = {"type": "object", "properties": {"type": {"const": tag}}}
        return test if is_default else {**test, "required": ["type"]}


def builtin_infos() -> list[dict[str, Any]]:
    """The built-in activity types as JSON, in order of name."""
    points = {p.name: p for p in entry_points(group=GROUP) if p.value.startswith(_BUILTIN_MODULES)}
    return [points[name].load().info() for name in sorted(points)]


def workflow_schema(types: list[ActivityTypeInfo]) -> dict[str, Any]:
    """The JSON Schema of a definition, with the configs of the built-in activity types in place."""
    schema: dict[str, Any] = tidied(
        WorkflowDefinition.model_json_schema(schema_generator=_IfThen, mode="validation")
    )
    definitions = schema["$defs"]
    branches = [
        {
            "if": {"properties": {"activity_type": {"const": info.name}}, "required": ["activity_type"]},
            "then": _config_branch(info, definitions),
        }
        for info in types
    ]
    for holder in (definitions["ActivityTask"], definitions["Compensate"]):
        holder["properties"]["activity_type"] |= {
            "pattern": words.ACTIVITY_TYPE_PATTERN,
            "examples": [info.name for info in types],
        }
        holder["allOf"] = branches
    _describe_twice(schema)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Pinflow workflow",
    }
    return {**head, **{key: value for key, value in schema.items() if key != "title"}}


def _config_branch(info: ActivityTypeInfo, definitions: dict[str, Any]) -> dict[str, Any]:
    """`config` of one activity type; its own definitions move to the root under the type's name."""
    config = opened(info.config_schema)
    inner = config.pop("$defs", {})
    prefix = "".join(part.capitalize() for part in info.name.split("_"))
    text = json.dumps({"config": config, "defs": inner})
    for name in inner:
        text = text.replace(f'"#/$defs/{name}"', f'"#/$defs/{prefix}{name}"')
    moved = json.loads(text)
    definitions.update({prefix + name: value for name, value in moved["defs"].items()})
    definitions[prefix + "Config"] = moved["config"]
    branch: dict[str, Any] = {"properties": {"config": {"$ref": f"#/$defs/{prefix}Config"}}}
    if moved["config"].get("required"):
        branch["required"] = ["config"]
    return branch


def _describe_twice(schema: Any) -> None:
    """Editors render `markdownDescription`; others read `description`."""
    if isinstance(schema, list):
        for item in schema:
            _describe_twice(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("description"), str):
            schema["description"] = " ".join(schema["description"].split())
            schema["markdownDescription"] = schema["description"]
        for key, value in schema.items():
            if key not in ("default", "examples", "enum", "const"):
                _describe_twice(value)


def artifacts() -> dict[str, str]:
    """Every generated file: path from the root of the project, and text."""
    infos = builtin_infos()
    types = [from_json(info) for info in infos]
    schema = workflow_schema(types)
    examples = {file.stem: file.read_text("utf-8") for file in sorted((ROOT / EXAMPLES).glob("*.yaml"))}
    text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return {
        "schemas/workflow.schema.json": text,
        "engine/dsl/workflow.schema.json": text,
        "engine/dsl/builtin_activity_types.json": json.dumps(infos, indent=2, ensure_ascii=False) + "\n",
        "docs/reference/language.md": language_page(schema, examples),
        "docs/reference/activity-types.md": activity_types_page(types),
    }


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` name those that differ. Exit code 1 if any does."""
    stale = 0
    for path, text in artifacts().items():
        target = ROOT / path
        if target.exists() and target.read_text("utf-8") == text:
            continue
        if "--check" in arguments:
            stale = 1
            sys.stdout.write(f"{path} is out of date: run `make schemas`\n")
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
            sys.stdout.write(f"wrote {path}\n")
    return stale


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
