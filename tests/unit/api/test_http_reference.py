"""The HTTP page is what the program says."""

from __future__ import annotations

from engine.api import reference


def test_the_page_of_the_http_interface_is_the_generated_one() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `make schemas`"
