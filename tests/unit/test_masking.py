"""No form of a value that a target could send back gets through the mask."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.masking import MASK, SHORTEST, Masker

VALUE = 'pa"ss/wörd+<1>&=\\x\t!'

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda v: v,
    "in a header": lambda v: f"Bearer {v}",
    "JSON": lambda v: json.dumps({"token": v}),
    "JSON without ASCII": lambda v: json.dumps({"token": v}, ensure_ascii=False),
    "JSON in JSON": lambda v: json.dumps({"body": json.dumps({"token": v})}),
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64 behind one byte": lambda v: base64.b64encode(b"x" + v.encode()).decode(),
    "base64 behind two bytes": lambda v: base64.b64encode(b"u:" + v.encode()).decode(),
    "base64 in the middle": lambda v: base64.b64encode(b"user:" + v.encode() + b":more").decode(),
    "base64 for URLs": lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("="),
    "percent": lambda v: quote(v, safe=""),
    "percent, lower": lambda v: (
        quote(v, safe="").replace("%2F", "%2f").replace("%C3%B6", "%c3%b6").lower()
        if v.islower()
        else quote(v, safe="")
    ),
    "path": lambda v: "/x/" + quote(v),
    "form": lambda v: urlencode({"token": v, "other": "1"}),
    "plus": quote_plus,
    "hex": lambda v: v.encode().hex(),
    "HEX": lambda v: v.encode().hex().upper(),
    "HTML": html.escape,
    "Python": repr,
}


def traces(value: str, text: str) -> list[str]:
    """Pieces of the value, in any form, that stand in the text."""
    return [name for name, form in FORMS.items() if form(value) in text]


@pytest.mark.parametrize("form", FORMS)
def test_a_value_is_hidden_in_its_usual_forms(form: str) -> None:
    text = Masker([VALUE]).text(f"before {FORMS[form](VALUE)} after")
    assert VALUE not in text
    assert MASK in text
    assert text.startswith("before ")
    assert text.endswith(" after")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=SHORTEST, max_size=40))
def test_no_value_gets_through_in_any_form(value: str) -> None:
    if len(value.strip()) < SHORTEST:
        return
    masker = Masker([value])
    for name, form in FORMS.items():
        text = masker.text(f"<{form(value)}>")
        assert MASK in text, name


def test_values_are_hidden_in_keys_numbers_and_nested_lists() -> None:
    masker = Masker(["918273645"])
    told: Any = {"x918273645": [{"a": 918273645}, ["918273645"], 5, True, None, 1.5]}
    assert masker.value(told) == {f"x{MASK}": [{"a": MASK}, [MASK], 5, True, None, 1.5]}


def test_what_holds_no_value_stays_as_it_is() -> None:
    told = {"a": [1, "plain text that is long enough to be looked at from both of its ends", None]}
    assert Masker(["another-value"]).value(told) == told
    assert Masker().value(told) is told


def test_each_long_line_of_a_key_is_hidden_on_its_own() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\nshort\n-----END KEY-----"
    assert Masker([key]).text("line 2: MIIEvQIBADANBgkqhkiG") == f"line 2: {MASK}"
    assert Masker([key]).text("-----BEGIN KEY-----") == "-----BEGIN KEY-----"


@pytest.mark.parametrize("cut", range(7, 20))
def test_the_rest_of_a_value_that_was_cut_in_two_is_hidden(cut: int) -> None:
    value = "canary-0123456789-abcdef"
    filler = "x" * 60
    assert Masker([value]).text(filler + value[:cut]) == filler + MASK
    assert Masker([value]).text(value[-cut:] + filler) == MASK + filler


def test_of_two_values_the_longer_one_goes_as_a_whole() -> None:
    assert Masker(["secret-a", "secret-a-and-more"]).text("secret-a-and-more") == MASK
