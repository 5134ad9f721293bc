"""The door: every class of the error tree has a status, and every answer has the shape of RFC 9457."""

from __future__ import annotations

import json

import pytest

from engine import errors
from engine.api.problems import MEDIA_TYPE, STATUS, TITLES, TYPES, of_error, problem


def tree(kind: type[errors.PinflowError]) -> list[type[errors.PinflowError]]:
    """The classes below `kind`."""
    return [inner for sub in kind.__subclasses__() for inner in (sub, *tree(sub))]


def test_every_class_of_the_tree_has_a_status_and_every_status_a_title() -> None:
    own = [kind for kind in tree(errors.PinflowError) if kind.__module__ == "engine.errors"]
    assert set(own) == set(STATUS)
    assert set(STATUS.values()) <= set(TITLES)


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (errors.Unavailable("away", retry_after=2.4), 503, ("retry-after", "3")),
        (errors.Unauthenticated("who?"), 401, ("www-authenticate", 'Bearer realm="pinflow"')),
        (errors.NotFound("no x", hint="there is y"), 404, None),
        (errors.SourceError("gone", reason="BranchGone"), 502, None),
    ],
)
def test_an_error_becomes_a_problem(
    error: errors.PinflowError, status: int, header: tuple[str, str] | None
) -> None:
    answer = of_error(error)
    body = json.loads(bytes(answer.body))
    assert (answer.status_code, answer.media_type) == (status, MEDIA_TYPE)
    assert (body["status"], body["detail"], body["code"]) == (status, error.message, error.code)
    assert body["type"] == TYPES + TITLES[status][0]
    if header is not None:
        assert answer.headers[header[0]] == header[1]


def test_located_problems_are_carried_along() -> None:
    fault = errors.Problem("YAML", "no", file="a.yaml", line=3, column=7)
    body = json.loads(bytes(of_error(errors.InvalidDefinition([fault])).body))
    assert body["problems"] == [fault.to_json()]
    missing = errors.InvalidInput("no", [errors.InputProblem("/inputs/a", "missing")])
    assert json.loads(bytes(of_error(missing).body))["problems"] == [
        {"pointer": "/inputs/a", "message": "missing"}
    ]


def test_text_that_has_no_utf_8_does_not_break_the_answer() -> None:
    assert json.loads(bytes(problem(404, "no \ud800").body))["detail"].startswith("no ")
