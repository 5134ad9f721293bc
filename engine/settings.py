"""Settings: read once from the environment by a composition root, frozen, and passed on as arguments.

Never imported by `dsl`, `core` or the `validate` path (reading the environment there would break determinism,
and importing pydantic-settings would triple the time of a hook).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from engine.errors import Misconfigured

_SOURCE_NAME = r"^[a-z][a-z0-9-]{0,62}$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
Verify = Literal["none", "tip", "every_commit"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _full_sha(value: str) -> str:
    if value and not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", value):
        raise ValueError("give the full SHA of a commit, in small letters")
    return value


class Rule(_Entry):
    """Whoever changes one of the paths must have signed the commit and be in the group."""

    paths: tuple[str, ...] = Field(min_length=1)
    """Patterns from the source's folder: `*` is within a folder, `**` any number of folders (`prod/**`)."""
    group: str
    """A group of the source's trust."""


class SourceSettings(_Entry):
    """A git repository, a branch and a folder in it that the daemon watches."""

    name: str = Field(pattern=_SOURCE_NAME)
    url: str
    """A path on this machine, or an https, ssh or file URL."""
    branch: str = "main"
    folder: str = "workflows"
    """Definitions are the YAML files in it; `functions/` in it holds the code of `python_function`."""
    poll_interval: float = Field(default=30.0, ge=0.2)
    """Seconds between two looks at the remote; a local repository is also watched."""
    credential: str = ""
    """The name of a credential, for a private repository."""
    mode: Literal["atomic", "isolated"] = "atomic"
    """`atomic`: a commit whole or not at all. `isolated`: a bad file keeps its last good version, the others go on."""
    max_deletions: int = Field(default=10, ge=0)
    """A commit that retires more definitions than this and more than `max_deletions_percent` is held."""
    max_deletions_percent: float = Field(default=50.0, ge=0, le=100)
    """Of the live definitions; 0 lets `max_deletions` alone decide."""
    rewritten_history: Literal["accept", "hold"] = "accept"
    """What becomes of a forced push that drops the live commit: its new tip is taken, or held for a confirmation."""
    verify: Verify = "none"
    """Whose signature is asked for: nobody's, that of each revision's own commit, or that of every commit it brings."""
    verify_from: str = ""
    """The full SHA of the last commit that needs no signature, with `verify: every_commit`; nor does what it has below it."""
    trust: str = ""
    """The name of a trust: the keys that signatures are judged by."""
    rules: tuple[Rule, ...] = ()
    """Who must have signed a change of which paths."""

    _baseline = field_validator("verify_from")(_full_sha)


class IncludeSettings(_Entry):
    """A file in git that lists further sources. It may name credentials and trusts, never bring its own."""

    name: str = Field(pattern=_SOURCE_NAME)
    url: str
    """As of a source."""
    branch: str = "main"
    file: str = "sources.yaml"
    """The file in the repository: a list `sources`, as in the sources file."""
    poll_interval: float = Field(default=30.0, ge=0.2)
    """As of a source."""
    credential: str = ""
    """As of a source."""
    verify: Verify = "none"
    """As of a source."""
    verify_from: str = ""
    """As of a source."""
    trust: str = ""
    """As of a source."""

    _baseline = field_validator("verify_from")(_full_sha)


class Credential(_Entry):
    """How to get into private repositories: a token over HTTPS or a key over SSH. Only the place of a secret stands here."""

    hosts: tuple[str, ...] = Field(min_length=1)
    """Hosts that it may be shown to, with the port where the URL has one (`git.example.test`, `10.0.0.5:8443`)."""
    username: str = "x-access-token"
    """The user's name that goes with a token; most forges take any."""
    token_env: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    """The environment variable of the daemon that holds the token."""
    token_file: Path | None = None
    """The file that holds the token, read again at each use."""
    ssh_key: Path | None = None
    """The private key."""
    known_hosts: Path | None = None
    """The public keys of the hosts; a host that it does not name is refused."""
    ca_file: Path | None = None
    """The certificate authority of the host, if it is none of the system's."""

    @model_validator(mode="after")
    def _one_way(self) -> Credential:
        ways = [bool(self.token_env), self.token_file is not None, self.ssh_key is not None]
        if sum(ways) != 1:
            raise ValueError("give exactly one of token_env, token_file and ssh_key")
        if (self.ssh_key is None) != (self.known_hosts is None):
            raise ValueError("ssh_key and known_hosts go together")
        return self


class Trust(_Entry):
    """Keys that the operator keeps outside of the repository, and groups of who holds them."""

    allowed_signers: Path | None = None
    """SSH keys, in the format of ssh-keygen's allowed signers file."""
    gpg_keyring: Path | None = None
    """GPG public keys, as `gpg --export` writes them."""
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Name of a group → principals of `allowed_signers`, or fingerprints of keys."""

    @model_validator(mode="after")
    def _any_key(self) -> Trust:
        if self.allowed_signers is None and self.gpg_keyring is None:
            raise ValueError("give allowed_signers, gpg_keyring or both")
        return self


class ForgeSettings(BaseModel):
    """A forge that is told how commits fared, and whose webhooks are taken. Only the places of its secrets stand here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    """Its webhooks come to `/webhooks/<name>`."""
    kind: Literal["github", "gitlab", "gitea"]
    api: str = Field(pattern=r"^https?://[^\s?#]+$")
    """`https://api.github.com`, `https://gitlab.example.test/api/v4`, `https://gitea.example.test/api/v1`."""
    hosts: tuple[str, ...] = ()
    """Hosts of the URLs of sources that stand on it, such as `github.com`."""
    repositories: dict[str, str] = Field(default_factory=dict)
    """Name of a source → `owner/name`, for sources whose URL does not tell."""
    token_env: str = ""
    """The environment variable of the daemon that holds the token of the API."""
    token_file: Path | None = None
    """The file that holds it, read again at each use."""
    webhook_secret_env: str = ""
    """The environment variable of the API that holds the secret of the webhooks; without one none is taken."""
    webhook_secret_file: Path | None = None
    """The file that holds it, read again at each use."""
    comments: bool = True
    """Comment on the pull request that a commit names, when it is live or refused."""


class Settings(BaseSettings):
    """What a process needs to know. Every field is read from `PINFLOW_<NAME>`; lists and objects as JSON."""

    model_config = SettingsConfigDict(env_prefix="PINFLOW_", frozen=True, extra="ignore")

    database_url: str = "postgresql+asyncpg://pinflow:pinflow@127.0.0.1:5433/pinflow"
    """`postgresql://user:password@host:port/database`."""
    temporal_address: str = "127.0.0.1:7233"
    temporal_namespace: str = "default"
    task_queue: str = "pinflow"
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=0, le=65535)
    api_fd: int = 0
    """A listening socket that the process inherited, used instead of host and port; 0 for none."""
    public_url: str = ""
    """How others reach the API: callback URLs begin with it. Empty for `http://HOST:PORT` of the API itself."""
    data_dir: Path = Path(".pinflow")
    """Mirrors of git repositories and the cache of function bundles stand below it."""
    sources: tuple[SourceSettings, ...] = ()
    """The repositories to watch, if they do not stand in a file."""
    sources_file: Path | None = None
    """A file of sources, credentials and trusts: docs/reference/sources-file.md."""
    forges: tuple[ForgeSettings, ...] = ()
    """The forges of the sources: who is told how commits fared, and whose webhooks are taken."""
    secrets: tuple[str, ...] = ("environment",)
    """Where secrets come from, in this order: `environment` (`PINFLOW_SECRET_<NAME>`), `files:<folder>`, or what a package adds."""
    webhook_window: float = Field(default=300.0, ge=10.0, le=86_400.0)
    """Seconds by which the signature of a webhook may be old, and in which the same body counts once."""
    http_allow: tuple[str, ...] = ()
    """Hosts, addresses or CIDR blocks that `http_request` may reach although they are private."""
    function_packages: tuple[str, ...] = ()
    """Installed packages whose functions `python_function` may call besides the bundle's own. The sync daemon, the API and
    `validate` check definitions by it, so give them what the workers have."""
    function_memory_mb: int = Field(default=1024, ge=64)
    """Address space that one call of `python_function` may use."""
    max_concurrent_functions: int = Field(default=16, gt=0)
    """Child processes of `python_function` at a time; the time spent waiting for one counts as the attempt's."""
    function_environments: bool = True
    """Whether a worker makes environments of the packages that a `uv.lock` or `requirements.txt` in `functions/` names."""
    function_environments_keep: int = Field(default=20, gt=0)
    """Environments that are kept on a machine; those that were not used for the longest time go."""
    function_environments_mb: int = Field(default=4096, gt=0)
    """Megabytes that all environments together may have."""
    uv: str = "uv"
    """The program that makes environments: a path, or a name beside the worker's Python or on its `PATH`."""
    git_mb: int = Field(default=8192, ge=1)
    """Megabytes that the copy of one repository may have on the daemon's disk; a larger one is not synced."""
    git_memory_mb: int = Field(default=2048, ge=256)
    """Megabytes of memory that one git process of the daemon may use."""
    reconcile_interval: float = Field(default=15.0, gt=0)
    max_concurrent_activities: int = Field(default=100, gt=0)
    max_concurrent_runs: int = Field(default=1000, gt=0)
    """Open runs a worker keeps in its cache; a small cache replays and collapses throughput."""
    worker_health_port: int = Field(default=0, ge=0, le=65535)
    """A worker answers `/healthz` and `/readyz` here, on `api_host`; 0 turns it off."""
    sync_health_port: int = Field(default=0, ge=0, le=65535)
    """The sync daemon answers `/healthz` and `/readyz` here, on `api_host`; 0 turns it off."""
    log_format: str = "json"
    """`json` for machines, `text` for people."""
    log_level: str = "INFO"
    drain_timeout: float = Field(default=20.0, gt=0)
    """Seconds a process that is asked to stop gives to what is under way."""

    @property
    def callback_base(self) -> str:
        """What callback URLs begin with."""
        return self.public_url.rstrip("/") or f"http://{self.api_host}:{self.api_port}"

    @field_validator("database_url")
    @classmethod
    def _for_our_driver(cls, url: str) -> str:
        """Take the spelling that everybody uses as well, and refuse what is no Postgres at the door."""
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in ("postgres", "postgresql", "postgresql+asyncpg"):
            raise ValueError("must be postgresql://user:password@host:port/database")
        _ = urlsplit(url).port  # raises ValueError for one that is no number or out of range
        return f"postgresql+asyncpg://{rest}"


def read_settings() -> Settings:
    """The settings of this process. Raises `Misconfigured` with every variable that does not fit."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"{_named(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise Misconfigured("; ".join(faults), hint="docs/reference/settings.md lists all of them") from error
    except SettingsError as error:
        found = re.search(r'field "(\w+)"', str(error))
        name = _named((found[1],)) if found else str(error)
        raise Misconfigured(
            f"{name} is not JSON: {error.__cause__}", hint="lists and objects are written as JSON"
        ) from error


def _named(place: tuple[int | str, ...]) -> str:
    """`PINFLOW_SOURCES[0].url`: the variable, and where in it."""
    name, *path = place
    inside = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return f"PINFLOW_{str(name).upper()}{inside}"
