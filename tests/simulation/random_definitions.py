"""Random definitions: any shape that the language allows, small enough to be read when it fails."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.support.definitions import definition, group, loop, many, retry, task, undo

SIGNAL = "go"
CORRELATION = "order-7"
GROUPS = ("db", "gpu")
LEAVES = (
    ["activity"] * 14 + ["approval"] * 2 + ["wait"] * 2 + ["set"] * 2 + ["signal", "workflow", "workflow"]
)
PLAIN = ["activity"] * 7 + ["approval", "wait", "set"]
COMPOSITES = ["group", "group", "map", "map", "map", "loop"]


def random_definition(chance: Random) -> dict[str, Any]:
    """One that needs nothing but activities, people and a clock."""
    return Author(chance, plain=True).write()


class Author:
    """Writes one definition. `sloppy` authors write expressions that fail; `plain` ones know only the simplest tasks."""

    def __init__(self, chance: Random, *, plain: bool = False) -> None:
        self._chance = chance
        self._plain = plain
        self._sloppy = chance.random() < 0.3
        self._saga = not plain and chance.random() < 0.4
        self._nesting = 0 if plain else chance.choice([0, 1, 1, 2])
        self._count = 0

    def write(self) -> dict[str, Any]:
        """The whole of it, compiled."""
        chance = self._chance
        size = chance.choice([1, 2, 3, 5, 8, 13] if self._nesting else [1, 2, 3, 5, 8, 13, 30])
        tasks = self._tasks(size, 0, [])
        fields: dict[str, Any] = {}
        if not self._plain and chance.random() < 0.1:
            fields["concurrency"] = {"group": chance.choice(GROUPS), "limit": 1, "on_conflict": "queue"}
        return definition(
            *tasks,
            on_failure=self._tasks(chance.randint(0, 3), 2, []),
            finally_=self._tasks(chance.randint(0, 3), 2, []),
            max_concurrency=chance.choice([None, None, None, 1, 2, 5]),
            on_task_failure=chance.choice(["finish", "drain", "cancel"]),
            timeout=chance.choice([None, None, 50.0]),
            cleanup_timeout=chance.choice([None, 20.0]),
            outputs=chance.choice(
                [
                    None,
                    {"x": f"${{{{ tasks.{tasks[0]['id']}.status }}}}"},
                    "${{ 1 / 0 }}" if self._sloppy else {"x": 1},
                ]
            ),
            title="${{ run.id }}",
            **fields,
        )

    def _tasks(self, size: int, depth: int, names: list[str]) -> list[dict[str, Any]]:
        """A block; `names` are those that its expressions may read besides its tasks."""
        density = self._chance.random()
        made: list[dict[str, Any]] = []
        for index in range(size):
            before = [
                made[other]["id"]
                for other in range(index)
                if self._chance.random() < density / (1 + index / 4)
            ]
            made.append(self._task(before, depth, names))
        return made

    def _task(self, before: list[str], depth: int, names: list[str]) -> dict[str, Any]:
        chance = self._chance
        self._count += 1
        name = f"t{self._count}"
        fields: dict[str, Any] = {
            "run_on": chance.choice(["success"] * 5 + ["any_success", "failure", "always"]),
            "when": chance.choice([None] * 10 + ["${{ true }}", "${{ false }}"]),
            "continue_on_failure": chance.random() < 0.2,
            "default_outputs": chance.choice([None, {"n": 0}]),
        }
        if self._sloppy:
            wrong = ["${{ 1 / 0 == 1 }}", "${{ 'text' }}"]
            fields["when"] = chance.choice([fields["when"]] * 8 + wrong)
        if before:
            seen = chance.choice(before)
            fields["when"] = chance.choice(
                [fields["when"], fields["when"], f"${{{{ tasks.{seen}.status != 'FAILED' }}}}"]
            )
            fields["config"] = {"seen": f"${{{{ tasks.{seen}.outputs }}}}"}
        elif names:
            fields["config"] = {"seen": f"${{{{ {chance.choice(names)} }}}}"}
        if depth < self._nesting and chance.random() < 0.45:
            composite: dict[str, Any] = getattr(self, f"_{chance.choice(COMPOSITES)}")(
                name, before, depth, names, fields
            )
            return composite
        if depth < 2 and not self._plain and chance.random() < 0.02:
            status = chance.choice(["COMPLETED", "FAILED"])
            return task(name, *before, type="end", status=status, outputs={"n": 1}, **_plain(fields))
        return self._leaf(name, before, names, fields)

    def _leaf(self, name: str, before: list[str], names: list[str], fields: dict[str, Any]) -> dict[str, Any]:
        chance = self._chance
        match chance.choice(PLAIN if self._plain else LEAVES):
            case "approval":
                on_reject = chance.choice(["fail", "continue"])
                fields |= {
                    "activity_type": "human_approval",
                    "config": {"message": "?", "on_reject": on_reject},
                }
            case "wait":
                duration = chance.choice([5.0, "${{ '1m' }}", "${{ -1 }}" if self._sloppy else 0.0])
                fields = _plain(fields) | {"type": "wait", "duration": duration}
            case "set":
                values = chance.choice([{"n": 1}, {"n": "${{ 1 / 0 }}" if self._sloppy else "${{ 1 + 1 }}"}])
                fields = _plain(fields) | {"type": "set", "values": values}
            case "signal":
                fields = _plain(fields) | {
                    "type": "signal",
                    "signal": SIGNAL,
                    "timeout": chance.choice([None, 10.0]),
                    "correlation": chance.choice(
                        [None, None, CORRELATION, "${{ 1 }}" if self._sloppy else None]
                    ),
                }
            case "workflow":
                fields = _plain(fields) | {
                    "type": "workflow",
                    "workflow": "child",
                    "ref": "same",
                    "timeout": chance.choice([None, None, 10.0]),
                    "retry": chance.choice([None, retry(2, initial_interval=3.0)]),
                }
                self._undoable(name, names, fields)
            case _:
                wrong = {"n": "${{ result.missing }}"} if self._sloppy else None
                fields["outputs"] = chance.choice([None] * 5 + ["${{ result.n }}", wrong])
                if not self._plain and chance.random() < 0.08:
                    fields["concurrency"] = {"group": chance.choice(GROUPS), "limit": 1}
                self._undoable(name, names, fields)
        return task(name, *before, **fields)

    def _undoable(self, name: str, names: list[str], fields: dict[str, Any]) -> None:
        chance = self._chance
        if self._saga and chance.random() < 0.5:
            read = chance.choice([f"tasks.{name}.outputs", *names, "run.status"])
            config = {"was": f"${{{{ {read} }}}}"}
            if self._sloppy and chance.random() < 0.2:
                config = {"was": "${{ 1 / 0 }}"}
            fields["compensate"] = undo(
                config=config, on=chance.choice(["completed", "completed", "started"])
            )

    def _group(
        self, name: str, before: list[str], depth: int, names: list[str], fields: dict[str, Any]
    ) -> dict[str, Any]:
        chance = self._chance
        inside = self._tasks(chance.randint(1, 4), depth + 1, names)
        more: dict[str, Any] = {
            "timeout": chance.choice([None, None, None, 15.0]),
            "max_concurrency": chance.choice([None, None, 1, 2]),
        }
        if chance.random() < 0.1:
            more["concurrency"] = {"group": chance.choice(GROUPS), "limit": 1}
        return group(name, *before, tasks=inside, **_plain(fields), **more)

    def _map(
        self, name: str, before: list[str], depth: int, names: list[str], fields: dict[str, Any]
    ) -> dict[str, Any]:
        chance = self._chance
        own = f"i{name}"
        inside = self._tasks(chance.randint(1, 3), depth + 1, [*names, own, f"{own}_index"])
        items: Any = f"${{{{ range({chance.choice([0, 1, 2, 3, 4, 5, 8])}) }}}}"
        if self._sloppy and chance.random() < 0.1:
            items = "${{ 'text' }}"
        return many(
            name,
            *before,
            items=items,
            as_=own,
            tasks=inside,
            weight=chance.choice([1, 2_000]),
            whole=_has_signal(inside),
            timeout=chance.choice([None, None, None, 20.0]),
            max_concurrency=chance.choice([None, None, None, None, 1, 2]),
            tolerated_failures=chance.choice([None, None, {"count": 1}, {"percent": 50}]),
            results=chance.choice([None, None, {"of": f"${{{{ {own} }}}}"}]),
            **_plain(fields),
        )

    def _loop(
        self, name: str, before: list[str], depth: int, names: list[str], fields: dict[str, Any]
    ) -> dict[str, Any]:
        chance = self._chance
        inside = self._tasks(chance.randint(1, 3), depth + 1, [*names, "state", "iteration"])
        rounds = chance.randint(0, 3)
        return loop(
            name,
            *before,
            tasks=inside,
            state={"n": 0},
            next_={"n": "${{ state.n + 1 }}"},
            until=chance.choice([f"${{{{ state.n > {rounds} }}}}", "${{ false }}"]),
            max_iterations=3,
            interval=chance.choice([None, 2.0]),
            timeout=chance.choice([None, None, 20.0]),
            **_plain(fields),
        )


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """What every task may have."""
    return {key: value for key, value in fields.items() if key != "config"}


def _has_signal(tasks: list[dict[str, Any]]) -> bool:
    return any(each["type"] == "signal" or _has_signal(each.get("tasks") or []) for each in tasks)
