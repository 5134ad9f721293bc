"""What all cases of a definition share: its plan and those of its children, and what the worker would say of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine.core.contracts import Json, Pin, RunStart
from engine.core.plan import Plan
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.json_schemas import compile_schema
from engine.testing.addresses import Tasks, path_of
from engine.testing.cases import Case
from engine.testing.people import rfc3339

RUN_ID: Final = "test-run"
COMMIT: Final = "0" * 40
"""What `run.id` and `run.commit_sha` are in a test."""
CALLBACK: Final = {"base": "https://pinflow.example.test", "key": "test"}


class Stage:
    """A definition and the ones that it may start (`children`, by name). Knows nothing of any case."""

    def __init__(
        self, compiled: dict[str, Any], types: ActivityTypes, children: Mapping[str, dict[str, Any]]
    ) -> None:
        self._types = types
        self._compiled = {**children, compiled["name"]: compiled}
        self._name: str = compiled["name"]
        self._plans: dict[str, Plan] = {}
        self._validators: dict[str, Any] = {}
        self._tasks = Tasks(compiled, self._compiled.get)
        called = {call["workflow"] for each in self._compiled.values() for call in each.get("calls") or ()}
        self._closure = {_key(name): self._pinned(name) for name in sorted({*self._compiled, *called})}

    def plan(self, workflow: str) -> Plan:
        """The index of a definition."""
        if workflow not in self._plans:
            self._plans[workflow] = Plan(self._compiled[workflow])
        return self._plans[workflow]

    def has(self, workflow: str) -> bool:
        """Whether the definition is there; one that is not can only be answered whole."""
        return workflow in self._compiled

    def start(self, case: Case) -> RunStart:
        """How a case's run begins."""
        calls = self._calls(self._name)
        pin = Pin(
            self._name, "test", COMMIT, COMMIT, "", "", calls=calls, closure=self._closure if calls else {}
        )
        return RunStart(
            RUN_ID,
            pin,
            case.inputs,
            case.started_by,
            rfc3339(case.started_at),
            trigger=case.trigger,
            targets=case.targets,
            callback=CALLBACK,
        )

    def config_fault(self, activity_type: str, config: Json) -> str:
        """What the worker would say of a resolved config, "" if it fits."""
        if activity_type not in self._validators:
            info = self._types.get(activity_type)
            self._validators[activity_type] = compile_schema(info.config_schema) if info else None
        return _fault(self._validators[activity_type], config, "config")

    def inputs_fault(self, workflow: str, inputs: Json) -> str:
        """What a child would say of its inputs, "" if they fit."""
        schema = self._compiled[workflow]["inputs"] or {"type": "object", "additionalProperties": False}
        return _fault(compile_schema(schema), inputs, "inputs")

    def condition_of(self, address: str) -> bool:
        """Whether the task has a `when`."""
        return (self._tasks.find(path_of(address)) or {}).get("when") is not None

    def _pinned(self, workflow: str) -> dict[str, Json]:
        names = ("digest", "compiled_digest", "bundle_digest")
        pinned: dict[str, Json] = dict.fromkeys(names, "")
        return pinned | {
            "workflow": workflow,
            "source": "test",
            "commit_sha": COMMIT,
            "revision_sha": COMMIT,
            "dsl": "1",
            "size": 0,
            "calls": self._calls(workflow),
        }

    def _calls(self, workflow: str) -> dict[str, str]:
        return {
            f"{call['workflow']}@{call['ref']}": _key(call["workflow"])
            for call in self._compiled.get(workflow, {}).get("calls") or ()
        }


def _key(workflow: str) -> str:
    return f"test/{workflow}@{COMMIT}"


def _fault(validator: Any, value: Json, what: str) -> str:
    if validator is None or validator.is_valid(value):
        return ""
    error = next(iter(validator.iter_errors(value)))
    where = ".".join([what, *map(str, error.instance_path)])
    return f"{where}: " + str(error.message).split("\n", 1)[0][:300]
