"""The inputs that a definition declares, and those that somebody gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.dsl import codes, json_schemas
from engine.dsl.faults import Faults
from engine.dsl.loader import Path, shown


def check_inputs(inputs: Any, faults: Faults) -> bool:
    """A usable JSON Schema of an object, whose defaults fit; whether it is one."""
    if not isinstance(inputs, dict):
        return inputs is None
    if inputs.get("type", "object") != "object":
        faults.report(
            codes.JSON_SCHEMA, "inputs are an object", ("inputs", "type"), hint="write `type: object`"
        )
        return False
    faults.no_expressions(inputs, ("inputs",))
    if not faults.json_schema(inputs, ("inputs",)):
        return False
    properties = inputs.get("properties", {})
    faults.names("inputs", properties, ("inputs", "properties"))
    for name in inputs.get("required", []):
        if name not in properties:
            faults.report(
                codes.JSON_SCHEMA, f"input `{shown(name)}` is required and not declared",
                ("inputs", "required", inputs["required"].index(name)), hint="add it to `properties`",
            )  # fmt: skip
    defaults = {n: p["default"] for n, p in properties.items() if isinstance(p, dict) and "default" in p}
    if defaults:
        _defaults(inputs, defaults, faults)
    return True


def _defaults(inputs: dict[str, Any], defaults: dict[str, Any], faults: Faults) -> None:
    for error in json_schemas.compile_schema(_each(inputs)).iter_errors(defaults):
        name, *inside = error.instance_path
        path = ("inputs", "properties", name, "default", *inside)
        faults.report(codes.JSON_SCHEMA, f"the default does not fit: {shown(error.message, 200)}", path)


def _each(inputs: Mapping[str, Any]) -> json_schemas.Schema:
    """The schema without the words that judge the inputs as a whole, which some of them alone need not satisfy."""
    return {key: inputs[key] for key in ("$defs", "definitions", "properties") if key in inputs}


class Misfit:
    """Why inputs cannot fit: `path` is where in them, empty for the whole; the key there if `key`, else the value."""

    # No dataclass: its making costs more than all else in this module, at every start of a check.
    __slots__ = ("hint", "key", "message", "path")

    def __init__(self, message: str, path: Path = (), hint: str = "", *, key: bool = False) -> None:
        self.message = message
        self.path = path
        self.hint = hint
        self.key = key


def misfits(inputs: Any, given: Mapping[str, Any]) -> Iterator[Misfit]:
    """How `given`, whose values may hold expressions, cannot fit the declared `inputs`.

    What expressions will give is not known and not judged, and neither are the words that judge the inputs together.
    """
    schema = inputs if isinstance(inputs, dict) else {"properties": {}}
    properties = schema.get("properties", {})
    is_open = schema.get("additionalProperties", False) is not False or "patternProperties" in schema
    for name in given:
        if name not in properties and not is_open:
            hint = _closest(name, list(properties))
            yield Misfit(f"there is no input `{shown(name)}`", (name,), hint, key=True)
    for name in schema.get("required", []):
        has_default = isinstance(properties.get(name), dict) and "default" in properties[name]
        if name not in given and not has_default:
            yield Misfit(f"the input `{shown(name)}` is required")
    constants = {
        name: value for name, value in given.items() if name in properties and not _holds_expression(value)
    }
    if constants:
        for error in json_schemas.compile_schema(_each(schema)).iter_errors(constants):
            yield Misfit(f"does not fit the input: {shown(error.message, 200)}", tuple(error.instance_path))


def _closest(name: str, known: list[str]) -> str:
    from engine.dsl.structure import closest

    listed = ", ".join(f"`{each}`" for each in known[:8])
    return closest(name, known) or (f"there are {listed}" if known else "it takes no inputs")


def _holds_expression(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_expression(item) for item in value.values())
    if isinstance(value, list):
        return any(_holds_expression(item) for item in value)
    return isinstance(value, str) and "${{" in value
