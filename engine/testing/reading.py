"""Test file text to `CaseFile`: every fault of it located, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from engine.core.approvals import ApprovalPolicy, Circumstances, refusal
from engine.core.contracts import Json
from engine.core.plan import HUMAN_APPROVAL
from engine.core.triggering import inputs_of, trigger_of
from engine.core.values import UNFORESEEN, ValueProblem, moment
from engine.dsl import codes, loader
from engine.dsl.checking import Checked
from engine.dsl.durations import DurationError, parse_duration
from engine.dsl.input_defaults import with_defaults
from engine.dsl.json_schemas import compile_schema
from engine.dsl.loader import Document, Path, shown
from engine.dsl.structure import closest
from engine.dsl.templates import expressions_in
from engine.errors import Problem
from engine.testing.addresses import ByAddress, Tasks, path_of
from engine.testing.cases import (
    NEVER_RETRIED,
    Answer,
    Cancel,
    Case,
    CaseFile,
    Expectation,
    Failure,
    Mock,
    Signal,
    Took,
    Vote,
)
from engine.testing.schema import INPUTS, SIGNAL, TRIGGER, UNKNOWN_WORKFLOW, VOTE
from engine.testing.structure import check_shape

STARTED_AT = "2030-01-01T00:00:00Z"
_SIGNS = ("<=", ">=", "<", ">")
_ANSWERS = ("result", "cached", "error")

FindDefinition = Callable[[str], tuple[str, Checked] | list[str]]
"""From a workflow's name to its file and what there is to say of it, or the names that there are."""


def read(text: bytes, file: str, find: FindDefinition) -> CaseFile:
    """The test file in `text`. Never raises for what the text says."""
    document = loader.load(text, file)
    if isinstance(document, list):
        return CaseFile(file, problems=document)
    problems, data = check_shape(document)
    read_file = CaseFile(file, workflow=str(data.get("workflow") or ""), problems=problems)
    if not read_file.workflow:
        return read_file
    found = find(read_file.workflow)
    if isinstance(found, list):
        message = f"no definition in this folder has the name `{shown(read_file.workflow)}`"
        hint = closest(read_file.workflow, found)
        problems.append(document.problem(UNKNOWN_WORKFLOW, message, ("workflow",), hint=hint))
        return read_file
    read_file.definition, checked = found
    if checked.compiled is None:
        problems.extend(checked.problems)
        return read_file
    read_file.compiled = checked.compiled
    faults: list[Problem] = []
    read_file.children = _children(checked.compiled, find, faults)
    problems.extend(faults)
    reader = _Reader(document, checked.compiled, read_file.children)
    cases = data.get("cases") or []
    read_file.cases = [
        reader.case(case, ("cases", index)) for index, case in enumerate(cases) if isinstance(case, dict)
    ]
    problems.extend(reader.problems)
    problems.sort(key=lambda problem: (problem.line, problem.column))
    return read_file


def _children(
    compiled: dict[str, Any], find: FindDefinition, faults: list[Problem]
) -> dict[str, dict[str, Any]]:
    """Every workflow that a run may start, and their own; `faults` of their definitions make the tests unplayable."""
    found: dict[str, dict[str, Any]] = {}
    wanted = [call["workflow"] for call in compiled.get("calls") or ()]
    while wanted:
        name = wanted.pop()
        there = None if name in found else find(name)
        if not isinstance(there, tuple):
            continue  # known already, or missing: a task that starts it must be mocked whole
        _, checked = there
        if checked.compiled is None:
            faults.extend(checked.problems)
            continue
        found[name] = checked.compiled
        wanted += [call["workflow"] for call in checked.compiled.get("calls") or ()]
    return found


class _Reader:
    """Reads the cases of one file against the compiled definition; what is wrong goes to `problems`."""

    def __init__(
        self, document: Document, compiled: dict[str, Any], children: Mapping[str, dict[str, Any]]
    ) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._compiled = compiled
        self._tasks = Tasks(compiled, children.get)
        self._schema = compiled["inputs"]
        self._validator = None if self._schema is None else compile_schema(self._schema)
        self._names: dict[str, int] = {}

    def case(self, data: dict[str, Any], place: Path) -> Case:
        """One case; what is wrong in it is left out."""
        line = self._document.at_value(place)[0]
        name = str(data.get("name") or "")
        if name and self._names.setdefault(name, line) != line:
            self._say(
                codes.DUPLICATE_NAME,
                f"a case in line {self._names[name]} has this name already",
                (*place, "name"),
            )
        started_by = str(data.get("started_by") or "tester")
        author = str(data.get("commit_author") or "")
        around = Circumstances(started_by, frozenset({author} - {""}), escalated=True)
        fired = self._trigger(data.get("trigger"), (*place, "trigger"))
        given = data.get("inputs") or {}
        mapped = self._triggered(fired, (*place, "trigger")) if fired else None if "trigger" in data else {}
        return Case(
            name=name,
            line=line,
            place=place,
            inputs=given
            if mapped is None
            else self._inputs({**mapped, **given}, (*place, "inputs") if "inputs" in data else place),
            mocks=ByAddress(self._mocks(data.get("mocks") or {}, (*place, "mocks"))),
            approvals=ByAddress(self._approvals(data.get("approvals") or {}, (*place, "approvals"), around)),
            expect=self._expect(data.get("expect") or {}, (*place, "expect")),
            started_at=self._moment(data.get("started_at") or STARTED_AT, (*place, "started_at")),
            started_by=started_by,
            commit_author=author,
            cancel=self._cancel(data.get("cancel"), (*place, "cancel")),
            signals=tuple(self._signals(data.get("signals") or (), (*place, "signals"))),
            trigger=fired,
            ignored=mapped is None,
            targets=tuple(self._targets(data.get("targets") or (), (*place, "targets"))),
        )

    # --- parts of a case ------------------------------------------------------------------------------------------

    def _inputs(self, given: dict[str, Json], place: Path) -> dict[str, Json]:
        if self._validator is None:
            for name in given:
                self._say(INPUTS, "this workflow takes no inputs", (*place, name), key=True)
            return given
        filled: dict[str, Json] = with_defaults(self._schema, given)
        for error in self._validator.iter_errors(filled):
            message = "the inputs do not fit: " + shown(str(error.message).split("\n", 1)[0], 200)
            self._say(INPUTS, message, (*place, *error.instance_path))
        return filled

    def _mocks(self, given: dict[str, Any], place: Path) -> Iterator[tuple[str, Mock]]:
        for name, value in self._of_tasks(given, place):
            task = self._tasks.find(name) or {}
            kind = task.get("type", "activity")  # a compensation is an activity, and does not say so
            if kind not in ("activity", "workflow"):
                message = f"`{name}` is a `{kind}`: it has no activity to mock"
                hint = f"mock the tasks in it: `{name}.…`" if task.get("tasks") else "leave it out"
                self._say(codes.NOT_ALLOWED, message, (*place, name), hint, key=True)
            elif task.get("activity_type") == HUMAN_APPROVAL:
                message = f"`{name}` waits for people, who are no mock"
                self._say(codes.NOT_ALLOWED, message, (*place, name), "say it under `approvals`", key=True)
            elif isinstance(value, list):
                answers = [self._answer(item, (*place, name, i)) for i, item in enumerate(value)]
                yield name, Mock(tuple(answers), repeats=False)
            else:
                yield name, Mock((self._answer(value, (*place, name)),), repeats=True)

    def _answer(self, data: Any, place: Path) -> Answer:
        data = data if isinstance(data, dict) else {}
        written = [key for key in _ANSWERS if key in self._written(place)]
        if len(written) != 1:
            named = " and ".join(f"`{key}`" for key in written)
            fault = f"has {named}: one of them" if written else "needs `result`, `cached` or `error`"
            self._say(codes.VALUE, f"the answer {fault}", place)
        error = None
        if isinstance(said := data.get("error"), dict):
            kind = str(said.get("type") or "")
            error = Failure(
                kind,
                str(said.get("message") or "as the test says"),
                said.get("details"),
                said.get("retryable", kind not in NEVER_RETRIED) is True,
            )
        cached = "cached" in data
        result = data.get("cached") if cached else data.get("result")
        return Answer(result, error, self._seconds(data, "after", place), cached)

    def _approvals(
        self, given: dict[str, Any], place: Path, around: Circumstances
    ) -> Iterator[tuple[str, tuple[Vote, ...]]]:
        for name, value in self._of_tasks(given, place):
            task = self._tasks.find(name) or {}
            if task.get("activity_type") != HUMAN_APPROVAL:
                message = f"`{name}` does not wait for people"
                self._say(
                    codes.NOT_ALLOWED, message, (*place, name), "only a `human_approval` does", key=True
                )
                continue
            votes = [self._vote(item, (*place, name, i)) for i, item in enumerate(value or ())]
            policy = _constant_policy(task["config"])
            for vote in votes if policy else ():
                if policy and vote.by and (refused := refused_vote(policy, vote, around)):
                    self._say(VOTE, refused, (*vote.place, "by"))
            yield name, tuple(sorted(votes, key=lambda vote: vote.after))

    def _vote(self, data: Any, place: Path) -> Vote:
        data = data if isinstance(data, dict) else {}
        groups = data.get("groups")
        return Vote(
            by=str(data.get("by") or ""),
            decision=str(data.get("decision") or "approve"),
            after=self._seconds(data, "after", place),
            place=place,
            groups=None if groups is None else tuple(map(str, groups)),
            comment=str(data.get("comment") or ""),
            form=data.get("form"),
        )

    def _cancel(self, data: Any, place: Path) -> Cancel | None:
        if not isinstance(data, dict):
            return None
        by = str(data.get("by") or "tester")
        return Cancel(self._seconds(data, "after", place), by, str(data.get("reason") or ""))

    def _expect(self, data: dict[str, Any], place: Path) -> Expectation:
        error = data.get("error")
        if isinstance(error, dict) and error.get("task"):
            self._known([error["task"]], lambda _: (*place, "error", "task"))
        path = data.get("path")
        if path is not None:
            path = [name for name in path if name is not None]
            self._known(path, lambda index: (*place, "path", index))
        return Expectation(
            status=str(data.get("status") or ""),
            tasks=dict(self._of_tasks(data.get("tasks") or {}, (*place, "tasks"))),
            attempts=dict(self._of_tasks(data.get("attempts") or {}, (*place, "attempts"))),
            path=None if path is None else tuple(path),
            outputs=(data["outputs"],) if "outputs" in data else None,
            error=error if isinstance(error, dict) else None,
            took=self._took(data.get("took"), (*place, "took")),
            compensated=dict(self._compensated(data.get("compensated") or {}, (*place, "compensated"))),
        )

    def _compensated(self, given: dict[str, Any], place: Path) -> Iterator[tuple[str, str]]:
        for name, value in self._of_tasks(given, place):
            if (self._tasks.find(name) or {}).get("compensate") is None:
                message = f"`{name}` has no `compensate`: nothing undoes it"
                self._say(codes.NOT_ALLOWED, message, (*place, name), key=True)
            else:
                yield name, value

    def _signals(self, given: Iterable[Any], place: Path) -> Iterator[Signal]:
        for index, data in enumerate(given):
            at = (*place, index)
            if not isinstance(data, dict):
                continue
            name, task = str(data.get("name") or ""), str(data.get("task") or "")
            if bool(name) == bool(task):
                self._say(SIGNAL, "a signal has a `name`, or the `task` whose callback address is called", at)
                continue
            key = (*at, "task" if task else "name")
            if task and self._known([task], partial(_just, key)):
                continue
            waits = [self._tasks.find(task)] if task else self._named(name)
            waits = [each for each in waits if each and each["type"] == "signal"]
            if not waits:
                what = (
                    f"`{task}` waits for no signal"
                    if task
                    else f"no task waits for the signal `{shown(name)}`"
                )
                hint = "" if task else closest(name, sorted(self._signal_names()))
                self._say(SIGNAL, what, key, hint)
                continue
            self._payload(data, [each.get("schema") for each in waits if each], at)
            yield Signal(
                self._seconds(data, "after", at),
                name,
                task,
                str(data.get("correlation") or ""),
                data.get("payload"),
                str(data.get("by") or "tester"),
                at,
            )

    def _payload(self, data: dict[str, Any], schemas: list[Any], at: Path) -> None:
        """What the server would say of a payload that fits none of the tasks that wait for it."""
        faults = []
        for schema in schemas:
            errors = [] if schema is None else list(compile_schema(schema).iter_errors(data.get("payload")))
            if not errors:
                return
            faults.append(errors[0])
        message = "the payload does not fit: " + shown(str(faults[0].message).split("\n", 1)[0], 200)
        where = ("payload", *faults[0].instance_path) if "payload" in data else ()
        self._say(SIGNAL, message, (*at, *where))

    def _named(self, name: str) -> list[Mapping[str, Any] | None]:
        tasks = [self._tasks.find(path) for path in self._tasks.paths()]
        return [task for task in tasks if task and task.get("signal") == name]

    def _signal_names(self) -> set[str]:
        tasks = [self._tasks.find(path) for path in self._tasks.paths()]
        return {task["signal"] for task in tasks if task and task.get("signal")}

    def _trigger(self, data: Any, place: Path) -> dict[str, Json] | None:
        """What expressions read as `trigger`."""
        if not isinstance(data, dict) or not data.get("id"):
            return None
        trigger = trigger_of(self._compiled, data["id"])
        if trigger is None:
            ids = [each["id"] for each in self._compiled.get("triggers") or ()]
            hint = closest(data["id"], ids) or (
                "there are " + ", ".join(f"`{id}`" for id in ids) if ids else ""
            )
            self._say(TRIGGER, f"there is no trigger `{shown(data['id'])}`", (*place, "id"), hint)
            return None
        for key in ("scheduled_at", "previous_scheduled_at"):
            if data.get(key):
                self._moment(data[key], (*place, key))
        return {"type": trigger["type"], **data}

    def _triggered(self, fired: dict[str, Json], place: Path) -> dict[str, Json] | None:
        """The inputs that the trigger gives, None if it starts nothing."""
        trigger = trigger_of(self._compiled, str(fired["id"]))
        assert trigger is not None  # it was looked up a moment ago
        try:
            return inputs_of(self._compiled, trigger, fired)
        except (*UNFORESEEN, KeyError) as error:
            self._say(TRIGGER, f"the trigger cannot fire: {shown(str(error), 200)}", place)
            return None

    def _targets(self, given: Iterable[Any], place: Path) -> Iterator[str]:
        for index, name in enumerate(given):
            if isinstance(name, str) and not self._known([name], partial(_just, (*place, index))):
                yield name

    def _took(self, text: str | None, place: Path) -> Took | None:
        if text is None:
            return None
        sign = next((sign for sign in _SIGNS if text.startswith(sign)), "")
        amount = text[len(sign) :].strip()
        try:
            return Took(sign, 0.0 if amount in ("0", "0s") else parse_duration(amount), text)
        except DurationError as error:
            self._say(codes.DURATION, f"`{shown(text)}` {error}", place)
            return None

    # --- odds and ends --------------------------------------------------------------------------------------------

    def _of_tasks(self, given: dict[str, Any], place: Path) -> Iterator[tuple[str, Any]]:
        self._known(given, lambda index: (*place, list(given)[index]), key=True)
        return ((name, value) for name, value in given.items() if self._tasks.find(name) is not None)

    def _known(self, names: Iterable[str], place: Callable[[int], Path], *, key: bool = False) -> bool:
        """Tell of names that no task has; whether there are any."""
        unknown = False
        for index, name in enumerate(names):
            if self._tasks.find(name) is None:
                unknown = True
                hint = closest(path_of(name), self._tasks.paths())
                self._say(
                    codes.UNKNOWN_TASK, f"there is no task `{shown(name)}`", place(index), hint, key=key
                )
        return unknown

    def _seconds(self, data: dict[str, Any], key: str, place: Path) -> float:
        text = data.get(key)
        if text is None:
            return 0.0
        try:
            return parse_duration(text)
        except DurationError as error:
            self._say(codes.DURATION, f"`{shown(text)}` {error}", (*place, key))
            return 0.0

    def _moment(self, text: str, place: Path) -> float:
        try:
            return moment(text)
        except ValueProblem as error:
            self._say(codes.VALUE, str(error).removeprefix("until "), place)
            return 0.0

    def _written(self, place: Path) -> Any:
        """The mapping at `place` as it stands in the file, with what was found wrong in it."""
        value: Any = self._document.data
        for part in place:
            value = value[part]
        return value if isinstance(value, dict) else {}

    def _say(self, code: str, message: str, place: Path, hint: str = "", *, key: bool = False) -> None:
        self.problems.append(self._document.problem(code, message, place, hint=hint, key=key))


def _just(place: Path, _: int) -> Path:
    return place


def _constant_policy(config: Any) -> ApprovalPolicy | None:
    """What a request asks for, if its definition says so without an expression; else only a run can tell."""
    if not isinstance(config, dict) or "message" not in config:
        return None
    asked = {key: value for key, value in config.items() if key not in ("message", "form", "deadline")}
    return None if expressions_in(asked) else ApprovalPolicy.from_json(asked)


def refused_vote(policy: ApprovalPolicy, vote: Vote, around: Circumstances) -> str:
    """Why the person may not vote, "" if they may. Without `groups` they are in all that the request asks for."""
    groups = vote.groups
    if groups is None:
        asked = policy.approvers.groups
        groups = tuple(sorted(asked | policy.escalate_to.groups if around.escalated else asked))
    return refusal(policy, vote.by, groups, around)
