"""Named fault points: places where a process may die between two stores.

A point does nothing unless `PINFLOW_FAULTS` names it, as `name=action` or `name=action:nth`, comma-separated.
Actions: `kill` (SIGKILL to this process), `error` (raise `InjectedFault`), `hang` (for an hour).
With `nth`, only the nth visit acts.  A sweep reads `POINTS` and shows that each was hit; an unknown name is refused,
so that a renamed point cannot turn a test into one that tests nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter

POINTS: dict[str, str] = {
    "start.before_commit": "a start is checked; one statement is about to write its row, its audit and the intent to start",
    "start.after_commit": "the start is durable, the caller not yet told, Temporal not yet asked",
    "steer.after_commit": "a cancel, a pause or its end is durable, Temporal not yet told",
    "signal.after_commit": "a signal is durable, its run not yet told",
    "callback.after_commit": "a callback is durable and used up, its run not yet told",
    "dispatch.before_send": "an outbox message is claimed, Temporal not yet told",
    "dispatch.after_send": "Temporal was told, the message not yet deleted",
    "decide.after_commit": "a decision is durable, its signal not yet sent",
    "publish.before_commit": "a revision's rows are written, not yet committed",
    "publish.after_commit": "a revision is live, the daemon has not yet noted it",
    "sync.after_fetch": "the mirror has the new commits, the registry does not",
    "record.before_commit": "a run has ended, its last state is not yet in Postgres",
    "record.after_commit": "a run's last state is in Postgres, Temporal does not yet know that it is closed",
    "schedule.before_tell": "a trigger's row is read, Temporal not yet told of it",
    "schedule.after_tell": "Temporal was told of a trigger, its row does not yet say so",
    "fire.after_claim": "a trigger's moment is claimed, its run not yet there",
    "fire.after_start": "the run of a trigger's moment is there, the moment does not yet know of it",
    "propose.after_commit": "a proposal's row is durable, its branch is not yet pushed",
    "propose.before_push": "the proposal's commit is made, and stands nowhere but here",
    "propose.after_push": "the proposal's commit is on the remote, its row does not yet say so",
    "forge.before_send": "a message for a forge is claimed, the forge not yet told",
    "forge.after_send": "the forge was told, the message's row does not yet say so",
    "environment.before_rename": "an environment of functions is made and sealed, and not yet where functions find it",
    "child.after_commit": "a child's row is there, its workflow does not yet know",
    "slot.after_commit": "a slot is held or waited for, the run that asked does not yet know",
    "slice.after_record": "the tasks of a slice are recorded, its run does not yet know that it is over",
    "approval.after_commit": "an approval request is visible, the run does not yet know",
}


class InjectedFault(Exception):
    """Raised by a fault point that a test told to fail."""


_visits: Counter[str] = Counter()


def _action(name: str) -> str:
    if name not in POINTS:
        raise AssertionError(f"fault point {name!r} is not declared in engine/faults.py")
    plan = os.environ.get("PINFLOW_FAULTS", "")
    if not plan:
        return ""
    _visits[name] += 1
    for item in plan.split(","):
        point, _, what = item.strip().partition("=")
        if point not in POINTS:
            raise AssertionError(f"PINFLOW_FAULTS names {point!r}, which is no fault point")
        action, _, nth = what.partition(":")
        if point == name and (not nth or _visits[name] == int(nth)):
            return action
    return ""


def _act(name: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "error":
        raise InjectedFault(f"fault point {name}")


async def point(name: str) -> None:
    """A fault point in asynchronous code."""
    action = _action(name)
    if action == "hang":
        await asyncio.sleep(3600)
    _act(name, action)


def hit(name: str) -> None:
    """A fault point in synchronous code."""
    action = _action(name)
    if action == "hang":
        time.sleep(3600)
    _act(name, action)
