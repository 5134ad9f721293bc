"""Triggers: what Temporal's schedules and the webhook door will make of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from engine.dsl import codes, words
from engine.dsl.check_inputs import misfits
from engine.dsl.cron import CronError, check_cron
from engine.dsl.faults import Faults, name_hint, seconds
from engine.dsl.loader import Path, shown
from engine.dsl.structure import closest

ZONES_FILE = __file__.removesuffix("check_triggers.py") + "timezones.txt"
"""The names of the IANA time zones, one a line: the same wherever a definition is checked."""
MIN_CATCHUP = 10.0


def check_triggers(triggers: Any, inputs: Any, inputs_are_known: bool, faults: Faults) -> None:
    """Ids, clocks and inputs of all triggers."""
    first: dict[str, int] = {}
    for index, trigger in enumerate(triggers if isinstance(triggers, list) else ()):
        if not isinstance(trigger, dict):
            continue
        path = ("triggers", index)
        _id(trigger, index, first, faults)
        if trigger.get("type") == "schedule":
            _schedule(trigger, path, faults)
        elif trigger.get("secret") in words.RESERVED_IDS:
            name = trigger["secret"]
            faults.report(codes.NAME, f"`{name}` cannot be a name", (*path, "secret"), hint=name_hint(name))
        is_known = trigger.get("type") in ("schedule", "webhook")
        if is_known and inputs_are_known and isinstance(trigger.get("inputs", {}), dict):
            for each in misfits(inputs, trigger.get("inputs", {})):
                where = (*path, "inputs", *each.path) if "inputs" in trigger else path
                is_key = each.key or ("inputs" in trigger and not each.path)
                faults.report(codes.TRIGGER, each.message, where, hint=each.hint, key=is_key)


def _id(trigger: Mapping[str, Any], index: int, first: dict[str, int], faults: Faults) -> None:
    name = trigger.get("id")
    if not isinstance(name, str):
        return
    path = ("triggers", index, "id")
    if name in words.RESERVED_IDS:
        faults.report(codes.NAME, f"`{name}` cannot be an id", path, hint=name_hint(name))
    if name in first:
        line, _ = faults.document.at_value(("triggers", first[name], "id"))
        faults.report(codes.DUPLICATE_ID, f"a trigger `{name}` stands already in line {line}", path)
    first.setdefault(name, index)


def _schedule(trigger: Mapping[str, Any], path: Path, faults: Faults) -> None:
    cron = trigger.get("cron")
    if isinstance(cron, str):
        _cron(cron, (*path, "cron"), faults)
    for index, each in enumerate(cron if isinstance(cron, list) else ()):
        if isinstance(each, str):
            _cron(each, (*path, "cron", index), faults)
    zone = trigger.get("timezone", "UTC")
    if isinstance(zone, str) and zone != "UTC" and zone not in zones():
        hint = _zone_hint(zone)
        faults.report(codes.TRIGGER, f"there is no time zone `{shown(zone)}`", (*path, "timezone"), hint=hint)
    window = seconds(trigger.get("catchup_window"))
    if window is not None and window < MIN_CATCHUP:
        faults.report(
            codes.TRIGGER, "`catchup_window` is at least 10 seconds", (*path, "catchup_window"),
            hint="what fires late is looked at only every few seconds",
        )  # fmt: skip


def _cron(text: str, path: Path, faults: Faults) -> None:
    if "${{" in text:
        faults.report(
            codes.EXPRESSION_HERE, "an expression may not stand here", path, hint="write the value out"
        )
        return
    try:
        check_cron(text)
    except CronError as error:
        faults.report(codes.TRIGGER, f"not a usable cron: {error.message}", path, hint=error.hint)


def _zone_hint(zone: str) -> str:
    by_lower = {name.lower(): name for name in zones()}
    by_lower |= {name.rpartition("/")[2].lower(): name for name in sorted(zones())}
    wanted = zone.lower().replace(" ", "_")
    if wanted in by_lower:
        return f"did you mean `{by_lower[wanted]}`?"
    near = closest(wanted, list(by_lower))
    found = by_lower.get(near.removeprefix("did you mean `").removesuffix("`?")) if near else None
    return f"did you mean `{found}`?" if found else "a name of the IANA time zones, such as `Europe/Rome`"


@cache
def zones() -> frozenset[str]:
    """The names of the time zones."""
    with open(ZONES_FILE, encoding="utf-8") as file:
        return frozenset(file.read().split())
