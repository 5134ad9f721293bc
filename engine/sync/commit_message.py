"""The message and the author of a commit that somebody asked us for. No word of theirs is read as a header or a trailer."""

from __future__ import annotations

import re
from collections.abc import Mapping

TRAILER = "Pinflow-Proposal"
"""Key of the line in the last paragraph by which a proposal's commit is known."""
_UNFIT = re.compile(r"[\x00-\x1f\x7f<>]")


def author(subject: str) -> tuple[str, str]:
    """A caller's subject as the name and the address of a commit's author."""
    name = _UNFIT.sub("", _plain(subject)).strip(" .,:;\"'\\")[:100] or "somebody"
    if re.fullmatch(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+", name):
        return name, name
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "somebody"
    return name, f"{slug}@pinflow.invalid"


def message(title: str, body: str, proposal: str, *, more: Mapping[str, str] | None = None) -> str:
    """A commit's message. The last paragraph is ours, so that no word of the caller is read as a trailer."""
    subject = _one_line(title)[:200] or "Change a workflow"
    text = "\n".join(
        _plain(line).rstrip() for line in body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    ).strip()
    trailers = {TRAILER: proposal, **(more or {})}
    last = "\n".join(f"{key}: {_one_line(value)}" for key, value in trailers.items())
    return "\n\n".join(part for part in (subject, text, last) if part) + "\n"


def _one_line(text: str) -> str:
    return " ".join(_plain(text).split())


def _plain(text: str) -> str:
    """Without control characters and lone surrogates; line breaks of every kind become blanks."""
    kept = "".join(letter if letter.isprintable() or letter == " " else " " for letter in text)
    return kept.encode("utf-8", "replace").decode("utf-8")
