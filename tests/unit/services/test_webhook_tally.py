"""What the operator is told of webhooks that are refused, and what a flood cannot do to the log."""

from __future__ import annotations

from structlog.testing import capture_logs

from engine.services.webhook_tally import WebhookTally


def test_a_flood_is_counted_whole_and_told_once_a_minute() -> None:
    now = 0.0
    tally = WebhookTally(clock=lambda: now)
    with capture_logs() as told:
        for _ in range(1000):
            tally.refused("trigger", "no_secret", "/hooks/main/report/pushed", reason="not set")
        now = 61.0
        tally.refused("trigger", "no_secret", "/hooks/main/report/pushed", reason="not set")
    assert tally.counts["trigger", "no_secret"] == 1001
    assert [(line["log_level"], line["webhook"]) for line in told] == [
        ("error", "/hooks/main/report/pushed")
    ] * 2


def test_names_that_strangers_make_up_are_neither_told_nor_kept() -> None:
    tally = WebhookTally()
    with capture_logs() as told:
        for _ in range(1000):
            tally.refused("trigger", "unsigned")
    assert told == []
    assert tally.counts["trigger", "unsigned"] == 1000
