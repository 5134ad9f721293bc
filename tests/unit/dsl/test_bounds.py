"""What could pass a limit is refused; what is hostile is refused quickly, whatever it piles up."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest

from engine.dsl import codes, words
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import Checked, check

TYPES = ActivityTypes.default()


def checked(text: str) -> Checked:
    assert len(text.encode()) <= 256 * 1024
    return check(text.encode(), "f.yaml", TYPES)


def codes_of(text: str) -> set[str]:
    return {problem.code for problem in checked(text).problems}


def tasks(count: int, task: str) -> str:
    return "name: w\ntasks:\n" + "".join(f"- {task.replace('N', str(i))}\n" for i in range(count))


def test_five_thousand_tasks_are_the_most() -> None:
    assert checked(tasks(words.MAX_TASKS, "{id: tN, type: set, values: {}}")).problems == []
    assert codes_of(tasks(words.MAX_TASKS + 1, "{id: tN, type: set, values: {}}")) == {codes.VALUE}


def test_the_limit_of_tasks_holds_over_all_lists() -> None:
    half = tasks(3000, "{id: tN, type: set, values: {}}")
    rest = half.replace("name: w\ntasks:", "finally:").replace("id: t", "id: f")
    assert codes_of(half + rest) == {codes.BOUNDS}


def test_a_history_that_temporal_would_end_is_refused() -> None:
    approval = "{id: tN, activity_type: human_approval, config: {message: x}}"
    assert codes_of(tasks(3000, approval)) == {codes.BOUNDS}
    assert checked(tasks(1500, approval)).problems == []


def test_thousands_of_ordinary_activities_stay_inside_of_a_history() -> None:
    assert (
        checked(tasks(3500, "{id: tN, activity_type: python_function, config: {function: 'm:f'}}")).problems
        == []
    )


def test_the_work_of_checking_a_chain_grows_as_its_length() -> None:
    def steps(count: int) -> int:
        """Calls that the check makes, of Python and of C: the same on every machine, however busy."""
        text = "name: w\ntasks:\n- {id: t0, type: set, values: {}}\n" + "".join(
            f"- {{id: t{i}, type: set, values: {{}}, depends_on: [t{i - 1}]}}\n" for i in range(1, count)
        )
        made = itertools.count()
        sys.setprofile(lambda *_: next(made))
        try:
            problems = checked(text).problems
        finally:
            sys.setprofile(None)
        assert problems == []
        return next(made)

    steps(10)
    assert steps(2000) < 6 * steps(400)


PILES = {
    "unknown keys": "name: w\n" + "".join(f"k{i}: 1\n" for i in range(20_000)),
    "unknown keys of a task": "name: w\ntasks:\n- id: a\n" + "".join(f"  k{i}: 1\n" for i in range(18_000)),
    "tasks that are none": "name: w\ntasks: [" + "x," * 45_000 + "]",
    "unknown dependencies": "name: w\ntasks: [{id: a, type: set, values: {}, depends_on: ["
    + ",".join(f"t{i}" for i in range(30_000)) + "]}]",
    "bad expressions": "name: w\ntasks: [{id: a, type: set, values: {x: ["
    + ",".join(f'"${{{{ x{i} }}}}"' for i in range(11_000)) + "]}}]",
    "bad templates": "name: w\ntasks: [{id: a, type: set, values: {x: [" + ",".join(['"${{"'] * 40_000) + "]}}]",
    "expressions": "name: w\ntasks: [{id: a, type: set, values: {x: ["
    + ",".join(f'"${{{{ {i} }}}}"' for i in range(12_000)) + "]}}]",
    "inputs with defaults": "name: w\ntasks: [{id: a, type: set, values: {}}]\ninputs:\n  properties:\n"
    + "".join(f"    a{i}: {{$ref: '#/$defs/d', default: 1}}\n" for i in range(2_500)) + "  $defs: {d: {type: integer}}\n",
    "inputs with patterns": "name: w\ntasks: [{id: a, type: set, values: {}}]\ninputs:\n  properties:\n"
    + "".join(f"    a{i}: {{pattern: '[a-z]{{900}}{i}'}}\n" for i in range(5_000)),
    "inputs with wrong defaults": "name: w\ntasks: [{id: a, type: set, values: {}}]\ninputs:\n  properties:\n"
    + "".join(f"    a{i}: {{type: string, default: 1}}\n" for i in range(5_000)),
    "constants with bad names": "name: w\ntasks: [{id: a, type: set, values: {}}]\nenv:\n"
    + "".join(f"  a-{i}: 1\n" for i in range(20_000)),
    "one id": "name: w\ntasks:\n" + "- {id: a, type: set, values: {}}\n" * 5_000,
    "all on all": "name: w\ntasks:\n" + "".join(
        f"- {{id: t{i}, type: set, values: {{}}, depends_on: [{','.join(f't{j}' for j in range(i))}]}}\n" for i in range(280)
    ),
    "a ring": "name: w\ntasks:\n" + "".join(
        f"- {{id: t{i}, type: set, values: {{}}, depends_on: [t{(i + 1) % 4500}]}}\n" for i in range(4_500)
    ),
    "pairs that wait for each other": "name: w\ntasks:\n" + "".join(
        f"- {{id: t{i}, type: set, values: {{}}, depends_on: [t{i ^ 1}]}}\n" for i in range(4_500)
    ),
}  # fmt: skip

_MEASURE = """
import json, resource, sys, time
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from tests.unit.dsl.test_bounds import PILES
types = ActivityTypes.default()
check(b"name: w\\ntasks: [{id: a, type: set, values: {x: '${{ run.id }}'}}]", "", types)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
problems = check(PILES[sys.argv[1]].encode(), "pile.yaml", types).problems
seconds = time.process_time() - started
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"seconds": seconds, "megabytes": grown, "problems": len(problems)}))
"""


@pytest.mark.parametrize("name", PILES)
def test_a_pile_is_checked_quickly_and_told_briefly(name: str) -> None:
    assert len(PILES[name].encode()) <= 256 * 1024
    done = subprocess.run([sys.executable, "-c", _MEASURE, name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    # A second on a free core; the machine of a test may be a busy one.
    assert measured["seconds"] < 3
    assert measured["megabytes"] < 200
    assert measured["problems"] <= words.MAX_PROBLEMS + 1
