"""The number of the pull request that a merge commit names, as the forges write it."""

from __future__ import annotations

import re
from typing import Final

_FORMS: Final = (
    re.compile(r"^Merge pull request #(\d{1,9})\b"),  # GitHub, a merge
    re.compile(r"^Merge pull request '.*' \(#(\d{1,9})\) from "),  # Gitea, a merge
    re.compile(r"\((?:#|!)(\d{1,9})\)$"),  # GitHub and Gitea, a squash; GitLab, if its template says so
)
_GITLABS: Final = re.compile(r"^See merge request \S*!(\d{1,9})\s*$", re.MULTILINE)


def pull_request(subject: str) -> int | None:
    """The number in a commit's subject, None if it names none."""
    for form in _FORMS:
        if found := form.search(subject.strip()):
            return int(found[1])
    return None


def subject_of(subject: str, message: str) -> str:
    """The subject as we keep it: GitLab names the merge request below in the message, where no list would show it."""
    found = _GITLABS.search(message)
    return f"{subject} (!{found[1]})" if found and pull_request(subject) is None else subject
