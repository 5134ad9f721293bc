"""What the registry should hold: worked out from whole trees, one commit after the other, by rules of a page's length."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

FUNCTIONS = "workflows/functions/"
LIB = f"{FUNCTIONS}lib.py"
LOCK = f"{FUNCTIONS}requirements.txt"
LINK = "LINK"
MAX_DELETIONS = 2

Files = dict[str, str]
Key = tuple[str, str, str]
"""What makes a version: name, text, functions."""


@dataclass
class Revision:
    """A commit as it was taken."""

    sha: str
    status: str
    rewritten: bool
    held: bool = False


@dataclass
class Model:
    """The registry of one source."""

    isolated: bool = False
    hold: bool = False
    trees: dict[str, Files] = field(default_factory=dict)
    parents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    trailers: set[str] = field(default_factory=set)
    confirmed: str = ""
    revisions: list[Revision] = field(default_factory=list)
    live: dict[str, tuple[Key, str]] = field(default_factory=dict)
    live_sha: str = ""
    first_with: dict[Key, str] = field(default_factory=dict)
    at: dict[str, dict[str, str]] = field(default_factory=dict)
    """Commit → name → commit of the version that was live at it."""

    # --- history ---------------------------------------------------------------------------------------------

    def ancestors(self, sha: str) -> set[str]:
        """The commit and all before it."""
        found: set[str] = set()
        todo = [sha]
        while todo:
            each = todo.pop()
            if each not in found:
                found.add(each)
                todo += self.parents[each]
        return found

    def pending(self, tip: str) -> list[str]:
        """The commits that a look at `tip` takes, oldest first."""
        if not self.revisions:
            return [tip]
        last = self.revisions[-1]
        if last.sha == tip:
            return [tip] if last.status == "REJECTED" and last.held and self.confirmed == tip else []
        chain = [tip]
        while parents := self.parents[chain[-1]]:
            if parents[0] == last.sha:
                return chain[::-1]
            chain.append(parents[0])
        return [tip]

    def look(self, tip: str) -> None:
        """Take what is new."""
        for sha in self.pending(tip):
            self._take(sha)

    # --- a commit ----------------------------------------------------------------------------------------------

    def _take(self, sha: str) -> None:
        last = self.revisions[-1] if self.revisions else None
        before = self.ancestors(sha)
        rewritten = last is not None and last.sha not in before
        unsure = rewritten or (last is not None and last.status == "REJECTED")
        dropped = unsure and bool(self.live_sha) and self.live_sha not in before
        taken: dict[str, tuple[Key, str]] | None = None
        held = self.hold and dropped and self.confirmed != sha
        if not held:
            taken = self._judge(self.trees[sha])
            if taken is not None and self._implausible(taken, sha):
                taken, held = None, True
        status = "REJECTED" if taken is None else "REGISTERED"
        self.revisions.append(Revision(sha, status, rewritten or dropped, held))
        if taken is None:
            return
        self.live, self.live_sha = taken, sha
        for key, _ in taken.values():
            self.first_with.setdefault(key, sha)
        self.at[sha] = {name: self.first_with[key] for name, (key, _) in taken.items()}

    def _implausible(self, taken: dict[str, tuple[Key, str]], sha: str) -> bool:
        gone = len(self.live.keys() - taken.keys())
        if not gone or sha in self.trailers or self.confirmed == sha:
            return False
        return not taken or (gone > MAX_DELETIONS and 2 * gone > len(self.live))

    def _judge(self, tree: Files) -> dict[str, tuple[Key, str]] | None:
        """What is live after a tree; None if it is rejected."""
        files = {path: text for path, text in tree.items() if is_definition(path)}
        functions = f"{tree.get(LIB)} with {tree.get(LOCK)}"
        names = {path: name_of(text) for path, text in files.items()}
        twice = {name for name, count in Counter(names.values()).items() if name and count > 1}
        unreadable = {path for path, text in files.items() if text != LINK and not names[path]}
        links = {path for path, text in files.items() if text == LINK}
        doubled = {path for path, name in names.items() if name in twice}
        no_lock = ">=" in tree.get(LOCK, "")
        callers = {path for path, text in files.items() if names[path] and "lib:run" in text}
        without = callers if no_lock or "def run(" not in tree.get(LIB, "") else set()
        bad = unreadable | links | doubled | without
        if (bad or no_lock) and not self.isolated:
            return None
        good = {
            names[path]: ((names[path], files[path], functions if "lib:run" in files[path] else ""), path)
            for path in files.keys() - bad
        }
        return good | self._kept(good, bad, unreadable, {names[path] for path in bad})

    def _kept(
        self,
        good: dict[str, tuple[Key, str]],
        bad: set[str],
        unreadable: set[str],
        held: set[str],
    ) -> dict[str, tuple[Key, str]]:
        """What stays live although no good file holds it: nothing is retired on a guess."""
        lost = {name: entry for name, entry in self.live.items() if name not in good}
        # An unreadable file may be any definition that lost its own, unless one is known to have stood there.
        strangers = unreadable - {path for _, path in lost.values()}
        return {
            name: (key, path)
            for name, (key, path) in lost.items()
            if path in bad or name in held or strangers
        }


def is_definition(path: str) -> bool:
    """Whether a definition stands there, or what should be one."""
    return path.startswith("workflows/") and not path.startswith(FUNCTIONS)


def name_of(text: str) -> str:
    """The name in a definition's text, "" if it cannot be read."""
    if text == LINK or "broken" in text:
        return ""
    return text.partition("name: ")[2].partition("\n")[0]
