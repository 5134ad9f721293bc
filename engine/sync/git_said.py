"""What git says on stderr when it fails, as one of the reasons of `conditions.py`."""

from __future__ import annotations

import re

from engine.sync import conditions

# What git says of this machine, whatever else it then says of the remote.
_OF_OURS: tuple[tuple[str, str], ...] = (
    (conditions.DISK_FULL, r"No space left|Disk quota"),
    (
        conditions.TOO_LARGE,
        r"File too large|File size limit|died of signal 25|[Oo]ut of memory|unable to mmap",
    ),
)
# What git says, in the order in which it is looked for.  LC_ALL=C keeps the words.
REASONS_SAID: tuple[tuple[str, str], ...] = (
    (conditions.BRANCH_NOT_FOUND, r"couldn't find remote ref"),
    (conditions.TIMED_OUT, r"Operation too slow|timed out|Timeout"),
    (conditions.CERTIFICATE_REFUSED, r"certificate verif|unable to get local issuer|SSL certificate"),
    (
        conditions.NETWORK,
        r"Could not resolve host|Connection refused|Failed to connect|Couldn't connect|unreachable|No route to host"
        r"|Connection reset|early EOF|hung up unexpectedly|unexpected disconnect|SSL|TLS|returned error: 5\d\d|RPC failed",
    ),
    (
        conditions.ACCESS_DENIED,
        r"Authentication failed|could not read (Username|Password)|Permission denied|Host key verification failed"
        r"|returned error: 40[13]|terminal prompts disabled"
        # Of a push with a credential that may only read.
        r"|marked as read only|Permission to \S+ denied|not allowed to push|does not have write access",
    ),
    (
        conditions.REPOSITORY_NOT_FOUND,
        r"[Rr]epository .*not found|does not appear to be a git repository|does not exist|not a git repository"
        r"|returned error: 404",
    ),
    (conditions.REDIRECTED, r"returned error: 30\d|url base from redirection"),
    (conditions.INVALID_SOURCE, r"transport '.*' not allowed"),
    (conditions.UNSAFE_OBJECTS, r"fsck error|error: object [0-9a-f]{40,64}: |hasDot|gitmodules"),
)


def why(stderr: str) -> str | None:
    """The reason in what git said, or None if it is no known one. What the remote says, git marks as such."""
    ours = "\n".join(line for line in stderr.splitlines() if not line.lstrip().startswith("remote:"))
    for reason, pattern in _OF_OURS:
        if re.search(pattern, ours):
            return reason
    for reason, pattern in REASONS_SAID:
        if re.search(pattern, stderr):
            return reason
    return None


def object_format(stderr: str) -> str:
    """The remote's object format, if git says that it is not ours; else ""."""
    found = re.search(r"mismatched algorithms: client \w+; server (sha1|sha256)", stderr)
    return found[1] if found else ""


def last_words(stderr: str) -> str:
    """The lines that say why it failed, four at most."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = ("fatal:", "error:", "remote:", "ssh:")
    # ssh gives no mark to the lines that matter.
    told = [
        line for line in lines if line.startswith(said) or (not line.startswith("@") and why(line))
    ] or lines
    return "; ".join(told[:4]) or "git failed without a word"
