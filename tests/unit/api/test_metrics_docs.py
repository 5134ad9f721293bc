"""The page on production names every metric, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from engine.api.metrics import Metrics
from engine.services.health import Figures
from engine.services.webhook_tally import WebhookTally

PAGE = Path(__file__).parents[3] / "docs/how-to/run-in-production.md"


def test_the_page_names_every_metric() -> None:
    metrics = Metrics()
    metrics.seen("GET", "/", 200, 0.1)
    figures = Figures(
        open_runs={},
        pending_approvals=0,
        outbox={"waiting": 0, "parked": 0, "oldest": 0},
        sources=[],
        forge_messages={},
        forge_oldest=0,
        proposals={},
        proposals_oldest=0,
    )
    told = set(
        re.findall(r"^# TYPE (pinflow_\S+)", metrics.page(figures, WebhookTally()).decode(), re.MULTILINE)
    )
    told = {name for name in told if not name.endswith("_created")}
    named = {name for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `pinflow_")
             for name in re.findall(r"`(pinflow_\w+)`", line)}  # fmt: skip
    assert named == told
