"""The same graphs as Pinflow definitions."""

from __future__ import annotations

from collections.abc import Sequence

import yaml


def _task(name: str, depends_on: Sequence[str], execution: str) -> dict[str, object]:
    task: dict[str, object] = {
        "id": name,
        "activity_type": "bench_noop",
        "config": {"task": name},
        "execution": execution,
        "timeout": "1s",
    }
    return task | ({"depends_on": list(depends_on)} if depends_on else {})


def chain(size: int, execution: str) -> list[dict[str, object]]:
    """`size` tasks, one after another."""
    return [_task(f"t{n}", [f"t{n - 1}"] if n else [], execution) for n in range(size)]


def fan(size: int, execution: str) -> list[dict[str, object]]:
    """`size` tasks at once, then one that joins them."""
    names = [f"t{n}" for n in range(size)]
    return [_task(name, [], execution) for name in names] + [_task("join", names, execution)]


def diamond(_size: int, execution: str) -> list[dict[str, object]]:
    """One task, then two at once, then one."""
    return [
        _task("a", [], execution),
        _task("b", ["a"], execution),
        _task("c", ["a"], execution),
        _task("d", ["b", "c"], execution),
    ]


def layers(size: int, execution: str) -> list[dict[str, object]]:
    """`size` tasks in layers of fifty, each behind three of the layer before."""
    return [
        _task(f"t{n}", [f"t{n - 50 - k}" for k in (0, 1, 2) if n - 50 - k >= 0 and n >= 50], execution)
        for n in range(size)
    ]


SHAPES = {"chain": chain, "fan": fan, "diamond": diamond}


def definition(name: str, tasks: list[dict[str, object]], description: str = "") -> str:
    """A whole definition as YAML."""
    body = {"name": name, "version": "1", "description": description, "tasks": tasks}
    return yaml.safe_dump(body, sort_keys=False)


def typical(name: str, note: str = "") -> str:
    """A definition of about 40 lines, as found in a repository of thousands."""
    tasks: list[dict[str, object]] = [
        {
            "id": f"step{n}",
            "activity_type": "http_request",
            "depends_on": [f"step{n - 1}"] if n else [],
            "config": {
                "method": "POST",
                "url": "${{ env.api }}/work",
                "json": {"item": "${{ inputs.item }}"},
            },
            "retry": {"max_attempts": 3, "initial_interval": "1s"},
            "timeout": "30s",
        }
        for n in range(3)
    ]
    return yaml.safe_dump(
        {
            "name": name,
            "version": "1",
            "description": f"Calls three services one after another. {note}",
            "inputs": {"type": "object", "properties": {"item": {"type": "string", "default": "x"}}},
            "env": {"api": "https://api.example.test"},
            "tasks": tasks,
            "outputs": {"last": "${{ tasks.step2.outputs.status }}"},
        },
        sort_keys=False,
    )
