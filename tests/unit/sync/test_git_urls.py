"""URLs of sources: a few are let through, and what is let through is what was meant."""

from __future__ import annotations

import itertools

import pytest

from engine.errors import SourceError
from engine.sync.git_urls import Remote, parse_remote

_FRONTS = [
    "",
    "ext::",
    "ssh://",
    "https://",
    "http://",
    "git://",
    "fd::",
    "file://",
    "-",
    "--upload-pack=",
    "-o",
    "ssh://-o",
]
_MIDDLES = [
    "host",
    "-oProxyCommand=x",
    "$(id)",
    "`id`",
    "a b",
    "user:secret@host",
    "-x@host",
    "host:99999",
    "[::1]",
    "",
]
_ENDS = ["", "/x.git", "/x\n--exec=y", "/x?token=secret", "/x#y", "/../../etc", "/x\0y"]  # fmt: skip
STRINGS = ["".join(parts) for parts in itertools.product(_FRONTS, _MIDDLES, _ENDS)]


def judged(text: str) -> Remote | SourceError:
    try:
        return parse_remote(text)
    except SourceError as error:
        return error


def test_whatever_is_accepted_is_a_plain_remote_of_an_allowed_scheme() -> None:
    assert len(STRINGS) > 800
    found = [judged(text) for text in STRINGS]
    refused = [each for each in found if isinstance(each, SourceError)]
    assert {(error.reason, "secret" in str(error)) for error in refused} == {("InvalidSource", False)}
    for remote in (each for each in found if isinstance(each, Remote)):
        assert remote.scheme in ("https", "ssh", "file")
        assert remote.fetch.startswith(f"{remote.scheme}://")
        assert not remote.fetch.partition("://")[2].startswith("-")
        assert not any(letter in remote.fetch for letter in "\n\0 ")
        assert remote.local is not None or "secret" not in remote.shown


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://git.example.test/x.git", "git.example.test"),
        ("https://token@git.example.test:8443/x.git", "git.example.test:8443"),
        ("ssh://git@[::1]:22/x.git", "[::1]:22"),
        ("/srv/flows", ""),
    ],
)
def test_the_host_is_as_a_credential_names_it(url: str, host: str) -> None:
    assert parse_remote(url).host == host
