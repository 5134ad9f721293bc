"""The examples of the language's reference page are played: each says what it shows, and does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.testing.discovery import Library
from engine.testing.driver import Driver
from engine.testing.expectations import differences
from tests.support.casefiles import TYPES

EXAMPLES = Path(__file__).parents[3] / "docs" / "reference" / "examples"
OK = "{result: {status: 200, headers: {}, body: {}}}"

CASES = {
    "activity-task": [
        "mocks: {build: {result: {status: 200, headers: {}, body: {state: built, image: i}}}, record: {result: {}}}, "
        "expect: {status: COMPLETED, tasks: {apologise: SKIPPED}}",
        f"mocks: {{build: {{result: {{status: 200, headers: {{}}, body: {{state: broken}}}}}}, apologise: {OK}}}, "
        "expect: {status: FAILED, attempts: {build: 5}, tasks: {record: SKIPPED, apologise: COMPLETED}}",
    ],
    "cached": [
        "inputs: {service: web}, mocks: {build: {cached: {status: 200, headers: {}, body: {}}}}, "
        "expect: {status: COMPLETED, took: 0s}"
    ],
    "child-workflow": [
        "inputs: {kind: web}, mocks: {deploy: [{error: {type: X}}, {result: {}}], smoke: {result: {report: fine}}}, "
        "expect: {status: COMPLETED, attempts: {deploy: 2}}"
    ],
    "end-task": [
        "inputs: {files: []}, expect: {status: COMPLETED, outputs: {copied: 0}, tasks: {copy: SKIPPED}}",
        "inputs: {files: [a]}, expect: {status: COMPLETED, outputs: {copied: 1}}",
    ],
    "group-task": [
        f"inputs: {{publish: true}}, mocks: {{publish.push: {OK}, publish.announce: {OK}}}, "
        "expect: {status: COMPLETED, path: [build, publish.push, publish.announce, publish]}",
        "expect: {status: COMPLETED, tasks: {publish: SKIPPED}}",
    ],
    "loop-task": [
        "mocks: {'pages[0].page': {result: {status: 200, headers: {}, body: {next: b, items: [1]}}}, "
        "pages.page: {result: {status: 200, headers: {}, body: {next: '', items: [2]}}}}, "
        "expect: {status: COMPLETED, outputs: {found: [1, 2]}, took: 1s}"
    ],
    "map-task": [
        f"mocks: {{rollout.deploy: {OK}, "
        "rollout.check: {result: {status: 200, headers: {}, body: {version: 7}}}}, "
        "expect: {status: COMPLETED, tasks: {rollout.check: COMPLETED, summary: COMPLETED}}"
    ],
    "nightly": [
        f"trigger: {{id: weekday, scheduled_at: '2030-01-07T05:00:00Z'}}, mocks: {{report: {OK}}}, "
        "expect: {status: COMPLETED}"
    ],
    "one-at-a-time": [f"inputs: {{cluster: a}}, mocks: {{migrate: {OK}}}, expect: {{status: COMPLETED}}"],
    "one-run-at-a-time": [
        f"inputs: {{service: web}}, mocks: {{release: {OK}}}, expect: {{status: COMPLETED}}"
    ],
    "pushed": [
        f"trigger: {{id: main, body: {{ref: refs/heads/main, repository: web}}}}, mocks: {{scan: {OK}}}, "
        "expect: {status: COMPLETED}",
        "trigger: {id: main, body: {ref: refs/heads/dev, repository: web}}, expect: {status: IGNORED}",
    ],
    "retried": [
        f"mocks: {{call: {{error: {{type: HTTP_5XX}}}}, usual: {OK}}}, "
        "expect: {status: FAILED, attempts: {call: 6}, took: 1m2s}",
        f"mocks: {{call: [{{error: {{type: HTTP_5XX}}}}, {OK}], usual: {OK}}}, expect: {{status: COMPLETED, took: 2s}}",
    ],
    "set-task": [
        "expect: {status: COMPLETED, outputs: {pairs: [[eu, s], [eu, l], [us, s], [us, l]], title: 2 regions}}"
    ],
    "signal-task": [
        f"inputs: {{order: o1}}, mocks: {{charge: {OK}}}, "
        "signals: [{name: payment, correlation: o1, payload: {amount: 5}, after: 1h}], "
        "expect: {status: COMPLETED, took: 1h}",
        f"inputs: {{order: o1}}, mocks: {{charge: {OK}}}, expect: {{status: FAILED, took: 3d}}",
    ],
    "undo": [
        "mocks: {reserve: {result: {status: 200, headers: {}, body: {id: r1}}}, fly: {error: {type: HTTP_4XX}}, "
        f"reserve~undo: {OK}}}, expect: {{status: FAILED, compensated: {{reserve: DONE}}}}"
    ],
    "wait-task": ["expect: {status: COMPLETED, path: [soak, night], took: 6h}"],
    "whole-workflow": [
        "inputs: {service: web}, mocks: {deploy: {result: {status: 200, headers: {}, body: {address: here}}}, "
        f"unlock: {OK}}}, expect: {{status: COMPLETED, outputs: {{address: here}}, tasks: {{alert: SKIPPED}}}}",
        f"inputs: {{service: web}}, mocks: {{deploy: {{error: {{type: HTTP_5XX}}}}, alert: {OK}, unlock: {OK}}}, "
        "expect: {status: FAILED, tasks: {alert: COMPLETED, unlock: COMPLETED}}",
    ],
    "with-a-secret": [f"mocks: {{deploy: {OK}}}, expect: {{status: COMPLETED}}"],
}


def test_every_example_has_a_case() -> None:
    assert sorted(CASES) == sorted(file.stem for file in EXAMPLES.glob("*.yaml"))


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases])
def test_an_example_does_what_the_page_says(name: str, case: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.yaml").write_text((EXAMPLES / f"{name}.yaml").read_text("utf-8"), "utf-8")
    tests = tmp_path / f"{name}.test.yaml"
    tests.write_text(f"workflow: {name}\ncases:\n  - {{name: shown, {case}}}\n", "utf-8")
    found = Library(TYPES).load(str(tests))
    assert found.problems == [], "\n".join(map(str, found.problems))
    assert found.compiled is not None
    trace = Driver(found.compiled, TYPES, found.children).play(found.cases[0])
    failures = differences(found.cases[0], trace, TYPES)
    assert failures == [], "\n".join(failures)
