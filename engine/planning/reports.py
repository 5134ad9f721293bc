"""A plan as people read it: in a terminal, and as the comment of a pull request. What programs read is `Plan.to_json`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Final

from engine.core.contracts import Json
from engine.planning.plans import LEVELS, NOT_THERE, Change, DefinitionPlan, Live, Plan, Replayed

MARKER: Final = "<!-- pinflow-plan -->"
"""First line of a comment: by it the next plan of the same pull request finds the one that it replaces."""
MAX_MARKDOWN: Final = 60_000
"""Characters: forges take little more than 65,000."""
_MAX_VALUE: Final = 100
_TITLE_LINES: Final = 6
"""Of a definition in Markdown, up to its first change."""
_SIGNS: Final = {
    "added": "+", "changed": "~", "moved": ">", "retired": "-", "rewritten": "=", "invalid": "!",
}  # fmt: skip
_WORDS: Final = {
    "added": "added", "changed": "changed", "moved": "moved", "retired": "retired",
    "rewritten": "rewritten without a change of meaning", "invalid": "invalid",
}  # fmt: skip
_BADGES: Final = {"high": "🔴 high", "medium": "🟠 medium", "low": "🟡 low", "none": "⚪ none"}


def as_json(plan: Plan) -> str:
    """The plan for programs."""
    return json.dumps(plan.to_json(), indent=2, ensure_ascii=False) + "\n"


def as_text(plan: Plan) -> str:
    """The plan for a terminal: what is worst first."""
    lines = [f"plan {_range(plan)}: {_summary(plan)}"]
    lines += [f"note: {_plain(note)}" for note in plan.notes]
    if plan.problems:
        lines += ["", *(_plain(str(problem)) for problem in plan.problems)]
    for definition in plan.definitions:
        lines += ["", *_text_of(definition)]
    return "\n".join(lines) + "\n"


def as_markdown(plan: Plan) -> str:
    """The plan for the comment of a pull request. Nothing of the files is read as Markdown there."""
    head = [MARKER, "### Pinflow plan", "", f"`{_range(plan)}`: {_summary(plan)}", ""]
    head += [f"> {_code(note)}\n" for note in plan.notes]
    if plan.problems:
        head += ["**This change would be refused.**", ""]
    made = "\n".join(head).rstrip("\n") + "\n\n"
    problems = [f"- {_code(str(problem))}" for problem in plan.problems]
    made, left = _fitted(made, problems)
    if left:
        return made + _left_out(f"{left} more problem{'' if left == 1 else 's'}")
    made += "\n" if problems else ""
    for number, definition in enumerate(plan.definitions):
        lines = list(_markdown_of(definition))
        fitted, left = _fitted(made, lines)
        if left:
            # Of one that is too long the worst is told: a table or a list may end after any of its rows.
            begun = len(lines) - left > _TITLE_LINES
            rest = len(plan.definitions) - number - begun
            parts = [f"more of {_code(definition.name or '?')}"] if begun else []
            parts += [f"{rest} more definition{'' if rest == 1 else 's'}"] if rest else []
            return (fitted if begun else made) + _left_out(" and ".join(parts))
        made = fitted + "\n"
    return made.rstrip("\n") + "\n"


def _fitted(made: str, lines: list[str]) -> tuple[str, int]:
    """A text with as many of the lines as there is room for, and how many there is none for."""
    room = MAX_MARKDOWN - len(made)
    for number, line in enumerate(lines):
        room -= len(line) + 1
        if room < 0:
            return made + "".join(f"{each}\n" for each in lines[:number]), len(lines) - number
    return made + "".join(f"{each}\n" for each in lines), 0


def _left_out(what: str) -> str:
    return f"\n…and {what} did not fit here: run `pinflow plan` for all of it.\n"


FORMATS: Final[dict[str, Callable[[Plan], str]]] = {
    "text": as_text,
    "json": as_json,
    "markdown": as_markdown,
}


def _range(plan: Plan) -> str:
    return f"{_shortened(plan.base)}..{_shortened(plan.head)}"


def _shortened(sha: str) -> str:
    return sha[:12] if len(sha) >= 40 and all(letter in "0123456789abcdef" for letter in sha) else sha


def _summary(plan: Plan) -> str:
    counted = plan.counted()
    if plan.problems:
        number = len(plan.problems)
        return f"refused, {number} problem{'' if number == 1 else 's'}"
    if not counted:
        return "no definition changes"
    told = ", ".join(f"{counted[kind]} {word}" for kind, word in _WORDS.items() if kind in counted)
    return f"{told}; risk: {plan.level}"


# --- text -------------------------------------------------------------------------------------------------------------


def _text_of(definition: DefinitionPlan) -> Iterator[str]:
    moved = f" (from {definition.old_path})" if definition.old_path else ""
    title = f"{_SIGNS[definition.change]} {definition.name or '?'}  {definition.path}{moved}"
    yield _plain(f"{title}: {_WORDS[definition.change]}")
    for change in definition.changes:
        place = f"{change.path}: " if change.path else ""
        yield _plain(f"    {change.level:<6}  {change.code}  {place}{_values(change, _shown)}".rstrip(": "))
        yield _plain(f"            {_where(definition, change)}{change.why}")
    for live in definition.live:
        for line in _live_lines(live, _plain):
            yield f"    {line}"


def _where(definition: DefinitionPlan, change: Change) -> str:
    return f"{definition.path}:{change.line}: " if change.line and change.path else ""


def _values(change: Change, shown: Callable[[Json], str]) -> str:
    match change.kind:
        case "added":
            return f"+ {shown(change.new)}" if change.path else ""
        case "removed":
            return f"- {shown(change.old)}" if change.path else ""
    if change.old is None:
        return shown(change.new)
    return f"{shown(change.old)} → {'nothing' if change.new is None else shown(change.new)}"


def _shown(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"


def _plain(text: str) -> str:
    """Without control characters: what a file says must not steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


# --- what only a server knows -----------------------------------------------------------------------------------------


def _live_lines(live: Live, shown: Callable[[str], str]) -> Iterator[str]:
    """What a definition meets in one source; `shown` shows what comes from files and rows."""
    source = shown(live.source)
    if not live.commit_sha:
        yield f"{source}: not live"
    else:
        same = (
            "the base of this plan" if live.is_base else "which is another version than the base of this plan"
        )
        yield f"{source}: live at {shown(live.commit_sha[:12])}, {same}"
    for runs in live.runs:
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(runs.statuses.items()))
        since = f", the oldest since {_moment(runs.oldest)}" if runs.oldest else ""
        number = f"{runs.count} open run{'' if runs.count == 1 else 's'}"
        ends = "ends" if runs.count == 1 else "each ends"
        yield f"  {number} of {shown(runs.commit_sha[:12])} ({statuses}{since}): {ends} as it began"
    if live.parents:
        yield f"  started as a child by: {', '.join(map(shown, live.parents))}"
    if live.triggers:
        yield f"  starts by itself: {', '.join(map(shown, live.triggers))}"
    if live.replayed:
        yield f"  {len(live.differ)} of {live.replayed} recorded runs would go another way"
    elif live.unknown:
        yield "  no recorded run could be compared"
    for run in live.differ:
        yield f"    {shown(run.run)}: {_another_way(run, shown)}"
    for unknown in live.unknown:
        yield f"    {shown(unknown.run)}: not compared: {shown(unknown.why)}"


def _moment(iso: str) -> str:
    """`2026-06-01T12:00:00+00:00`, as people read it."""
    day, _, time = iso.partition("T")
    return f"{day} {time[:5]} UTC" if time.endswith(("+00:00", "Z")) else iso


def _another_way(run: Replayed, shown: Callable[[str], str]) -> str:
    was = "was not there" if run.was == NOT_THERE else f"was {run.was}"
    would = "would not be there" if run.would == NOT_THERE else f"would be {shown(run.would)}"
    told = f"{shown(run.task) if run.task else 'the run'} {was}, {would}"
    if run.task and run.would_end not in ("", run.status):
        told += f"; it ended {run.status} and would end {run.would_end}"
    return told


# --- Markdown ---------------------------------------------------------------------------------------------------------


def _markdown_of(definition: DefinitionPlan) -> Iterator[str]:
    moved = f", moved from {_code(definition.old_path)}" if definition.old_path else ""
    badge = f" · {_BADGES[definition.level]}" if definition.changes else ""
    yield f"#### {_code(definition.name or '?')} {_WORDS[definition.change]}{badge}"
    yield ""
    yield f"{_code(definition.path)}{moved}"
    if definition.changes:
        yield ""
        yield "| risk | what | where | change |"
        yield "|---|---|---|---|"
    for change in sorted(definition.changes, key=lambda each: LEVELS.index(each.level)):
        where = f"{_code(change.path, cell=True)}" if change.path else ""
        line = f" line {change.line}" if change.line and change.path else ""
        values = _values(change, lambda value: _code(_shown(value), cell=True))
        yield f"| {_BADGES[change.level]} | **{change.code}**: {change.why} | {where}{line} | {values} |"
    for live in definition.live:
        yield ""
        for line in _live_lines(live, _code):
            yield f"{'  ' * (_indent(line) // 2)}- {line.strip()}"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _code(text: str, *, cell: bool = False) -> str:
    """Text as a code span, whatever it holds: nothing in it is Markdown, a mention or a link."""
    text = _plain(text)
    if cell:
        # A bar ends the cell, also inside of a code span, unless an odd number of backslashes stands before it.
        text = re.sub(r"(\\*)\|", lambda found: found[1] * 2 + "\\|", text)
    longest = run = 0
    for letter in text:
        run = run + 1 if letter == "`" else 0
        longest = max(longest, run)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"
