"""Cases with tasks inside of tasks, children, slices, signals, triggers, slots, caches and compensations, played offline."""

from __future__ import annotations

import pytest

from engine.dsl.checking import Checked, check
from engine.testing.cases import CaseFile
from engine.testing.driver import Driver
from engine.testing.expectations import differences
from engine.testing.reading import read
from engine.testing.traces import Trace
from tests.support.casefiles import HTTP, TYPES


def case_file(case: str, *definitions: str) -> CaseFile:
    """The first definition is the one that is tested; a file of its own for each."""
    checked = {found.name: found for text in definitions if (found := check(text.encode(), "w.yaml", TYPES))}
    first = next(iter(checked))

    def find(name: str) -> tuple[str, Checked] | list[str]:
        return ("w.yaml", checked[name]) if name in checked else sorted(checked)

    return read(f"workflow: {first}\ncases:\n  - {{name: one, {case}}}\n".encode(), "w.test.yaml", find)


def play(case: str, *definitions: str) -> tuple[Trace, list[str]]:
    found = case_file(case, *definitions)
    assert found.problems == [], "\n".join(map(str, found.problems))
    assert found.compiled is not None
    trace = Driver(found.compiled, TYPES, found.children).play(found.cases[0])
    return trace, differences(found.cases[0], trace, TYPES)


def passes(case: str, *definitions: str) -> Trace:
    trace, found = play(case, *definitions)
    assert found == [], "\n".join(found)
    return trace


def problems(case: str, *definitions: str) -> list[str]:
    return [str(problem) for problem in case_file(case, *definitions).problems]


MAP = f"""
name: w
inputs: {{type: object, properties: {{n: {{type: integer, default: 3}}}}}}
tasks:
  - id: each
    type: map
    items: "${{{{ range(inputs.n) }}}}"
    max_concurrency: 2
    tolerated_failures: 1
    tasks:
      - {{id: a, {HTTP}}}
      - {{id: b, depends_on: [a], {HTTP}, outputs: "${{{{ result }}}}"}}
outputs: "${{{{ tasks.each.outputs }}}}"
"""


def test_a_mock_by_path_answers_for_every_item_and_one_by_address_for_its_own() -> None:
    trace = passes(
        "mocks: {each.a: {result: 1, after: 1s}, each.b: {result: x}, 'each[1].b': {result: y}}, "
        "expect: {status: COMPLETED, outputs: [x, y, x], took: 2s, tasks: {each.a: COMPLETED, 'each[2].b': COMPLETED}}",
        MAP,
    )
    assert [trace.tasks[f"each[{index}].a"].status for index in range(3)] == ["COMPLETED"] * 3


def test_an_item_that_fails_is_told_by_its_address() -> None:
    passes(
        "mocks: {each.a: {result: 1}, each.b: {result: x}, 'each[0].a': {error: {type: X}}}, "
        "expect: {status: COMPLETED, outputs: [null, x, x], tasks: {'each[0].a': FAILED, 'each[0].b': SKIPPED}}",
        MAP,
    )


def test_of_a_task_with_many_instances_each_must_have_ended_as_expected() -> None:
    _, found = play(
        "mocks: {each.a: {result: 1}, each.b: {result: x}, 'each[0].a': {error: {type: X}}}, "
        "expect: {status: COMPLETED, tasks: {each.a: COMPLETED}}",
        MAP,
    )
    assert len(found) == 1
    assert "tasks.each.a" in found[0]


def test_under_drain_no_slice_begins_items_once_the_map_has_failed() -> None:
    drained = MAP.replace("name: w", "name: w\non_task_failure: drain\nmax_concurrency: 100", 1).replace(
        "    max_concurrency: 2\n    tolerated_failures: 1\n", ""
    )
    trace = passes(
        "inputs: {n: 1200}, mocks: {each.a: {result: 1, after: 9s}, each.b: {result: x}, "
        "'each[0].a': {error: {type: X}, after: 1s}}, expect: {status: FAILED, took: <1m}",
        drained,
    )
    begun = [
        name for name, task in trace.tasks.items() if name.endswith("].a") and task.status == "COMPLETED"
    ]
    assert 0 < len(begun) < 200


def test_a_map_that_is_cut_gives_what_one_that_is_not_would() -> None:
    passes(
        "inputs: {n: 1200}, mocks: {each.a: {result: 1}, each.b: {result: x}, 'each[1100].a': {error: {type: X}}}, "
        "expect: {status: COMPLETED, tasks: {each: COMPLETED, 'each[1100].a': FAILED, 'each[1199].b': COMPLETED}}",
        MAP.replace("max_concurrency: 2", "max_concurrency: 100"),
    )


PARENT = """
name: parent
tasks:
  - {id: child, type: workflow, workflow: child, inputs: {n: 2}, retry: {max_attempts: 2, initial_interval: 1m}}
outputs: "${{ tasks.child.outputs }}"
"""
CHILD = f"""
name: child
inputs: {{type: object, required: [n], properties: {{n: {{type: integer}}}}}}
tasks:
  - {{id: work, {HTTP}, outputs: "${{{{ result }}}}"}}
  - {{id: gate, depends_on: [work], activity_type: human_approval, config: {{message: go, deadline: 1h}}}}
outputs: {{n: "${{{{ inputs.n }}}}", said: "${{{{ tasks.work.outputs }}}}"}}
"""


def test_a_child_is_played_with_the_rest_of_its_own_definition() -> None:
    trace = passes(
        "mocks: {child.work: {result: hi}}, approvals: {child.gate: [{by: bob, decision: approve, after: 10m}]}, "
        "expect: {status: COMPLETED, outputs: {n: 2, said: hi}, took: 10m, path: [child], tasks: {child.gate: COMPLETED}}",
        PARENT,
        CHILD,
    )
    assert [word.prefix for word in trace.words] == ["child."]


def test_a_list_goes_on_with_the_next_attempt_of_the_child() -> None:
    passes(
        "mocks: {child.work: [{error: {type: X}}, {result: hi}]}, approvals: {child.gate: [{by: bob, decision: approve}]}, "
        "expect: {status: COMPLETED, attempts: {child: 2}, took: 1m}",
        PARENT,
        CHILD,
    )


def test_a_child_may_be_answered_whole() -> None:
    trace = passes(
        "mocks: {child: {result: {n: 9}, after: 5s}}, expect: {status: COMPLETED, outputs: {n: 9}, took: 5s}",
        PARENT,
        CHILD,
    )
    assert list(trace.tasks) == ["child"]


def test_a_child_whose_definition_is_not_there_must_be_answered_whole() -> None:
    assert problems("mocks: {child.work: {result: 1}}, expect: {status: COMPLETED}", PARENT) == [
        "w.test.yaml:3:25: UNKNOWN_TASK there is no task `child.work` (did you mean `child`?)"
    ]


def test_a_child_whose_definition_is_not_there_and_that_nobody_answers_says_which_line_to_add() -> None:
    _, found = play("expect: {status: COMPLETED}", PARENT)
    assert "task `child` ran, and the case has no mock for it" in found[0]


def test_a_task_of_a_child_without_a_mock_says_which_line_to_add() -> None:
    _, found = play("expect: {status: COMPLETED}", PARENT, CHILD)
    assert "child.work: {result: {status: 200, headers: {}, body: {}}}" in found[0]


SIGNAL = f"""
name: w
tasks:
  - {{id: ask, {HTTP}}}
  - {{id: first, type: signal, depends_on: [ask], signal: go, schema: {{type: object}}, timeout: 1h}}
  - {{id: second, type: signal, depends_on: [first], signal: go, timeout: 1h}}
outputs: {{first: "${{{{ tasks.first.outputs }}}}", second: "${{{{ tasks.second.outputs }}}}"}}
"""


def test_signals_feed_one_task_each_in_order_also_early_ones() -> None:
    passes(
        "mocks: {ask: {result: 1, after: 10s}}, "
        "signals: [{name: go, payload: {n: 1}, after: 5s}, {name: go, payload: {n: 2}, after: 1m}], "
        "expect: {status: COMPLETED, outputs: {first: {n: 1}, second: {n: 2}}, took: 1m}",
        SIGNAL,
    )


def test_a_run_that_waits_for_a_signal_that_nobody_sends_times_out() -> None:
    passes(
        "mocks: {ask: {result: 1}}, expect: {status: FAILED, error: {type: TIMEOUT, task: first}, took: 1h}",
        SIGNAL,
    )


def test_a_run_that_would_wait_for_ever_says_which_signal_to_add() -> None:
    _, found = play(
        "mocks: {ask: {result: 1}}, expect: {status: FAILED}", SIGNAL.replace(", timeout: 1h", "")
    )
    assert found == [
        "the run waits for `first`, and no signal comes; add under `signals:`\n      - {task: first, payload: {}}"
    ]


@pytest.mark.parametrize(
    ("signal", "problem"),
    [
        ("{payload: 1}", "SIGNAL a signal has a `name`, or the `task`"),
        ("{name: stop}", "SIGNAL no task waits for the signal `stop`"),
        ("{name: goo}", "did you mean `go`?"),
        ("{task: ask}", "SIGNAL `ask` waits for no signal"),
        ("{task: nobody}", "UNKNOWN_TASK there is no task `nobody`"),
        ("{task: first, payload: 7}", "SIGNAL the payload does not fit"),
    ],
)
def test_a_signal_that_nobody_could_send_is_located(signal: str, problem: str) -> None:
    (found,) = problems(f"signals: [{signal}], expect: {{status: FAILED}}", SIGNAL)
    assert problem in found


HOOK = f"""
name: w
inputs: {{type: object, required: [repo], properties: {{repo: {{type: string}}}}}}
triggers:
  - {{id: push, type: webhook, secret: S, when: "${{{{ trigger.body.ref == 'main' }}}}", inputs: {{repo: "${{{{ trigger.body.repo }}}}"}}}}
tasks: [{{id: a, {HTTP}}}]
outputs: {{repo: "${{{{ inputs.repo }}}}", by: "${{{{ trigger.id }}}}"}}
"""


def test_a_trigger_gives_the_inputs() -> None:
    passes(
        "trigger: {id: push, body: {ref: main, repo: web}}, mocks: {a: {result: 1}}, "
        "expect: {status: COMPLETED, outputs: {repo: web, by: push}}",
        HOOK,
    )


def test_a_trigger_whose_when_is_false_starts_nothing() -> None:
    passes("trigger: {id: push, body: {ref: dev, repo: web}}, expect: {status: IGNORED}", HOOK)


@pytest.mark.parametrize(
    ("trigger", "problem"),
    [
        ("{id: pull}", "TRIGGER there is no trigger `pull` (there are `push`)"),
        ("{id: push, body: {}}", "TRIGGER the trigger cannot fire"),
        ("{id: push, body: {ref: main, repo: 7}}", "INPUTS the inputs do not fit"),
    ],
)
def test_a_trigger_that_cannot_fire_is_located(trigger: str, problem: str) -> None:
    (found,) = problems(f"trigger: {trigger}, expect: {{status: COMPLETED}}", HOOK)
    assert problem in found


CHAIN = f"""
name: w
tasks:
  - {{id: a, {HTTP}, compensate: {{{HTTP}}}}}
  - {{id: b, depends_on: [a], {HTTP}, cache: {{key: k}}}}
  - {{id: c, {HTTP}}}
"""


def test_targets_run_with_what_they_depend_on_and_nothing_else() -> None:
    trace = passes(
        "targets: [b], mocks: {a: {result: 1}, b: {result: 1}}, "
        "expect: {status: COMPLETED, tasks: {a: COMPLETED, b: COMPLETED, c: SKIPPED}}",
        CHAIN,
    )
    assert trace.tasks["c"].skip_reason == "untargeted"


def test_a_compensation_has_a_mock_and_an_outcome_of_its_own() -> None:
    passes(
        "mocks: {a: {result: 1}, b: {error: {type: X}}, c: {result: 1}, a~undo: {result: 1}}, "
        "expect: {status: FAILED, compensated: {a: DONE}, path: [a, c, b, a~undo]}",
        CHAIN,
    )


def test_a_compensation_that_nobody_wrote_cannot_be_expected() -> None:
    (found,) = problems("expect: {status: COMPLETED, compensated: {b: DONE}}", CHAIN)
    assert "`b` has no `compensate`" in found


def test_a_result_of_the_cache_takes_no_time() -> None:
    passes(
        "mocks: {a: {result: 1}, b: {cached: 2, after: 1h}, c: {result: 1}}, expect: {status: COMPLETED, took: 0s}",
        CHAIN,
    )


SLOTS = f"""
name: w
tasks:
  - {{id: a, {HTTP}, concurrency: {{group: g, limit: 1}}}}
  - {{id: b, {HTTP}, concurrency: {{group: g, limit: 1}}}}
"""


def test_tasks_of_one_group_take_turns() -> None:
    passes(
        "mocks: {a: {result: 1, after: 1m}, b: {result: 1, after: 1m}}, expect: {status: COMPLETED, took: 2m}",
        SLOTS,
    )


def test_a_secret_is_a_placeholder() -> None:
    passes(
        "mocks: {a: {result: 1}}, expect: {status: COMPLETED}",
        """
name: w
secrets: [TOKEN]
tasks:
  - {id: a, activity_type: http_request, config: {url: 'https://x.test', headers: {x: "a ${{ secrets.TOKEN }} b"}}}
""",
    )
