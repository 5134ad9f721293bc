"""Ids, cursors, roles, and inputs before they reach a database."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Forbidden, InvalidInput
from engine.services import cursors
from engine.services.callers import Caller
from engine.services.ids import new_id
from engine.services.inputs import canonical, pointer


def test_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {uuid.UUID(each).version for each in ids} == {7}
    assert {uuid.UUID(each).variant for each in ids} == {uuid.RFC_4122}
    assert [each[:13] for each in ids] == sorted(each[:13] for each in ids)


@given(
    st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.integers(0, 2**62)
)
def test_a_cursor_gives_back_its_keys(text: str, number: int) -> None:
    assert cursors.decode(cursors.encode(text, number), str, int) == (text, number)


@given(st.text(max_size=100))
def test_a_forged_cursor_is_refused_or_holds_what_it_must(cursor: str) -> None:
    try:
        keys = cursors.decode(cursor, int, str)
    except InvalidInput:
        return
    assert keys is None or [type(key) for key in keys] == [int, str]


@pytest.mark.parametrize(
    ("roles", "may"),
    [
        ({"viewer"}, {"viewer"}),
        ({"operator"}, {"viewer", "operator"}),
        ({"approver"}, {"viewer", "approver"}),
        ({"operator", "approver"}, {"viewer", "operator", "approver"}),
        ({"admin"}, {"viewer", "operator", "approver", "admin"}),
        ({"god"}, set()),
        (set(), set()),
    ],
)
def test_a_role_includes_what_it_says(roles: set[str], may: set[str]) -> None:
    caller = Caller("x", frozenset(roles))
    for role in ("viewer", "operator", "approver", "admin"):
        if role in may:
            caller.require(role)
        else:
            with pytest.raises(Forbidden):
                caller.require(role)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\x00", {"\x00": 1}, ["a\x00"], "\ud800"])
def test_what_postgres_cannot_keep_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        canonical({"a": value}, "inputs")
    assert refused.value.problems[0].pointer == "/inputs"


@pytest.mark.parametrize("value", ["\\u0000", "\\\\u0000", "ü", 10**30, None, {"b": 1, "a": [True]}])
def test_everything_else_is_kept(value: Any) -> None:
    assert canonical(value, "inputs")


def test_equal_requests_have_equal_texts() -> None:
    assert canonical({"a": 1, "b": 2}, "inputs") == canonical({"b": 2, "a": 1}, "inputs")


def test_pointers_escape_what_they_must() -> None:
    assert pointer("inputs", "a/b", "c~d", 0) == "/inputs/a~1b/c~0d/0"
