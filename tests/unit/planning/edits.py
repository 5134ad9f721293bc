"""Edits of one definition, a kind of change each, whose plans stand in `golden/`.

    .venv/bin/python -m tests.unit.planning.edits

writes them anew; read the difference before you commit it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from engine.dsl.activity_types import ActivityTypes
from engine.planning.planner import FileChange, make_plan, plan_definition
from engine.planning.plans import NOT_THERE, Live, NotReplayed, Plan, Replayed, RunsOfVersion
from engine.planning.reports import FORMATS

GOLDEN = Path(__file__).parent / "golden"
SUFFIXES = {"text": "txt", "json": "json", "markdown": "md"}
BASE, HEAD = "a" * 40, "b" * 40
PATH = "workflows/release.yaml"
STORY_PATH = "workflows/story.yaml"

RELEASE = """\
name: release
description: Build and roll out
secrets: [DEPLOY_TOKEN]
inputs:
  type: object
  required: [service]
  properties:
    service: {type: string}
    size: {type: string, enum: [s, m, l]}
env: {api: "https://deploy.example.test"}
triggers:
  - {id: nightly, type: schedule, cron: "0 6 * * *", timezone: Europe/Rome, inputs: {service: web}}
  - {id: pushed, type: webhook, secret: HOOK_SECRET, inputs: {service: web}}
concurrency: {group: release, limit: 1}
max_concurrency: 20
timeout: 24h
tasks:
  - id: build
    name: Build image
    activity_type: http_request
    config:
      method: POST
      url: "${{ env.api }}/build"
      headers: {authorization: "Bearer ${{ secrets.DEPLOY_TOKEN }}"}
      json: {service: "${{ inputs.service }}"}
    timeout: 10m
    outputs: {image: "${{ result.body.image }}"}
  - id: probe
    activity_type: http_request
    config: {method: GET, url: "https://status.example.test/"}
    retry: {max_attempts: 5}
    cache: {key: probe, max_age: 1h}
  - id: gate
    activity_type: human_approval
    depends_on: [build, probe]
    config:
      message: Deploy?
      approvers: {groups: [sre], users: [alice]}
      required_approvals: 2
      prevent_self_approval: [starter]
      deadline: 48h
  - id: rollout
    type: map
    depends_on: [gate]
    items: "${{ ['eu', 'us'] }}"
    tasks:
      - id: deploy
        activity_type: python_function
        config: {function: "deploys:apply", args: {region: "${{ item }}"}}
        compensate: {activity_type: python_function, config: {function: "deploys:undo"}}
  - {id: smoke, type: workflow, depends_on: [rollout], workflow: smoke-tests, ref: same}
  - {id: note, type: set, depends_on: [smoke], when: "${{ inputs.size == 'l' }}", values: {large: true}}
outputs: {image: "${{ tasks.build.outputs.image }}"}
finally:
  - {id: unlock, activity_type: http_request, config: {method: DELETE, url: "https://deploy.example.test/lock"}}
"""

EDITS: dict[str, tuple[tuple[str, str], ...]] = {
    "approval_removed": (
        ("  - id: gate\n", "  - id: rest\n    type: wait\n    depends_on: [build, probe]\n    duration: 1m\n  - id: gone\n"),
        ("    depends_on: [gate]", "    depends_on: [rest]"),
        ("    activity_type: human_approval\n", "    type: wait\n    duration: 1m\n"),
        ("    config:\n      message: Deploy?\n      approvers: {groups: [sre], users: [alice]}\n", ""),
        ("      required_approvals: 2\n      prevent_self_approval: [starter]\n      deadline: 48h\n", ""),
    ),
    "approval_bypassed": (("    depends_on: [gate]", "    depends_on: [build]"),),
    "approval_ignored": (("    depends_on: [gate]", "    depends_on: [gate]\n    run_on: always"),),
    "approval_weakened": (
        ("required_approvals: 2", "required_approvals: 1"),
        ("{groups: [sre], users: [alice]}", "{groups: [sre, interns]}"),
        ("prevent_self_approval: [starter]", "on_timeout: approve"),
    ),
    "approval_changed": (("users: [alice]", "users: []"), ("deadline: 48h", "deadline: 24h")),
    "secret_added": (
        ("secrets: [DEPLOY_TOKEN]", "secrets: [DEPLOY_TOKEN, STATUS]"),
        ('url: "https://status.example.test/"}', 'url: "https://status.example.test/", headers: {x: "${{ secrets.STATUS }}"}}'),
    ),
    "secret_spread": (
        ('url: "https://status.example.test/"}', 'url: "https://status.example.test/", headers: {x: "${{ secrets.DEPLOY_TOKEN }}"}}'),
    ),
    "secret_removed": (
        ("secrets: [DEPLOY_TOKEN]\n", ""),
        ('      headers: {authorization: "Bearer ${{ secrets.DEPLOY_TOKEN }}"}\n', ""),
    ),
    "secret_to_another_host": (("https://deploy.example.test\"}", "https://elsewhere.example.test\"}"),),
    "target_changed": (("https://status.example.test/", "https://health.example.test/"),),
    "method_changed": (("{method: GET,", "{method: PUT,"),),
    "retry_made_unsafe": (("{method: GET,", "{method: POST,"),),
    "retry_added": (("    timeout: 10m\n", "    timeout: 10m\n    retry: {max_attempts: 3}\n"),),
    "retry_by_defaults": (("timeout: 24h\n", "timeout: 24h\ndefaults: {retry: {max_attempts: 2}}\n"),),
    "retry_changed": (("max_attempts: 5", "max_attempts: 4"),),
    "retry_removed": (("    retry: {max_attempts: 5}\n", ""),),
    "input_required": (("required: [service]", "required: [service, size]"),),
    "input_removed": (("    size: {type: string, enum: [s, m, l]}\n", ""),),
    "input_narrowed": (("enum: [s, m, l]", "enum: [s, m]"),),
    "input_added": (("    service: {type: string}\n", "    service: {type: string}\n    region: {type: string}\n"),),
    "schedule_changed": (("0 6 * * *", "0 5 * * *"),),
    "schedule_added": (("triggers:\n", 'triggers:\n  - {id: hourly, type: schedule, cron: "0 * * * *"}\n'),),
    "webhook_unsigned": ((" secret: HOOK_SECRET,", ""),),
    "webhook_changed": (("secret: HOOK_SECRET, inputs: {service: web}", "secret: HOOK_SECRET, inputs: {service: api}"),),
    "timeout_shortened": (("timeout: 10m", "timeout: 60s"), ("timeout: 24h", "timeout: PT12H")),
    "timeout_lengthened": (("    timeout: 10m\n", "    timeout: 1h\n"),),
    "timeout_to_the_default": (("    timeout: 10m\n", ""),),
    "concurrency_changed": (("limit: 1}", "limit: 2}"), ("max_concurrency: 20", "max_concurrency: 5")),
    "code_changed": (("deploys:apply", "deploys:replace"),),
    "child_changed": (("ref: same", "ref: latest"),),
    "condition_changed": (("inputs.size == 'l'", "inputs.size != 's'"),),
    "failure_handling": (
        ('        compensate: {activity_type: python_function, config: {function: "deploys:undo"}}\n', ""),
        ("  - id: probe\n", "  - id: probe\n    continue_on_failure: true\n"),
        ("  - {id: unlock,", "  - {id: free,"),
    ),
    "task_removed": (("  - {id: note, type: set, depends_on: [smoke], when: \"${{ inputs.size == 'l' }}\", values: {large: true}}\n", ""),),
    "task_added": (("outputs: {image: \"${{ tasks", "  - {id: more, type: set, values: {a: 1}}\noutputs: {image: \"${{ tasks"),),
    "order_loosened": (("depends_on: [build, probe]", "depends_on: [build]"),),
    "order_tightened": (("depends_on: [rollout]", "depends_on: [rollout, probe]"),),
    "outputs_changed": (("outputs: {image: \"${{ result.body.image }}\"}", "outputs: {image: \"${{ result.body.name }}\"}"),),
    "cache_changed": (("max_age: 1h", "max_age: 2h"),),
    "placement_changed": (("    retry: {max_attempts: 5}\n", "    retry: {max_attempts: 5}\n    task_queue: gpu\n"),),
    "config_changed": (("/build\"", "/builds\""),),
    "text_changed": (("Build and roll out", "Builds, rolls out"), ("message: Deploy?", "message: Deploy it?"), ("Build image", "Build")),
}  # fmt: skip
"""Name of the golden plan → (text of the base, text in its place)."""


STORY = """\
name: story
inputs: {type: object, properties: {size: {type: string, default: s}, note: {type: string}}, required: [size]}
env: {host: "https://books.example.test"}
triggers:
  - {id: ordered, type: webhook, secret: HOOK, inputs: {size: m}}
on_task_failure: drain
tasks:
  - id: each
    type: map
    items: "${{ [1, 2, 3] }}"
    as: number
    max_concurrency: 2
    tolerated_failures: 1
    tasks: [{id: work, type: set, values: {n: "${{ number }}"}}]
    results: "${{ tasks.work.outputs.n }}"
  - id: polled
    type: loop
    state: {n: 0}
    tasks: [{id: look, type: set, values: {n: "${{ state.n }}"}}]
    next: {n: "${{ state.n + 1 }}"}
    until: "${{ state.n > 3 }}"
    interval: 10s
    max_iterations: 9
  - id: asked
    type: group
    depends_on: [each]
    tasks:
      - {id: gate, activity_type: human_approval, config: {message: Go?, deadline: 2d, on_timeout: approve}}
      - {id: inside, type: set, depends_on: [gate], values: {x: 1}}
    outputs: {x: "${{ tasks.inside.outputs.x }}"}
  - {id: paid, type: signal, depends_on: [asked], signal: payment, correlation: a, timeout: 1d}
  - {id: soak, type: wait, depends_on: [paid], duration: 1d}
  - id: book
    activity_type: http_request
    depends_on: [soak]
    config: {method: POST, url: "${{ env.host }}/book", expected_status: [201]}
    concurrency: {group: books, limit: 2}
    compensate:
      activity_type: http_request
      config: {method: DELETE, url: "https://books.example.test/book", headers: {authorization: "${{ secrets.BOOKS }}"}}
  - {id: child, type: workflow, depends_on: [book], workflow: "${{ inputs.size }}-child", one_of: [s-child, m-child], inputs: {a: 1}}
  - {id: over, type: end, depends_on: [child], when: "${{ inputs.size == 's' }}", status: COMPLETED, message: Done}
secrets: [BOOKS]
"""

CONSTRUCTS: dict[str, tuple[tuple[str, str], ...]] = {
    "map_items": (("[1, 2, 3]", "[1, 2]"),),
    "map_of_another_size": (("max_concurrency: 2", "max_concurrency: 3"), ("tolerated_failures: 1", "tolerated_failures: 2")),
    "map_inside": (('values: {n: "${{ number }}"}', 'values: {n: "${{ number * 2 }}"}'),),
    "map_results": (("${{ tasks.work.outputs.n }}", "${{ tasks.work.outputs.n + 1 }}"),),
    "loop_ends_otherwise": (("state.n > 3", "state.n > 4"), ("max_iterations: 9", "max_iterations: 5")),
    "loop_turns_otherwise": (("state.n + 1", "state.n + 2"), ("interval: 10s", "interval: 5s"), ("state: {n: 0}", "state: {n: 1}")),
    "group_no_longer_awaited": (("depends_on: [asked]", "depends_on: [each]"),),
    "group_may_fail": (("    type: group\n", "    type: group\n    continue_on_failure: true\n"),),
    "approval_passes_sooner": (("deadline: 2d", "deadline: 1h"),),
    "signal_changed": (("signal: payment, correlation: a", "signal: paid, correlation: b"),),
    "signal_timeout_shortened": (("correlation: a, timeout: 1d", "correlation: a, timeout: 1h"),),
    "wait_changed": (("duration: 1d", "duration: 1m"),),
    "end_changed": (("status: COMPLETED", "status: FAILED"),),
    "expected_status_changed": (("[201]", "[201, 409]"),),
    "task_concurrency_changed": (("group: books, limit: 2", "group: books, limit: 1"),),
    "undo_goes_elsewhere": (("https://books.example.test/book", "https://elsewhere.example.test/book"),),
    "undo_removed": (
        ("    compensate:\n      activity_type: http_request\n", ""),
        ('      config: {method: DELETE, url: "https://books.example.test/book", headers: {authorization: "${{ secrets.BOOKS }}"}}\n', ""),
    ),
    "child_of_another_choice": (("one_of: [s-child, m-child]", "one_of: [s-child, l-child]"), ("inputs: {a: 1}", "inputs: {a: 2}")),
    "webhook_inputs": (("inputs: {size: m}", "inputs: {size: l}"),),
    "webhook_removed": (("triggers:\n  - {id: ordered, type: webhook, secret: HOOK, inputs: {size: m}}\n", ""),),
    "webhook_secret_changed": (("secret: HOOK", "secret: OTHER"),),
    "input_default_changed": (("default: s", "default: m"),),
    "input_default_removed": (("{type: string, default: s}", "{type: string}"),),
    "failures_end_the_run": (("on_task_failure: drain", "on_task_failure: cancel"),),
}  # fmt: skip
"""The same for what the language has beside activities: maps, loops, groups, signals, children, undoing."""

SAME = (
    ("name: story\n", "# The same story, told again.\nname: story # as before\n"),
    ("secrets: [BOOKS]\n", ""),
    ("on_task_failure: drain\n", "secrets:\n  - BOOKS\non_task_failure: drain\n"),
    ("duration: 1d", "duration: 24h"),
    ("max_iterations: 9", "max_iterations: 9\n    run_on: success"),
)
"""Comments, order, defaults and units."""

HOSTILE = {
    "`${{ inputs.size }}`": "`a` ``b``",
    "mention": "@everyone and @you/team, #1, GH-2, you/flows#3",
    "link": "[free](https://evil.example.test) ![x](https://evil.example.test/x.png) www.evil.example.test",
    "html": "</details><script>alert(1)</script><!-- pinflow-plan --> &lt;",
    "table": "| a | b |\\|",
    "lines": "\n\n# Title\n\n- [x] done",
    "steering": "\x1b[2J\u202e\u200b",
}
"""Values that would be something else in Markdown, HTML or a terminal."""


def edited(name: str, text: str = RELEASE, edits: Mapping[str, tuple[tuple[str, str], ...]] = EDITS) -> str:
    """A definition after an edit; each text of it must stand there."""
    for old, new in edits[name]:
        assert old in text, (name, old)
        text = text.replace(old, new)
    return text


def plan_of(name: str, path: str, old: str, new: str) -> Plan:
    """The plan of one definition."""
    found = plan_definition(name, path, old.encode(), new.encode())
    return Plan(BASE, HEAD, (found,) if found else ())


SMALL = "name: {name}\ntasks: [{{id: a, type: set, values: {{x: 1}}}}]\n"
FUNCTION = 'name: calls\ntasks: [{id: a, activity_type: python_function, config: {function: "m:f"}}]\n'


def plan_of_files() -> dict[str, Plan]:
    """Plans of whole files: by name of the golden plan."""
    one = SMALL.format(name="one")
    sets: dict[str, list[FileChange]] = {
        "definition_added": [FileChange("workflows/one.yaml", None, one.encode())],
        "definition_retired": [FileChange("workflows/one.yaml", one.encode(), None)],
        "definition_moved": [
            FileChange("workflows/one.yaml", one.encode(), None),
            FileChange("workflows/deep/one.yaml", None, b"# moved\n" + one.encode()),
        ],
        "definition_moved_and_changed": [
            FileChange("workflows/one.yaml", one.encode(), None),
            FileChange("workflows/deep/one.yaml", None, one.replace("x: 1", "x: 2").encode()),
        ],
        "definition_renamed": [
            FileChange("workflows/one.yaml", one.encode(), SMALL.format(name="two").encode()),
        ],
        "definition_rewritten": [
            FileChange("workflows/one.yaml", one.encode(), b'# a comment\ntasks: [{values: {"x": 1}, type: set, id: "a"}]\nname: "one"\n')
        ],
        "definition_invalid": [FileChange("workflows/one.yaml", one.encode(), one.replace("type: set", "type: sett").encode())],
        "functions_changed": [
            FileChange("workflows/calls.yaml", FUNCTION.encode(), FUNCTION.encode(), ("workflows/functions/m.py",)),
            FileChange("workflows/one.yaml", one.encode(), one.encode(), ("workflows/functions/m.py",)),
        ],
        "nothing": [],
        "rewritten_story": [FileChange(STORY_PATH, STORY.encode(), told_again().encode())],
        "hostile_values": [FileChange("workflows/one.yaml", one.encode(), hostile().encode())],
        "every_change_at_once": [
            FileChange("workflows/a.yaml", one.replace("one", "a").encode(), one.replace("one", "a").replace("x: 1", "x: 2").encode()),
            FileChange("workflows/b.yaml", one.replace("one", "b").encode(), None),
            FileChange("workflows/c.yaml", None, one.replace("one", "c").encode()),
            FileChange("workflows/d.yaml", one.replace("one", "d").encode(), None),
            FileChange("workflows/deep/d.yaml", None, one.replace("one", "d").encode()),
            FileChange("workflows/e.yaml", one.replace("one", "e").encode(), b"# told\n" + one.replace("one", "e").encode()),
        ],
    }  # fmt: skip
    return {name: make_plan(BASE, HEAD, files, types=ActivityTypes.default()) for name, files in sets.items()}


def told_again() -> str:
    """The story in other words."""
    text = STORY
    for old, new in SAME:
        assert old in text, old
        text = text.replace(old, new)
    return text


def hostile() -> str:
    """A definition of which each value would be something else where it is shown."""
    return f"name: one\ntasks: [{{id: a, type: set, values: {json.dumps(HOSTILE)}}}]\n"


def met() -> Plan:
    """What a server adds: open runs, parents, triggers, recorded runs; the words of others among them hostile."""
    planned = plan_of("release", PATH, RELEASE, edited("approval_bypassed")).definitions[0]
    production = Live(
        "production", "1" * 40, True,
        runs=(
            RunsOfVersion("1" * 40, 3, {"RUNNING": 2, "WAITING": 1}, "2026-06-01T12:00:00+00:00"),
            RunsOfVersion("2" * 40, 1, {"PAUSED": 1}, "2026-05-01T12:00:00+00:00"),
        ),
        parents=("nightly", "weekly"),
        triggers=("schedule nightly (0 6 * * *)", "webhook pushed"),
        replayed=5,
        differ=(
            Replayed("run-1", "1" * 40, "gate", "COMPLETED", NOT_THERE, "COMPLETED", "COMPLETED"),
            Replayed("run-2", "1" * 40, "note", NOT_THERE, "RUNNING, of which nothing is recorded", "COMPLETED", ""),
            Replayed("run-3", "1" * 40, "build", "COMPLETED", "FAILED", "COMPLETED", "FAILED"),
            Replayed("run-4", "1" * 40, "", "started", "refused: inputs: 'size' is a required property", "COMPLETED"),
        ),
        unknown=(NotReplayed("run-5", "it ended TIMED_OUT"), NotReplayed("run-6", "@you/team [x](https://x.example.test) #1")),
    )  # fmt: skip
    staging = Live(
        "staging", "3" * 40, unknown=(NotReplayed("run-7", "what the tasks inside of each gave is not kept"),)
    )
    live = (production, staging, Live("@you/team"))
    return Plan(BASE, HEAD, (replace(planned, live=live),), server="https://pinflow.example.test")


def plans() -> dict[str, Plan]:
    """Every golden plan by its name."""
    released = {name: plan_of("release", PATH, RELEASE, edited(name)) for name in EDITS}
    told = {name: plan_of("story", STORY_PATH, STORY, edited(name, STORY, CONSTRUCTS)) for name in CONSTRUCTS}
    return released | told | plan_of_files() | {"met_on_a_server": met()}


def main() -> None:
    """Write the golden files anew."""
    for stale in GOLDEN.iterdir():
        stale.unlink()
    for name, plan in plans().items():
        for form, write in FORMATS.items():
            (GOLDEN / f"{name}.{SUFFIXES[form]}").write_text(write(plan), encoding="utf-8")


if __name__ == "__main__":
    main()
