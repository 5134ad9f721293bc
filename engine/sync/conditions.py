"""How a source can stand: every condition and every reason, with its meaning and what to do. Public words.

`docs/reference/conditions.md` is written from these tables (`python -m engine.sync.conditions`), and a test holds
it equal to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.sync import problems

UNKNOWN = "Unknown"
SYNCED = "Synced"
OUT_OF_SYNC = "OutOfSync"
REJECTED = "Rejected"
HELD = "Held"
UNREACHABLE = "Unreachable"

CONDITIONS: dict[str, str] = {
    UNKNOWN: "No daemon has looked at the source yet.",
    SYNCED: "The tip of the branch is registered and live.",
    OUT_OF_SYNC: "The branch was read, but what is live is not all that its tip holds.",
    REJECTED: "The tip of the branch has problems. The last good revision stays live.",
    HELD: "The tip of the branch waits for somebody: a signature, a confirmation. The last good revision stays live.",
    UNREACHABLE: "The branch cannot be read. The last good revision stays live; nothing is retired.",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a source has its condition, and what helps."""

    name: str
    condition: str
    meaning: str
    action: str


UP_TO_DATE = "UpToDate"
NO_DEFINITIONS = "NoDefinitions"
REGISTERING = "Registering"
PASS_FAILED = "PassFailed"
INVALID_REVISION = "InvalidRevision"
MASS_DELETION = "MassDeletion"
EMPTY_FOLDER = "EmptyFolder"
FILES_KEPT = "FilesKept"
DECLARED_TWICE = "DeclaredTwice"
HISTORY_REWRITTEN = "HistoryRewritten"
UNTRUSTED = "Untrusted"
SIGNER_NEEDED = "SignerNeeded"
TRUST_BROKEN = "TrustBroken"
NO_CREDENTIAL = "NoCredential"
CERTIFICATE_REFUSED = "CertificateRefused"
NETWORK = "Network"
TIMED_OUT = "TimedOut"
ACCESS_DENIED = "AccessDenied"
REPOSITORY_NOT_FOUND = "RepositoryNotFound"
REDIRECTED = "Redirected"
REPOSITORY_EMPTY = "RepositoryEmpty"
BRANCH_NOT_FOUND = "BranchNotFound"
UNSAFE_OBJECTS = "UnsafeObjects"
MIRROR_BROKEN = "MirrorBroken"
DISK_FULL = "DiskFull"
TOO_LARGE = "TooLarge"
FETCH_FAILED = "FetchFailed"
INVALID_SOURCE = "InvalidSource"

_ALL = (
    Reason(NOT_LOOKED := "NotLooked", UNKNOWN, "The source was declared and not looked at.", "Start `pinflow serve sync` (or `pinflow up`)."),
    Reason(UP_TO_DATE, SYNCED, "The tip is live.", "Nothing."),
    Reason(NO_DEFINITIONS, SYNCED, "The tip is live and holds no definition.", "Check the source's branch and folder if you expected some."),
    Reason(REGISTERING, OUT_OF_SYNC, "New commits were seen and are being registered.", "Wait."),
    Reason(PASS_FAILED, OUT_OF_SYNC, "The daemon failed on this source by a fault of its own; it tries again.", "Read the daemon's log and report it."),
    Reason(FILES_KEPT, OUT_OF_SYNC, "The tip is registered, but for files with problems: these keep their last good version (`mode: isolated`).", "Mend the files in a new commit. After installing what was missing on the server: `pinflow sync now`."),
    Reason(DECLARED_TWICE, OUT_OF_SYNC, "Two daemons were told different things of a source of this name; the one that was told last watches it, the other stands aside.", "Give all daemons the same settings."),
    Reason(INVALID_REVISION, REJECTED, "A definition, or the folder, has problems; all are kept with file, line and column.", "Mend them in a new commit. After installing what was missing on the server: `pinflow sync now`."),
    Reason(MASS_DELETION, HELD, "The commit would retire more definitions than `max_deletions` and `max_deletions_percent` allow.", "If it is meant: `pinflow sync confirm SOURCE`, or a commit whose message ends with the line `Pinflow-Confirm-Deletions: yes`; else restore the files."),
    Reason(EMPTY_FOLDER, HELD, "The commit leaves no definition at all in the source's folder.", "If it is meant: `pinflow sync confirm SOURCE`, or a commit whose message ends with the line `Pinflow-Confirm-Deletions: yes`; else restore the files, or correct the source's folder."),
    Reason(HISTORY_REWRITTEN, HELD, "A forced push dropped the live commit, and the source has `rewritten_history: hold`.", "If it is meant: `pinflow sync confirm SOURCE`; else push the old history again."),
    Reason(UNTRUSTED, HELD, "The commit, or one that it brings, has no signature of a key that the source trusts.", "Let somebody whose key is trusted sign a commit on top (`verify: tip`) or the history again (`verify: every_commit`), or add the signer's key to the operator's file. If the commit is older than the rule: name the last such one by `verify_from`."),
    Reason(SIGNER_NEEDED, HELD, "The commit changes what a rule reserves for a group, and none of the group has signed it.", "Let a member of the group sign a commit on top, or the merge."),
    Reason(TRUST_BROKEN, HELD, "The operator's files of keys cannot be read, so nothing can be trusted.", "Mend the files that the source's `trust` names, or install gpg or ssh-keygen."),
    Reason(NETWORK, UNREACHABLE, "The remote's host cannot be reached.", "Check the network and the URL; the daemon tries again by itself."),
    Reason(TIMED_OUT, UNREACHABLE, "The remote answered too slowly, or not at all; git was ended.", "Check the remote; the daemon tries again by itself."),
    Reason(ACCESS_DENIED, UNREACHABLE, "The remote refuses our credentials, or there are none.", "Give the daemon a credential that may read the repository."),
    Reason(CERTIFICATE_REFUSED, UNREACHABLE, "The remote's certificate is of no authority that we trust, or has expired.", "Name the authority by the credential's `ca_file` (or GIT_SSL_CAINFO), or mend the certificate."),
    Reason(NO_CREDENTIAL, UNREACHABLE, "The secret that the source's credential names is not there.", "Set the variable, or mend the file, that the credential names."),
    Reason(REPOSITORY_NOT_FOUND, UNREACHABLE, "There is no repository at the URL (or none that we may see).", "Correct the URL, or give the daemon a credential."),
    Reason(REDIRECTED, UNREACHABLE, "The server sends us to another address, which we do not follow: it might not be for our credential.", "Correct the URL: the repository was probably renamed or moved."),
    Reason(REPOSITORY_EMPTY, UNREACHABLE, "The repository has no commit.", "Push a first commit."),
    Reason(BRANCH_NOT_FOUND, UNREACHABLE, "The repository lacks the source's branch.", "Push the branch, or correct the source's `branch`."),
    Reason(UNSAFE_OBJECTS, UNREACHABLE, "The remote sent objects that git's own check refuses.", "Look at the message: somebody may be attacking you, or an old tool wrote malformed objects."),
    Reason(MIRROR_BROKEN, UNREACHABLE, "Our own copy was damaged; it is made again.", "Check the disk of the data folder; the daemon tries again by itself."),
    Reason(DISK_FULL, UNREACHABLE, "The disk of the data folder is full, or our share of it is used up.", "Free some space; the daemon tries again by itself."),
    Reason(TOO_LARGE, UNREACHABLE, "The repository, or an answer of its server, is larger than the daemon takes.", "Take large files out of the repository and its history. If it is meant to be that large: raise the limit that the message names, and start the daemon again."),
    Reason(FETCH_FAILED, UNREACHABLE, "git failed in a way that is none of the above.", "Read the message."),
    Reason(INVALID_SOURCE, UNREACHABLE, "The source's URL, branch or folder is not allowed.", "Correct the setting."),
)  # fmt: skip
HELD_BY: dict[str, str] = {
    problems.MASS_DELETION: MASS_DELETION,
    problems.EMPTY_FOLDER: EMPTY_FOLDER,
    problems.HISTORY_REWRITTEN: HISTORY_REWRITTEN,
    problems.UNTRUSTED: UNTRUSTED,
    problems.SIGNER_NEEDED: SIGNER_NEEDED,
    problems.TRUST_BROKEN: TRUST_BROKEN,
}
"""Code of the problem that holds a commit → reason."""
HELD_UNREAD = frozenset({problems.UNTRUSTED, problems.TRUST_BROKEN, problems.HISTORY_REWRITTEN})
"""Problems that hold a commit before its files are looked at."""
CONFIRMABLE = frozenset({problems.MASS_DELETION, problems.EMPTY_FOLDER, problems.HISTORY_REWRITTEN})
"""Problems that a person's word passes; a signature is passed by a signature alone."""
REASONS: dict[str, Reason] = {reason.name: reason for reason in _ALL}


def action(reason: str) -> str:
    """What a person can do about a reason; empty if nothing has to be done."""
    found = REASONS.get(reason)
    return found.action if found and found.name not in (UP_TO_DATE, REGISTERING) else ""


def reference_page() -> str:
    """The text of `docs/reference/conditions.md`."""
    lines = [
        "# Conditions of a source",
        "",
        "`pinflow sync status` and `GET /sources` show for each source a condition, a reason and a message.",
        "This page is generated from `engine/sync/conditions.py`.",
        "",
    ]
    for condition, meaning in CONDITIONS.items():
        lines += [f"## {condition}", "", meaning, "", "| reason | meaning | what to do |", "|---|---|---|"]
        lines += [f"| `{r.name}` | {r.meaning} | {r.action} |" for r in _ALL if r.condition == condition]
        lines.append("")
    lines += ["## Problems of a commit", ""]
    lines += ["Beside the problems of single definitions (`problems.md`), a commit can have these:", ""]
    for code, meaning in problems.MEANINGS.items():
        lines += [f"### {code}", "", meaning, ""]
    return "\n".join(lines[:-1]) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference_page())
