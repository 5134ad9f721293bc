"""Keys and signed commits, made by the real ssh-keygen and gpg."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.git import Repository


@dataclass(frozen=True)
class SshKey:
    """A private key and how git is told to sign with it."""

    file: Path

    @property
    def public(self) -> str:
        """The public key, type and data."""
        return " ".join(self.file.with_suffix(".pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen and git show it."""
        said = subprocess.run(
            ["ssh-keygen", "-l", "-f", str(self.file)], check=True, capture_output=True, text=True
        )
        return said.stdout.split()[1]

    def options(self, program: str = "ssh-keygen") -> list[str]:
        """Arguments of git that make it sign with this key."""
        return _config({"gpg.format": "ssh", "user.signingKey": str(self.file), "gpg.ssh.program": program})


@dataclass(frozen=True)
class GpgKey:
    """A key in a home folder of its own."""

    home: Path
    fingerprint: str
    primary: str

    def options(self) -> list[str]:
        """Arguments of git that make it sign with this key."""
        return _config({"user.signingKey": f"{self.fingerprint}!", "gpg.program": str(self.home / "sign")})

    def export(self) -> bytes:
        """The public key."""
        return self.gpg("--export", self.primary)

    def gpg(self, *arguments: str, given: bytes = b"") -> bytes:
        """Run gpg in the home folder."""
        return _gpg(self.home, *arguments, given=given)


def ssh_key(folder: Path, name: str) -> SshKey:
    """A fresh key without a passphrase."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(file)], check=True, timeout=60
    )
    return SshKey(file)


def allowed_signers(file: Path, lines: Sequence[tuple[str, SshKey]]) -> Path:
    """A file of allowed signers: (principals and options, key)."""
    file.write_text("".join(f"{principal} {key.public}\n" for principal, key in lines))
    return file


def gpg_key(folder: Path, user: str, *, expires: str = "never", faked_time: str = "") -> GpgKey:
    """A fresh key without a passphrase; `faked_time` (`20200101T000000`) is when it is made."""
    # gpg's sockets need a short path.
    home = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    home.chmod(0o700)
    clock = [f"--faked-system-time={faked_time}"] if faked_time else []
    _gpg(
        home,
        *clock,
        "--pinentry-mode",
        "loopback",
        "--passphrase",
        "",
        "--quick-generate-key",
        user,
        "ed25519",
        "sign",
        expires,
    )
    listed = _gpg(home, "--with-colons", "--list-keys").decode()
    fingerprint = next(line for line in listed.splitlines() if line.startswith("fpr")).split(":")[9]
    script = home / "sign"
    script.write_text(f'#!/bin/sh\nexec gpg --homedir {home} --batch --no-tty {" ".join(clock)} "$@"\n')
    script.chmod(0o755)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"gpg-{fingerprint}").symlink_to(home)
    return GpgKey(home, fingerprint, fingerprint)


def forget(key: GpgKey) -> None:
    """End the key's agent and remove its folder."""
    subprocess.run(
        ["gpgconf", "--homedir", str(key.home), "--kill", "all"], check=False, capture_output=True, timeout=30
    )
    shutil.rmtree(key.home, ignore_errors=True)


def signed_commit(
    repository: Repository,
    key: SshKey | GpgKey,
    files: dict[str, str | bytes | None],
    message: str = "Signed",
    author: str = "Ada Author <ada@example.test>",
) -> str:
    """Commit files, signed with a key, and return the SHA."""
    repository.write(files)
    repository.git("add", "--all")
    repository.tick()
    repository.git(
        *key.options(), "commit", "--quiet", "--allow-empty", "-S", "--message", message, author=author
    )
    return repository.head()


def _config(values: dict[str, str]) -> list[str]:
    return [part for key, value in values.items() for part in ("-c", f"{key}={value}")]


def _gpg(home: Path, *arguments: str, given: bytes = b"") -> bytes:
    environment = {key: value for key, value in os.environ.items() if key != "GNUPGHOME"}
    done = subprocess.run(
        ["gpg", "--homedir", str(home), "--batch", "--no-tty", "--quiet", *arguments],
        input=given,
        env=environment,
        capture_output=True,
        timeout=60,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode("utf-8", "replace"))
    return done.stdout
