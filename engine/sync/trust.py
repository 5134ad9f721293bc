"""Whose signature a commit has, judged by git's exit code against keys that the operator keeps outside of the repository.

What git prints is never believed: for a key that is not allowed it prints `Good "git" signature` and exits 1.  Author and
committer are words of the commit's, and count for nothing here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import Problem
from engine.registry.revisions import Cursor
from engine.settings import Rule, Trust, Verify
from engine.sync import problems as codes
from engine.sync.git_objects import damaged
from engine.sync.mirror import MAX_BROUGHT, Mirror

_LIMIT = 300.0
_IMPORT_LIMIT = 60.0
_AT_ONCE = 100
"""Commits that one git process verifies."""
_GPG_CONFIG = """\
batch
no-tty
no-autostart
no-auto-key-retrieve
disable-dirmngr
trust-model always
"""
_SIGN = "sign it with a key that the source trusts, or add the signer's key to the operator's file"
_OLD = "name the last of them that needs no signature by the source's `verify_from`"
_WILD = {"*": "[^/]*", "?": "[^/]"}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Signature:
    """Whose trusted key has signed a commit. Empty if none has, or if nobody asked."""

    signer: str = ""
    key: str = ""
    primary: str = ""

    def is_of(self, members: Iterable[str]) -> bool:
        """Whether one of `members` made it: an SSH key by its principal or fingerprint, a GPG key by fingerprint alone.

        A GPG key's owner writes its names, so these prove nothing.
        """
        known = {_plain(each) for each in (self.key, self.primary) if each}
        by_name = self.key.startswith("SHA256:")
        return any((by_name and each == self.signer) or _plain(each) in known for each in members)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of a commit's signature. With `problems`, the commit is held."""

    signature: Signature = Signature()
    problems: tuple[Problem, ...] = ()


class Judge:
    """Judges the commits of one source."""

    def __init__(
        self,
        verify: Verify,
        rules: Sequence[Rule],
        trust: Trust | None,
        data_dir: Path,
        verify_from: str = "",
    ) -> None:
        self._verify = verify
        self._from = verify_from
        self._rules = tuple(rules)
        self._trust = trust
        self._folder = data_dir.resolve() / "keys"

    @property
    def asks(self) -> bool:
        """Whether signatures matter to this source at all."""
        return self._trust is not None and (self._verify != "none" or bool(self._rules))

    def keys(self) -> str:
        """A digest of all that is trusted: when it changes, what was refused is looked at again."""
        if self._trust is None or not self.asks:
            return ""
        try:
            return self._digest(self._trust)
        except OSError as error:
            return f"broken: {error}"

    def judge(self, mirror: Mirror, sha: str, cursor: Cursor, *, taken: bool = False) -> Judgement:
        """Judge a commit that is to become a revision, and with `every_commit` all that it brings.

        Of one that is `taken` already, nothing is asked.
        """
        if self._trust is None or not self.asks:
            return Judgement()
        try:
            environment = self._environment(self._trust)
        except (OSError, subprocess.SubprocessError) as error:
            said = f"the keys of the source's trust cannot be read: {_why(error)}"
            return Judgement(problems=(Problem(codes.TRUST_BROKEN, said),))
        asked = self._asked(mirror, sha, cursor, taken=taken)
        if len(asked) >= MAX_BROUGHT:
            said = f"{sha[:12]} brings {MAX_BROUGHT} commits or more, which are not all verified"
            return Judgement(problems=(_untrusted(f"{said}{self._unknown(mirror)}", _OLD),))
        bad = _first_bad(mirror, asked, environment)
        if bad:
            return Judgement(problems=(_untrusted(f"{_said(bad, sha)}{self._unknown(mirror)}"),))
        signed = sha in asked or _verified(mirror, [sha], environment)
        return Judgement(_signature(mirror, sha, environment)) if signed else Judgement()

    def _asked(self, mirror: Mirror, sha: str, cursor: Cursor, *, taken: bool) -> list[str]:
        """The commits that must be signed, the newest first.

        Nothing that a push can bring moves where `every_commit` begins: that is what is live, for which somebody
        trusted has signed, and the commit that the operator names.
        """
        if self._verify == "none" or taken:
            return []
        if self._verify == "tip" or cursor.live_sha == sha or not (cursor.live_sha or self._from):
            return [sha]
        known = [each for each in (cursor.live_sha, self._from) if each]
        brought = mirror.brought(known[0], sha, *known[1:])
        if sha in brought or (self._from and mirror.is_ancestor(sha, self._from)):
            return brought
        return [sha, *brought]  # the branch was put back to what is older than what is live

    def _unknown(self, mirror: Mirror) -> str:
        if not self._from or mirror.has(self._from):
            return ""
        return f"; the repository has no commit {self._from[:12]}, which `verify_from` names"

    def rules_kept(
        self, signature: Signature, folder: str, paths: Iterable[str], sha: str
    ) -> tuple[Problem, ...]:
        """A problem for each rule that `paths` (from the repository's root) touch without a signature of its group."""
        if self._trust is None:
            return ()
        prefix = f"{folder}/" if folder else ""
        touched = sorted({path.removeprefix(prefix) for path in paths})
        found = []
        for rule in self._rules:
            matched = [path for path in touched if any(_pattern(each).fullmatch(path) for each in rule.paths)]
            if matched and not signature.is_of(self._trust.groups.get(rule.group, ())):
                found.append(_needs(rule, matched, signature, sha, prefix))
        return tuple(found)

    # --- the operator's keys ---------------------------------------------------------------------------------

    def _environment(self, trust: Trust) -> dict[str, str]:
        """What git needs to verify against these keys and no others."""
        signers = trust.allowed_signers
        if signers is not None:
            signers.read_bytes()  # git would say no more than that nobody is allowed
            if shutil.which("ssh-keygen") is None:
                raise OSError("ssh-keygen is not installed")
        home = self._folder / "none"
        if trust.gpg_keyring is not None:
            home = self._gpg_home(trust.gpg_keyring)
        chosen = {
            "gpg.program": "gpg" if trust.gpg_keyring is not None else "/bin/false",
            "gpg.x509.program": "/bin/false",
            "gpg.ssh.program": "ssh-keygen" if signers is not None else "/bin/false",
            "gpg.ssh.allowedSignersFile": str(signers.resolve()) if signers is not None else os.devnull,
            "gpg.minTrustLevel": "fully",
        }
        environment = {"GNUPGHOME": str(home), "GIT_CONFIG_COUNT": str(len(chosen))}
        for number, (key, value) in enumerate(chosen.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return environment

    def _gpg_home(self, keyring: Path) -> Path:
        """A folder for gpg that holds the keyring's keys and nothing of this machine's; made once for each content."""
        home = self._folder / hashlib.sha256(keyring.read_bytes()).hexdigest()[:32]
        if home.is_dir():
            return home
        if shutil.which("gpg") is None:
            raise OSError("gpg is not installed")
        # gpg fails where the path of an agent's socket, which it never starts, would be too long.
        with tempfile.TemporaryDirectory(prefix="pf") as short:
            (Path(short) / "gpg.conf").write_text(_GPG_CONFIG)
            done = subprocess.run(
                ["gpg", "--homedir", short, "--quiet", "--import", "--", str(keyring)],
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": short, "LC_ALL": "C"},
                capture_output=True,
                timeout=_IMPORT_LIMIT,
            )
            if done.returncode != 0:
                said = done.stderr.decode("utf-8", "replace").strip().replace(short, "")
                raise OSError(f"gpg does not import {keyring}: {said[:200]}")
            fresh = home.with_name(f"{home.name}.{os.getpid()}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copytree(short, fresh)
        fresh.chmod(0o700)
        try:
            fresh.rename(home)
        except OSError:
            if not home.is_dir():  # another thread was faster
                raise
        return home

    def _digest(self, trust: Trust) -> str:
        digest = hashlib.sha256(trust.model_dump_json().encode())
        for file in (trust.allowed_signers, trust.gpg_keyring):
            digest.update(file.read_bytes() if file is not None else b"")
        return digest.hexdigest()


def _first_bad(mirror: Mirror, shas: Sequence[str], environment: dict[str, str]) -> str:
    """The oldest of the commits (given the newest first) that git does not verify, or ""."""
    ordered = list(reversed(shas))
    for start in range(0, len(ordered), _AT_ONCE):
        some = ordered[start : start + _AT_ONCE]
        if _verified(mirror, some, environment):
            continue
        return next((sha for sha in some if not _verified(mirror, [sha], environment)), some[0])
    return ""


def _verified(mirror: Mirror, shas: Sequence[str], environment: dict[str, str]) -> bool:
    return mirror.judge(["verify-commit", *shas], limit=_LIMIT, environment=environment).code == 0


def _signature(mirror: Mirror, sha: str, environment: dict[str, str]) -> Signature:
    """Who signed a commit that git has verified."""
    wanted = ["log", "-1", "--no-walk", "--format=%G?%x00%GS%x00%GF%x00%GP", "--end-of-options", sha, "--"]
    done = mirror.judge(wanted, limit=_LIMIT, environment=environment)
    fields = done.stdout.decode("utf-8", "replace").rstrip("\n").split("\0")
    if done.code != 0 or len(fields) != 4:
        raise damaged(f"git does not say who signed {sha}")
    verdict, signer, key, primary = (_UNPRINTABLE.sub("?", field)[:300] for field in fields)
    if verdict != "G":
        raise damaged(f"git verifies {sha} and calls its signature {verdict}")
    return Signature(signer, key, primary)


def _said(bad: str, sha: str) -> str:
    brought = "" if bad == sha else f", which {sha[:12]} brings,"
    return f"{bad[:12]}{brought} has no signature of a trusted key"


def _untrusted(message: str, hint: str = _SIGN) -> Problem:
    return Problem(codes.UNTRUSTED, message, hint=hint)


def _needs(rule: Rule, matched: Sequence[str], signature: Signature, sha: str, prefix: str) -> Problem:
    few = ", ".join(f"{prefix}{path}" for path in matched[:5]) + (", ..." if len(matched) > 5 else "")
    signed = f"it was signed by {signature.signer}" if signature.signer else "it has no trusted signature"
    return Problem(
        codes.SIGNER_NEEDED,
        f"{sha[:12]} changes {few}, which {', '.join(rule.paths)} reserves for signers of group {rule.group}; {signed}",
        file=f"{prefix}{matched[0]}",
        hint=f"let a member of {rule.group} sign the merge, or a commit on top",
    )


def _pattern(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder, `**` is any number of folders."""
    said = ""
    parts = pattern.strip("/").split("/")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            said += ".+" if last else "(?:[^/]+/)*"
        else:
            said += "".join(_WILD.get(letter) or re.escape(letter) for letter in part) + ("" if last else "/")
    return re.compile(said, re.DOTALL)


def _plain(fingerprint: str) -> str:
    if fingerprint.startswith("SHA256:"):
        return fingerprint
    return re.sub(r"\s+|^0x", "", fingerprint).upper()


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)[:300]
