"""The comment on a pull request as a forge reads it: nothing that files or rows say is anything but code there."""

from __future__ import annotations

from itertools import chain

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from engine.planning.plans import Plan
from engine.planning.reports import MARKER, as_markdown
from tests.unit.planning.edits import HOSTILE, plans

PLANS = plans()
OURS = {"text", "code_inline", "strong_open", "strong_close", "softbreak"}


def parsed(plan: Plan) -> list[Token]:
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(as_markdown(plan))


def inline(plan: Plan) -> list[Token]:
    return list(chain.from_iterable(token.children or () for token in parsed(plan)))


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_comment_holds_words_of_ours_and_code(plan: Plan) -> None:
    assert {token.type for token in inline(plan)} <= OURS
    assert [token.content.strip() for token in parsed(plan) if token.type == "html_block"] == [MARKER]
    ours = "".join(token.content for token in inline(plan) if token.type == "text")
    assert not {"@", "#", "://", "www.", "<"} & {
        sign for sign in ("@", "#", "://", "www.", "<") if sign in ours
    }


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_table_has_a_row_of_four_cells_for_each_change(plan: Plan) -> None:
    tokens = [token.type for token in parsed(plan)]
    assert tokens.count("td_open") == 4 * sum(len(each.changes) for each in plan.definitions)


def test_hostile_values_are_shown_as_they_are() -> None:
    shown = [token.content for token in inline(PLANS["hostile_values"]) if token.type == "code_inline"]
    for name in ("mention", "html", "link"):
        assert HOSTILE[name] in shown
