"""Every action that the code writes stands in the audit page."""

from __future__ import annotations

import re
from pathlib import Path

from engine.core.triggering import TRIGGER_FIELDS
from engine.faults import POINTS

ROOT = Path(__file__).parents[2]
_ACTION = re.compile(
    r"""["']((?:execution|approval|revision|definition|proposal|token|trigger)\.[a-z_]+)["']"""
)

_NO_ACTIONS = {*POINTS, "definition.yaml", *(f"trigger.{name}" for name in TRIGGER_FIELDS)}
"""What else has such a name: fault points, a file, what expressions read of a trigger."""


def test_every_action_written_by_the_code_is_explained() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "engine").rglob("*.py"))
    page = (ROOT / "docs" / "reference" / "audit.md").read_text(encoding="utf-8")
    written = set(_ACTION.findall(code)) - _NO_ACTIONS
    assert len(written) > 10
    assert sorted(action for action in written if f"| `{action}` |" not in page) == []
