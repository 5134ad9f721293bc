"""From CEL's tree to the lowered form: names are resolved, unknown ones refused, reads recorded."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from engine.dsl.cel_added import ADDED
from engine.dsl.cel_functions import FUNCTIONS, METHODS, TYPE_NAMES
from engine.dsl.cel_values import ExpressionSyntaxError
from engine.dsl.environment import Environment, Shape, field_shape, fields, is_open, item_shape, type_of

MAX_NODES = 4096
"""Nodes in one expression: some macros copy their target, so a short text can make a large tree."""

Code: TypeAlias = list[Any]
_Result: TypeAlias = tuple[Code, Shape | None]
_OPTIONAL = ("of", "none", "ofNonZeroValue")


class Lowering:
    """One expression on its way; afterwards `refs`, `checker_names` and `unguarded` say what it reads."""

    def __init__(self, source: str, positions: dict[int, int], environment: Environment) -> None:
        self._source = source
        self._positions = positions
        self._environment = environment
        self._nodes = 0
        self._scope: list[str] = []
        self._growing: list[str] = []
        self._typed: dict[str, str] = {}
        self._tested: set[str] = set()
        self._read: set[str] = set()
        self._guarded: set[str] = set()
        self.refs: dict[str, None] = {}

    @property
    def checker_names(self) -> tuple[tuple[str, str], ...]:
        """The names and types that the type checker must know, sorted."""
        return tuple(sorted((n, t) for n, t in self._typed.items() if n not in self._tested))

    @property
    def unguarded(self) -> frozenset[str]:
        """Ids of tasks whose outputs are read as if they were certain to be there."""
        return frozenset(self._read - self._guarded)

    def lower(self, node: Any) -> Code:
        """The lowered form of `node`; raises ExpressionSyntaxError."""
        return self._lower(node)[0]

    def lower_whole(self, node: Any) -> tuple[Code, Shape | None]:
        """The lowered form of a whole expression, and the shape of its result where that is known."""
        return self._lower(node)

    def lower_path(self, path: list[tuple[str, int]]) -> tuple[Code, Shape | None]:
        """The same of a plain path, given as its words with their offsets."""
        return self._resolve(path)

    def _lower(self, node: Any) -> _Result:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ExpressionSyntaxError("the expression is too large", hint="split it over a `set` task")
        kind = node.alternative()
        if kind == "const_expr":
            return ["const", self._constant(node)], None
        if kind == "ident_expr" or kind == "select_expr":
            return self._name(node)
        if kind == "call_expr":
            return self._call(node)
        if kind == "list_expr":
            made = node.list_expr
            return ["list", [self.lower(e) for e in made.elements], list(made.optional_indices)], None
        if kind == "struct_expr":
            return self._map(node), None
        if kind == "comprehension_expr":
            return self._fold(node.comprehension_expr), None
        raise ExpressionSyntaxError("not an expression", self._at(node))

    def _at(self, node: Any) -> int:
        return self._positions.get(node.id, 0)

    def _constant(self, node: Any) -> Any:
        try:
            value = _constant_of(node.const_expr)
        except ExpressionSyntaxError as error:
            raise ExpressionSyntaxError(error.message, self._at(node), error.hint) from None
        if isinstance(value, float) and value - value != 0:
            raise ExpressionSyntaxError("a number is too large", self._at(node))
        return value

    # --- names --------------------------------------------------------------------------------------------

    def _path(self, node: Any) -> list[tuple[str, int]] | None:
        """`a.b.c` as names with their offsets, or None if this is no plain path of a bound name."""
        parts: list[tuple[str, int]] = []
        while node.alternative() == "select_expr" and not node.select_expr.test_only:
            parts.append((node.select_expr.field, self._field_at(node)))
            node = node.select_expr.operand
        if node.alternative() != "ident_expr":
            return None
        name = node.ident_expr.name.removeprefix(".")
        if name in self._scope:
            return None
        parts.append((name, self._at(node)))
        return parts[::-1]

    def _field_at(self, node: Any) -> int:
        """Where the field's name begins: the tree knows only its dot."""
        at = self._at(node)
        while at < len(self._source) and self._source[at] in ".? \t\n\r`":
            at += 1
        return at

    def _name(self, node: Any) -> _Result:
        if node.alternative() == "select_expr" and node.select_expr.test_only:
            return self._has(node), None
        path = self._path(node)
        if path is not None:
            return self._resolve(path)
        if node.alternative() == "ident_expr":
            return ["var", node.ident_expr.name.removeprefix(".")], None
        code, shape = self._lower(node.select_expr.operand)
        return self._get(code, shape, node.select_expr.field, self._field_at(node))

    def _resolve(self, path: list[tuple[str, int]]) -> _Result:
        """A bound name and the fields read below it."""
        words = [word for word, _ in path]
        if len(words) == 1 and words[0] in self._environment.objects:
            return self._whole(words[0])
        if len(words) == 1 and words[0] in TYPE_NAMES and words[0] not in self._environment.names:
            return ["type", words[0]], None
        known = next(
            (n for n in range(len(words), 0, -1) if ".".join(words[:n]) in self._environment.names), 0
        )
        if known:
            code, shape = self._ref(".".join(words[:known]))
        elif words[0] in self._environment.objects:
            known = 2
            code, shape = self._ref(self._field_of_object(words[0], *path[1]))
        else:
            raise self._unknown(path)
        for field, at in path[known:]:
            code, shape = self._get(code, shape, field, at)
        return code, shape

    def _whole(self, root: str) -> _Result:
        self.refs[root] = None
        self._typed[root] = "map"
        return ["ref", root], self._environment.objects[root]

    def _ref(self, name: str) -> _Result:
        shape = self._environment.names.get(name, "dyn")
        self.refs[name] = None
        self._typed[name] = type_of(shape)
        if name.startswith("tasks.") and name.endswith(".status"):
            self._guarded.add(name.split(".")[1])
        return ["ref", name], shape

    def _field_of_object(self, root: str, field: str, at: int) -> str:
        """The bound name of a field of `inputs` or `env`; raises if it cannot be there."""
        name = f"{root}.{field}"
        schema = self._environment.objects[root]
        if name not in self._environment.names and not is_open(schema):
            hint = _dash_hint(self._source, at, field) or self._environment.why_unknown(name)
            hint = hint or _did_you_mean(field, fields(schema), root + ".")
            raise ExpressionSyntaxError(f"unknown name '{name}'", at, hint)
        return name

    def _unknown(self, path: list[tuple[str, int]]) -> ExpressionSyntaxError:
        """The error of a name that nothing declares, at the word that is wrong."""
        names = [name.split(".") for name in [*self._environment.names, *self._environment.objects]]
        for depth in range(len(path)):
            before = [word for word, _ in path[:depth]]
            candidates = sorted({n[depth] for n in names if len(n) > depth and n[:depth] == before})
            word, at = path[depth]
            if word not in candidates:
                prefix = ".".join([*before, ""]) if before else ""
                hint = _dash_hint(self._source, at, word) or self._environment.why_unknown(prefix + word)
                hint = hint or _did_you_mean(word, candidates, prefix)
                return ExpressionSyntaxError(f"unknown name '{prefix}{word}'", at, hint)
        whole = ".".join(word for word, _ in path)
        deeper = sorted(
            {n[len(path)] for n in names if len(n) > len(path) and ".".join(n[: len(path)]) == whole}
        )
        return ExpressionSyntaxError(
            f"'{whole}' has no value of its own", path[0][1], f"it has {_listed(deeper)}"
        )

    def _get(self, code: Code, shape: Shape | None, field: str, at: int) -> _Result:
        self._nodes += 1
        self._note_read(code)
        return ["get", code, field], self._field(shape, field, at)

    def _field(self, shape: Shape | None, field: str, at: int) -> Shape | None:
        try:
            return field_shape(shape, field)
        except KeyError:
            hint = _did_you_mean(field, fields(shape), "")
            raise ExpressionSyntaxError(f"unknown field '{field}'", at, hint) from None

    def _note_read(self, code: Code) -> None:
        if code[0] == "ref" and (task := _outputs_of(code[1])):
            self._read.add(task)

    def _guard(self, code: Code) -> None:
        if code[0] == "ref" and (task := _outputs_of(code[1])):
            self._guarded.add(task)

    # --- tests of presence --------------------------------------------------------------------------------

    def _has(self, node: Any) -> Code:
        select = node.select_expr
        path, at = self._path(select.operand), self._tested_at(node)
        if path is not None and (name := self._bound_field(path, select.field, at)):
            self._test_of(name)
            return ["hasref", name]
        code, shape = self._lower(select.operand)
        self._field(shape, select.field, at)
        self._guard(code)
        return ["has", code, select.field]

    def _tested_at(self, node: Any) -> int:
        """Where the field's name stands in `has(a.field)`: the tree knows only the macro's place."""
        found = self._source.find(node.select_expr.field, self._at(node.select_expr.operand) + 1)
        return found if found >= 0 else self._at(node)

    def _bound_field(self, path: list[tuple[str, int]], field: str, at: int) -> str | None:
        """The bound name `path.field`, if that is one."""
        parent = ".".join(word for word, _ in path)
        if parent in self._environment.objects:
            return self._field_of_object(parent, field, at)
        return f"{parent}.{field}" if f"{parent}.{field}" in self._environment.names else None

    def _test_of(self, name: str) -> None:
        """A bound name whose presence is asked: the checker must see it as a field, not as a variable."""
        parent = name.rpartition(".")[0]
        self.refs[name] = None
        self._typed[parent] = "map"
        self._tested.add(name)

    # --- calls --------------------------------------------------------------------------------------------

    def _call(self, node: Any) -> _Result:
        call = node.call_expr
        name, arguments = call.function, list(call.args)
        if call.has("target"):
            return self._method(node), None
        if name in ("_&&_", "_||_"):
            return ["and" if name == "_&&_" else "or", *(self.lower(a) for a in arguments)], None
        if name == "_?_:_":
            return ["if", *(self.lower(a) for a in arguments)], None
        if name == "@not_strictly_false":
            return self._lower(arguments[0])
        if name in ("_[_]", "_?._", "_[?_]"):
            return self._index(name, *arguments)
        if name == "_+_" and self._is_push(arguments):
            accu, item = arguments[0].ident_expr.name, arguments[1].list_expr.elements[0]
            return ["push", accu, self.lower(item)], None
        lowered = [self.lower(a) for a in arguments]
        if name == "@in":
            self._guard(lowered[1])
        return ["call", self._known(node, name, len(arguments), FUNCTIONS, "function"), lowered], None

    def _method(self, node: Any) -> Code:
        call = node.call_expr
        target, name = call.target, call.function
        if (
            target.alternative() == "ident_expr"
            and target.ident_expr.name == "optional"
            and name in _OPTIONAL
        ):
            return ["call", f"optional.{name}", [self.lower(a) for a in call.args]]
        if name in ("or", "orValue") and len(call.args) == 1:
            return ["or_else", self.lower(target), self.lower(call.args[0]), name == "orValue"]
        self._known(node, name, len(call.args), METHODS, "method")
        return ["method", name, [self.lower(a) for a in (target, *call.args)]]

    def _known(self, node: Any, name: str, count: int, table: dict[str, Any], word: str) -> str:
        at = max(self._source.rfind(name, 0, self._at(node) + 1), 0)
        if name not in table:
            others = [n for n in table if n[0].isalpha()] + (["has"] if word == "function" else [])
            hint = _did_you_mean(name, others, "")
            if name in (METHODS if table is FUNCTIONS else FUNCTIONS):
                hint = f"write x.{name}(...)" if table is FUNCTIONS else f"write {name}(x, ...)"
            raise ExpressionSyntaxError(
                f"unknown {word} '{name}'", at, hint or f"added to CEL are {_listed(ADDED)}"
            )
        _, fewest, most = table[name]
        if not fewest <= count <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise ExpressionSyntaxError(f"'{name}' takes {wanted} arguments, not {count}", at)
        return name

    def _index(self, name: str, operand: Any, key: Any) -> _Result:
        path = self._path(operand)
        text = key.const_expr.string_value if key.const_expr.alternative() == "string_value" else None
        if (
            path is not None
            and len(path) == 1
            and path[0][0] in self._environment.objects
            and text is not None
        ):
            return self._index_object(name, path[0][0], text, self._at(key))
        code, shape = self._lower(operand)
        if name == "_[_]":
            self._note_read(code)
        found = item_shape(shape) if text is None else self._field(shape, text, self._at(key))
        return ["call", name, [code, self.lower(key)]], found if name == "_[_]" else None

    def _index_object(self, name: str, root: str, field: str, at: int) -> _Result:
        """`inputs["x"]` and `inputs.?x` bind `inputs.x` alone, not all of `inputs`."""
        bound = self._field_of_object(root, field, at)
        self.refs[bound] = None
        self._typed[root] = "map"
        if name == "_[_]":
            return ["ref", bound], self._environment.names.get(bound)
        return ["optref", bound], None

    # --- literals and comprehensions ----------------------------------------------------------------------

    def _map(self, node: Any) -> Code:
        made = node.struct_expr
        if made.message_name:
            raise ExpressionSyntaxError(
                f"unknown type '{made.message_name}'", self._at(node), "a map is {'key': value}"
            )
        entries = []
        for entry in made.entries:
            key = entry.map_key
            if key.alternative() == "const_expr" and key.const_expr.alternative() != "string_value":
                raise ExpressionSyntaxError("a key of a map must be a string", self._at(key))
            entries.append([self.lower(key), self.lower(entry.value), entry.optional_entry])
        return ["map", entries]

    def _is_push(self, arguments: list[Any]) -> bool:
        """`accumulated + [item]`, as the macros `map` and `filter` write it: append instead of copying."""
        first, second = arguments
        return (
            first.alternative() == "ident_expr"
            and bool(self._growing)
            and first.ident_expr.name == self._growing[-1]
            and second.alternative() == "list_expr"
            and len(second.list_expr.elements) == 1
            and not second.list_expr.optional_indices
        )

    def _fold(self, fold: Any) -> Code:
        source, init = self.lower(fold.iter_range), self.lower(fold.accu_init)
        # Only what a macro builds under its own hidden name is certain to be nobody else's list.
        grows = fold.accu_var if init == ["list", [], []] and fold.accu_var.startswith("@") else ""
        before = self._nodes
        self._growing.append(grows)
        self._scope += [fold.iter_var, fold.accu_var]
        condition, step = self.lower(fold.loop_condition), self.lower(fold.loop_step)
        cost = self._nodes - before
        self._growing.pop()
        self._scope.remove(fold.iter_var)
        result = self.lower(fold.result)
        self._scope.remove(fold.accu_var)
        return ["fold", fold.iter_var, source, fold.accu_var, init, condition, step, result, cost]


def _constant_of(node: Any) -> Any:
    """The Python value of a constant, or raises ExpressionSyntaxError for bytes and unsigned numbers."""
    word = node.alternative()
    if word in ("bytes_value", "uint64_value"):
        raise ExpressionSyntaxError(
            "JSON has no bytes and no unsigned numbers", hint="leave the prefix or suffix out"
        )
    return None if word == "null_value" else getattr(node, word)


def _outputs_of(name: str) -> str | None:
    """The task's id, if `name` is `tasks.<id>.outputs`."""
    parts = name.split(".")
    return parts[1] if len(parts) == 3 and parts[0] == "tasks" and parts[2] == "outputs" else None


def _dash_hint(source: str, at: int, word: str) -> str:
    """`tasks.my-task` reads as a minus; what was meant is a name with a dash, which there is none."""
    dashed = re.match(rf"{re.escape(word)}(-\w+)+", source[at:])
    return f"a dash is a minus here: `{dashed[0].replace('-', '_')}`" if dashed else ""


def _did_you_mean(word: str, candidates: list[str], prefix: str) -> str:
    import difflib  # only what is wrong needs it

    close = difflib.get_close_matches(word, candidates, 1, 0.6)
    if close:
        return f"did you mean '{prefix}{close[0]}'?"
    return f"known here: {_listed(sorted(candidates), prefix)}" if candidates else ""


def _listed(words: Any, prefix: str = "") -> str:
    shown = [prefix + w for w in list(words)[:8]]
    return ", ".join(shown) + (", ..." if len(list(words)) > 8 else "")
