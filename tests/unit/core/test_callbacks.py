"""The URL of a callback."""

from __future__ import annotations

from engine.core import callbacks


def test_a_url_names_run_and_task_and_carries_a_token_that_is_good_for_them_alone() -> None:
    callback = {"base": "https://flows.example.test", "key": "k1"}
    url = callbacks.url(callback, "run-1", "rollout[3].hook")
    where, _, token = url.partition("?token=")
    assert where == "https://flows.example.test/callbacks/run-1/rollout%5B3%5D.hook"
    assert token == callbacks.token("k1", "rollout[3].hook")
    assert (
        len({token, callbacks.token("k1", "rollout[4].hook"), callbacks.token("k2", "rollout[3].hook")}) == 3
    )


def test_a_run_that_takes_no_callbacks_has_no_url() -> None:
    assert callbacks.url(None, "run-1", "hook") == ""
