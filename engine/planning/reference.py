"""The text of `docs/reference/plan.md`: `python -m engine.planning.reference`."""

from __future__ import annotations

import sys

from engine.planning.risks import RULES

_HEAD = """\
# Plans

Generated from `engine/planning/risks.py` by `make schemas`; a test holds it. How to use one:
[Plan a change before it is merged](../how-to/plan-a-change.md).

A plan compares the two ends of a range of commits, definition by definition, in meaning and not in text. These are no
change: comments, the order of keys and of tasks, quotes and formatting, a default written out, a duration in other
units, blanks in an expression, a retry that moves to `defaults` and takes effect as before. A definition of which
nothing but such things has changed is told as *rewritten*: the sync daemon registers a version for its new bytes.

Each change is told by its path, with the ids of tasks: `tasks.gate.config.required_approvals`. An *effect* is a change
at a place where nothing was written, such as an approval that a task no longer waits for.

## Risks

The first rule that holds decides; they stand in this order, worst first. A plan is as risky as its worst change.

| risk | code | what may come of it |
|---|---|---|
"""

_TAIL = """
## What is done to a definition

| change | meaning |
|---|---|
| `added` | the name is new |
| `changed` | the name stands at both ends, and means something else; it may have moved as well (`old_path`) |
| `moved` | the file stands elsewhere, and says the same |
| `retired` | the name stands no more; a new name is an `added` and a `retired` |
| `rewritten` | other text, the same meaning |
| `invalid` | the file at the head has problems: the plan would be refused as a whole |

## JSON

`{format, base, head, server, valid, level, definitions, problems, notes}`. `format` is 1. A definition is
`{name, change, path, old_path, level, changes, live}`, a change
`{path, kind, old, new, level, code, why, line, column}`; `kind` is `added`, `removed`, `changed` or `effect`, and `old`
and `new` are as in the files, null for what was not there. Problems are those of `pinflow validate --format json`.
"""


def reference_page() -> str:
    """The whole page."""
    rows = [f"| {rule.level} | `{rule.code}` | {rule.why} |" for rule in RULES]
    return _HEAD + "\n".join(rows) + "\n" + _TAIL


if __name__ == "__main__":
    sys.stdout.write(reference_page())
