"""The number of the pull request that a merge commit names, as the forges write it."""

from __future__ import annotations

import re
from typing import Final

_FORMS: Final = (
    re.compile(r"^Merge pull request #(\d{1,9})\b"),  # GitHub, a merge
    re.compile(r"^Merge pull request '.*' \(#(\d{1,9})\) from "),  # Gitea, a merge
    re.compile(r"\((?:#|!)(\d{1,9})\)$"),  # GitHub and Gitea, a squash; GitLab, if its template says so
    re.compile(r"^See merge request \S*!(\d{1,9})$", re.MULTILINE),  # GitLab, in the body of a merge
)


def pull_request(message: str) -> int | None:
    """The number in a commit's subject (or message), None if it names none."""
    for form in _FORMS:
        if found := form.search(message.strip()):
            return int(found[1])
    return None
