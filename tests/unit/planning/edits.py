"""Edits of one definition, a kind of change each, whose plans stand in `golden/`.

    .venv/bin/python -m tests.unit.planning.edits

writes them anew; read the difference before you commit it.
"""

from __future__ import annotations

from pathlib import Path

from engine.dsl.activity_types import ActivityTypes
from engine.planning.planner import FileChange, make_plan, plan_definition
from engine.planning.plans import Plan
from engine.planning.reports import FORMATS

GOLDEN = Path(__file__).parent / "golden"
SUFFIXES = {"text": "txt", "json": "json", "markdown": "md"}
BASE, HEAD = "a" * 40, "b" * 40
PATH = "workflows/release.yaml"

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


def edited(name: str) -> str:
    """The release definition after an edit; each text of it must stand there."""
    text = RELEASE
    for old, new in EDITS[name]:
        assert old in text, (name, old)
        text = text.replace(old, new)
    return text


def plan_of(old: str, new: str) -> Plan:
    """The plan of one definition. Not checked: part of what it says is younger than the language."""
    found = plan_definition("release", PATH, old.encode(), new.encode())
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
    }  # fmt: skip
    return {name: make_plan(BASE, HEAD, files, types=ActivityTypes.default()) for name, files in sets.items()}


def plans() -> dict[str, Plan]:
    """Every golden plan by its name."""
    return {name: plan_of(RELEASE, edited(name)) for name in EDITS} | plan_of_files()


def main() -> None:
    """Write the golden files anew."""
    for stale in GOLDEN.iterdir():
        stale.unlink()
    for name, plan in plans().items():
        for form, write in FORMATS.items():
            (GOLDEN / f"{name}.{SUFFIXES[form]}").write_text(write(plan), encoding="utf-8")


if __name__ == "__main__":
    main()
