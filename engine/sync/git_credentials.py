"""How git gets into a private repository, without a secret in a URL, an argument or a file of the mirror.

A token goes to git by `GIT_ASKPASS`: a script of ours that prints a variable of that one process.  A key goes to ssh by
its path.  Both are read each time git starts, so that a rotated one needs no restart.
"""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from engine.errors import SourceError
from engine.settings import Credential
from engine.sync import conditions
from engine.sync.git_urls import Remote

_ASKPASS = """\
#!/bin/sh
# Written by Pinflow: answers git with the credential of the one source that git was started for.
case "$1" in
[Uu]sername*) printf '%s\\n' "$PINFLOW_GIT_USERNAME" ;;
*) printf '%s\\n' "$PINFLOW_GIT_TOKEN" ;;
esac
"""
_MAX_TOKEN = 64 * 1024


class Access:
    """A credential as git's environment. Without one, nothing: git asks nobody."""

    def __init__(self, credential: Credential | None = None, folder: Path | None = None) -> None:
        self._credential = credential
        self._folder = folder

    def environment(self) -> Mapping[str, str]:
        """What git needs in its environment. Raises `SourceError` (NoCredential) if the secret is not there."""
        credential = self._credential
        if credential is None:
            return {}
        found: dict[str, str] = {}
        if credential.ca_file is not None:
            found["GIT_SSL_CAINFO"] = str(credential.ca_file)
        if credential.ssh_key is not None:
            found["GIT_SSH_COMMAND"] = _ssh(credential)
            return found
        assert self._folder is not None
        return found | {
            "GIT_ASKPASS": str(_askpass(self._folder)),
            "PINFLOW_GIT_USERNAME": credential.username,
            "PINFLOW_GIT_TOKEN": _token(credential),
        }

    def secrets(self) -> tuple[str, ...]:
        """What no message may hold, in each form in which it travels."""
        if self._credential is None or self._credential.ssh_key is not None:
            return ()
        try:
            token = _token(self._credential)
        except SourceError:
            return ()
        basic = base64.b64encode(f"{self._credential.username}:{token}".encode()).decode()
        return tuple(form for form in {token, quote(token, safe=""), basic} if len(form) > 2)


NO_CREDENTIAL = Access()


def check_host(credential: Credential | None, remote: Remote) -> None:
    """Refuse to hand a credential to a host that it is not for. Raises `SourceError` (InvalidSource)."""
    if credential is None:
        return
    wanted = "ssh" if credential.ssh_key is not None else "https"
    if remote.scheme != wanted:
        raise SourceError(f"the credential is for {wanted} URLs", reason=conditions.INVALID_SOURCE)
    if remote.host not in credential.hosts:
        raise SourceError(
            f"the credential is not for the host {remote.host}",
            reason=conditions.INVALID_SOURCE,
            hint="add the host to the credential's `hosts`, or correct the URL",
        )


def _token(credential: Credential) -> str:
    place = f"variable {credential.token_env}" if credential.token_env else f"file {credential.token_file}"
    try:
        if credential.token_file is not None:
            with credential.token_file.open(encoding="utf-8") as file:
                token = file.read(_MAX_TOKEN).strip()
        else:
            token = os.environ.get(credential.token_env, "").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise _missing(f"the token cannot be read from {place}: {why}") from error
    if not token:
        raise _missing(f"the {place} holds no token")
    if "\n" in token or "\0" in token:
        raise _missing(f"the {place} holds more than one line")
    return token


def _ssh(credential: Credential) -> str:
    assert credential.ssh_key is not None
    for path in (credential.ssh_key, credential.known_hosts):
        if path is None or not path.is_file():
            raise _missing(f"there is no file {path}")
    options = [
        "BatchMode=yes",
        "ConnectTimeout=15",
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "GlobalKnownHostsFile=/dev/null",
        f"UserKnownHostsFile={_quoted(credential.known_hosts)}",
        "ServerAliveInterval=10",
        "ServerAliveCountMax=3",
    ]
    command = ["ssh", "-F", "/dev/null", "-i", str(credential.ssh_key)]
    return shlex.join([*command, *(part for option in options for part in ("-o", option))])


def _quoted(path: Path | None) -> str:
    return f'"{path}"'  # ssh splits the value at blanks


def _askpass(folder: Path) -> Path:
    script = folder / "askpass"
    if not script.exists() or script.read_text() != _ASKPASS:
        fresh = script.with_name(f"askpass.{os.getpid()}.new")
        fresh.write_text(_ASKPASS)
        fresh.chmod(0o700)
        fresh.replace(script)
    return script


def _missing(what: str) -> SourceError:
    return SourceError(
        what, reason=conditions.NO_CREDENTIAL, hint=conditions.REASONS[conditions.NO_CREDENTIAL].action
    )
