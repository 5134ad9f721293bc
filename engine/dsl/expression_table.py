"""The expression table of one definition: each `${{ … }}` compiled once, and refused where it may not stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from engine.dsl import codes, words
from engine.dsl.activity_types import ActivityTypeInfo
from engine.dsl.environment import Environment
from engine.dsl.loader import Path
from engine.dsl.naming import Naming, Place
from engine.dsl.outline import Outline, OutlineTask

if TYPE_CHECKING:
    from engine.dsl.templates import Place as Spot
    from engine.dsl.templates import TemplateSyntaxError

V: TypeAlias = Any
Report: TypeAlias = Callable[..., None]
"""`report(code, message, path, hint=…, offset=…)`; `offset` is a character of the text at `path`."""


class TooManyExpressions(Exception):
    """The definition is refused, and the rest of it is not looked at."""


class ExpressionTable:
    """Compiles values; `rows` grows. Faults go to `report`."""

    def __init__(self, definition: Mapping[str, Any], outline: Outline, report: Report) -> None:
        self._definition = definition
        self._outline = outline
        self._report = report
        self.rows: list[dict[str, Any]] = []
        self._known: dict[tuple[str, Any], tuple[int, Any]] = {}
        self._checked: dict[int, Any] = {}
        self._rows: dict[tuple[str, str], int] = {}
        self._naming: Naming | None = None

    @property
    def naming(self) -> Naming:
        """The names of the definition. Made at first use: many definitions have no expression at all."""
        if self._naming is None:
            self._naming = Naming(self._definition, self._outline)
        return self._naming

    def value(self, value: Any, path: Path, place: Place, info: ActivityTypeInfo | None = None) -> V:
        """`value` with its expressions replaced by their places in the table."""
        if value is None or isinstance(value, bool) or (isinstance(value, str) and "${{" not in value):
            return value
        from engine.dsl.templates import compile_value

        def add(src: str, spot: Spot) -> int:
            return self.expression(src, spot.path, spot.offset, place, info)

        def fault(error: TemplateSyntaxError, at: Path) -> None:
            self._report(codes.EXPRESSION, error.message, at, hint=error.hint, offset=error.offset)

        return compile_value(value, add, path, fault)

    def condition(
        self, holder: Any, key: str, path: Path, place: Place, info: ActivityTypeInfo | None = None
    ) -> V:
        """The value of `key`, which must be able to be true or false."""
        value = holder.get(key) if isinstance(holder, dict) else None
        compiled = self.value(value, (*path, key), place, info)
        if isinstance(compiled, dict) and "$expr" in compiled:
            checked = self.checked(compiled)
            if checked is not None and not checked.may_be_bool:
                self._report(
                    codes.NOT_BOOLEAN, f"`{key}` must be true or false, and this is {_kind(checked)}", (*path, key),
                    hint="compare it with something",
                )  # fmt: skip
        elif compiled is not None and not isinstance(compiled, bool):
            self._report(
                codes.NOT_BOOLEAN, f"`{key}` must be one expression, with no text around it", (*path, key),
                hint='write the whole condition inside: "${{ a && b }}"',
            )  # fmt: skip
        return compiled

    def checked(self, compiled: V) -> Any:
        """What is known of a value that is one expression; None if it is not, or is wrong."""
        return (
            self._checked.get(compiled["$expr"])
            if isinstance(compiled, dict) and "$expr" in compiled
            else None
        )

    def statuses_in(self, when: V) -> frozenset[str]:
        """Tasks whose status the task's own `when` looks at: what stands behind it may take them as looked at."""
        checked = self.checked(when)
        refs = checked.refs if checked else ()
        return frozenset(
            ref.split(".")[1] for ref in refs if ref.startswith("tasks.") and ref.endswith(".status")
        )

    def expression(
        self, src: str, path: Path, offset: int, place: Place, info: ActivityTypeInfo | None
    ) -> int:
        """The row of one expression, -1 if it is wrong."""
        key, environment = self.naming.beside(place.scope, info)
        known = self._known.get((src, key))
        if known is None:
            known = self._known[src, key] = self._compile(src, environment, path, offset, place)
        row, checked = known
        if checked is not None:  # what is wrong was told where it stood first
            self._check_place(checked, path, offset, place)
        return row

    def _compile(
        self, src: str, environment: Environment, path: Path, offset: int, place: Place
    ) -> tuple[int, Any]:
        from engine.dsl.cel_values import ExpressionSyntaxError
        from engine.dsl.expressions import compile_expression

        if len(self._known) >= words.MAX_EXPRESSIONS:
            self._report(
                codes.BOUNDS, f"more than {words.MAX_EXPRESSIONS} different expressions", path,
                hint="split the workflow", offset=offset,
            )  # fmt: skip
            raise TooManyExpressions
        try:
            checked = compile_expression(src, environment)
        except ExpressionSyntaxError as error:
            self._report(codes.EXPRESSION, error.message, path, hint=error.hint, offset=offset + error.offset)
            return -1, None
        return self._row(checked, place), checked

    def _row(self, checked: Any, place: Place) -> int:
        # Bodies of tasks have environments of their own, and often say the same as what stands around them.
        twin = self._rows.setdefault((checked.src, checked.code), len(self.rows))
        row = len(self.rows) if place.scope is None else twin
        if row == len(self.rows):
            self.rows.append(checked.entry())
        self._checked[row] = checked
        return row

    # --- who may read what

    def _check_place(self, checked: Any, path: Path, offset: int, place: Place) -> None:
        for ref in checked.refs:
            root, _, rest = ref.partition(".")
            at = offset + max(checked.src.find(ref), 0)
            if root == "tasks":
                self._check_task(rest, ref, checked.src, path, offset, place)
            elif root == "secrets":
                self._report(
                    codes.SECRET, "a secret cannot be read here", path, offset=at,
                    hint="a secret stands in the `config` of an activity, as `${{ secrets.NAME }}` alone or inside of text",
                )  # fmt: skip
            elif root not in place.roots and ref not in place.names and not _inside(ref, place.names):
                self._report(
                    codes.NOT_IN_SCOPE, f"`{ref}` cannot be read here", path,
                    hint=place.why or _where(ref), offset=at,
                )  # fmt: skip
        if "tasks" in place.roots:
            for task in sorted(checked.unguarded):
                if task in place.visible and self._may_be_missing(task, place):
                    self._report(
                        codes.MAY_BE_MISSING, f"task `{task}` may not have completed, and then has no such output", path,
                        hint=f"read it with `.?`, ask `has(…)` or `tasks.{task}.status`, or give it `default_outputs`",
                        offset=offset + max(checked.src.find(f"tasks.{task}"), 0),
                    )  # fmt: skip

    def _check_task(self, rest: str, ref: str, src: str, path: Path, offset: int, place: Place) -> None:
        task, _, what = rest.partition(".")
        at = offset + max(src.find(f"tasks.{task}"), 0)
        if "tasks" not in place.roots:
            self._report(codes.NOT_IN_SCOPE, f"`{ref}` cannot be read here", path, hint=place.why, offset=at)
        elif what == "callback_url":
            found = self._find(task, place)
            if found is not None and path[: len(found.path)] == found.path:
                self._report(
                    codes.NOT_UPSTREAM, "a signal's own address cannot be read by itself", path, offset=at,
                    hint="another task hands it out",
                )  # fmt: skip
        elif task not in place.visible:
            self._report(
                codes.NOT_UPSTREAM, f"task `{task}` is not awaited here", path,
                hint=self._how_to_await(task, path, place), offset=at,
            )  # fmt: skip

    def _how_to_await(self, task: str, path: Path, place: Place) -> str:
        found = self._find(task, place)
        if found is None:
            return ""
        if path[: len(found.path)] == found.path:
            if found.body is not None and path[len(found.path)] == "tasks":
                return f"this stands inside of `{task}`, which ends later"
            return "a task cannot read its own outcome"
        if found.path[0] != path[0]:
            return f"it stands in `{found.path[0]}`, which starts later"
        around = (
            next((s.owner for s in place.scope.around() if s.owner and s.owner.scope is found.scope), None)
            if place.scope
            else None
        )
        if around is not None:
            return f"add `{task}` to `depends_on` of `{around.id}`"
        return f"add `{task}` to `depends_on`"

    def _may_be_missing(self, task: str, place: Place) -> bool:
        found = self._find(task, place)
        if found is not None and found.data.get("default_outputs") is not None:
            return False
        return task not in place.certain or (found is not None and gives_nothing_certain(found))

    def _find(self, task: str, place: Place) -> OutlineTask | None:
        return (place.scope.find(task) if place.scope else None) or self._outline.by_id.get(task)


def gives_nothing_certain(task: OutlineTask) -> bool:
    """Whether a group hands on the outputs of a last task that may not have completed."""
    if task.kind != "group" or task.body is None or task.data.get("outputs") is not None:
        return False
    last = task.body.last()
    return len(last) == 1 and (
        (last[0].id not in task.body.certain_at_end() and last[0].data.get("default_outputs") is None)
        or gives_nothing_certain(last[0])
    )


def _kind(checked: Any) -> str:
    return "a number" if checked.result_type == "number" else str(checked.result_type)


def _inside(ref: str, names: frozenset[str]) -> bool:
    return any(ref.startswith(name + ".") for name in names)


def _where(ref: str) -> str:
    root = ref.partition(".")[0]
    return {
        "result": "`result` is known in `success_when` and `outputs` of an activity, a child or a signal",
        "attempt": "`attempt` is known in `success_when` and `retry.when`",
        "error": "`error` is known in `retry.when`; elsewhere there is `tasks.<id>.error`",
        "run": f"`{ref}` is known in `on_failure` and `finally`",
        "task": f"`{ref}` is known inside of a task",
    }.get(root, "")
