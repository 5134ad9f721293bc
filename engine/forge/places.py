"""Which repository of which forge a source is, and what webhooks of a forge prove."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from engine.errors import Misconfigured
from engine.settings import ForgeSettings

_LONGEST_NAME = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """A repository (`owner/name`, with more slashes on GitLab) of a forge."""

    forge: ForgeSettings
    repository: str


def place_of(forges: Sequence[ForgeSettings], source: str, url: str) -> Place | None:
    """Where a source stands, by what a forge's settings say of it or by the host of its URL; None if nowhere known."""
    for forge in forges:
        if source in forge.repositories:
            return Place(forge, forge.repositories[source])
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return None
    if parts.scheme not in ("https", "ssh"):
        return None
    path = unquote(parts.path).strip("/").removesuffix(".git")
    for forge in forges:
        if host in forge.hosts or host + port in forge.hosts:
            return Place(forge, path) if "/" in path else None
    return None


def secret(env: str, file: Any, what: str) -> str:
    """A secret from the operator's own place, read when it is needed. Raises `Misconfigured` without its value."""
    if file is not None:
        try:
            found = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{what}: {file} cannot be read") from error
    else:
        found = os.environ.get(env, "") if env else ""
    if not found:
        raise Misconfigured(f"{what} is not set", hint=f"set {env}" if env else "name its variable or file")
    return str(found)


def token_of(forge: ForgeSettings) -> str:
    """The token of a forge's API."""
    return secret(forge.token_env, forge.token_file, f"the token of forge {forge.name}")


def signed(forge: ForgeSettings, key: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a webhook is signed with the key, over its bytes as they came, compared in constant time."""
    if forge.kind == "gitlab":  # it sends the key itself
        said, wanted = headers.get("x-gitlab-token", ""), key
    elif forge.kind == "github":
        said, wanted = headers.get("x-hub-signature-256", ""), "sha256=" + _mac(key, body)
    else:
        said, wanted = headers.get("x-gitea-signature", ""), _mac(key, body)
    # Of digests, so that neither length nor place of a difference shows.
    left, right = (
        hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (said, wanted)
    )
    return hmac.compare_digest(left, right)


def _mac(key: str, body: bytes) -> str:
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def webhook_secret_of(forge: ForgeSettings) -> str:
    """The secret of a forge's webhooks. Raises `Misconfigured` without it."""
    what = f"the webhook secret of forge {forge.name}"
    return secret(forge.webhook_secret_env, forge.webhook_secret_file, what)


def delivery_of(headers: Mapping[str, str], body: bytes) -> str:
    """What a delivery is known by: the forge's id of it, or its content where it has none. 200 characters at most."""
    for name in (
        "x-github-delivery",
        "x-gitea-delivery",
        "webhook-id",
        "idempotency-key",
        "x-gitlab-event-uuid",
    ):
        if headers.get(name):
            return headers[name][:200]
    return hashlib.sha256(body).hexdigest()


def repository_said(body: bytes) -> str:
    """The repository that a webhook names, in lower case; "" if it names none. Used to look at fewer sources."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for holder, key in (("project", "path_with_namespace"), ("repository", "full_name")):
        found = said.get(holder) if isinstance(said, dict) else None
        name = found.get(key) if isinstance(found, dict) else None
        if isinstance(name, str):
            return name.lower() if len(name) <= _LONGEST_NAME else ""
    return ""
