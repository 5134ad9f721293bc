"""The URL of a callback."""

from __future__ import annotations

from engine.core.ids import callback_token, callback_url, childs_key


def test_a_url_names_run_and_task_and_carries_a_token_that_is_good_for_them_alone() -> None:
    url = callback_url({"base": "https://flows.example.test", "key": "k1"}, "run-1", "rollout[3].hook")
    where, _, token = url.partition("?token=")
    assert where == "https://flows.example.test/callbacks/run-1/rollout%5B3%5D.hook"
    assert token == callback_token("k1", "rollout[3].hook")
    others = {
        callback_token("k1", "rollout[4].hook"),
        callback_token(childs_key("k1", "run-2"), "rollout[3].hook"),
    }
    assert token not in others
    assert len(others) == 2
