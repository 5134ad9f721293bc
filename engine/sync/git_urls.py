"""Where a source may be: an allow-list of URL schemes, and URLs made fit to be shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from engine.errors import SourceError
from engine.sync.conditions import INVALID_SOURCE

_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\]")
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/@\s]*@")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Remote:
    """`fetch` is what git is given; `shown` is free of credentials; `local` is the path if it is on this machine."""

    fetch: str
    shown: str
    scheme: str
    local: Path | None = None
    secrets: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """The host, as a credential names it: with the port if the URL has one; "" on this machine."""
        return urlsplit(self.shown).netloc.rpartition("@")[2] if self.local is None else ""

    def redact(self, message: str, more: Iterable[str] = ()) -> str:
        """`message` without credentials and control characters, at most 600 characters."""
        for secret in sorted({*self.secrets, *more}, key=len, reverse=True):
            message = message.replace(secret, "***")
        message = _USERINFO.sub(r"\1", message)
        return _UNPRINTABLE.sub("?", message).strip()[:600]


def parse_remote(url: str) -> Remote:
    """Judge a source's `url`: a path on this machine, or an https, ssh or file URL.

    Raises `SourceError` for anything else; the message never repeats a credential.
    """
    if "://" not in url:
        return _local(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refused("the URL cannot be read") from error
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise _refused("a file URL names no host")
        return _local(unquote(parts.path))
    if parts.scheme not in ("https", "ssh"):
        raise _refused(f"scheme {parts.scheme!r} is not allowed", "use https, ssh, file or a path")
    if _CONTROL.search(url) or parts.query or parts.fragment:
        raise _refused("the URL holds blanks, control characters, a query or a fragment")
    if not _HOST.fullmatch(host if ":" not in host else f"[{host}]") or (parts.username or "").startswith(
        "-"
    ):
        raise _refused("the host or the user of the URL is not allowed")
    shown_host = f"[{host}]" if ":" in host else host
    # What urlsplit leaves out (`-o[::1]`), git would take for a part of the host.
    if parts.netloc.rpartition("@")[2].lower() != f"{shown_host}{f':{port}' if port else ''}":
        raise _refused("the host or the user of the URL is not allowed")
    # The user of an ssh URL is no secret, and its key stands elsewhere.
    user = f"{parts.username}@" if parts.scheme == "ssh" and parts.username else ""
    shown = urlunsplit((parts.scheme, f"{user}{shown_host}{f':{port}' if port else ''}", parts.path, "", ""))
    return Remote(
        fetch=url,
        shown=shown,
        scheme=parts.scheme,
        secrets=_secrets(parts.username, parts.password, parts.scheme),
    )


def shown_url(url: str) -> str:
    """The form of `url` that may be shown and stored, also of one that is not allowed."""
    try:
        return parse_remote(url).shown
    except SourceError:
        return _UNPRINTABLE.sub("?", _USERINFO.sub(r"\1", url)).partition("?")[0][:300]


def _secrets(username: str | None, password: str | None, scheme: str) -> tuple[str, ...]:
    found = [password] if password else []
    if username and scheme == "https":
        found.append(username)  # a token may stand where the user's name does
    return tuple(secret for each in found for secret in {each, unquote(each)} if len(secret) > 2)


def _local(text: str) -> Remote:
    if not text or "\0" in text or "\n" in text:
        raise _refused("the path is empty or holds a control character")
    if (
        re.match(r"[^/]+@[^/]+:", text)
        or text.startswith("-")
        or re.match(r"[A-Za-z][A-Za-z0-9+.-]*::", text)
    ):
        raise _refused("the URL is no path", "write ssh://user@host/path for a remote over ssh")
    path = Path(text).expanduser().resolve()
    return Remote(fetch=f"file://{quote(str(path))}", shown=str(path), scheme="file", local=path)


def _refused(what: str, hint: str = "") -> SourceError:
    return SourceError(what, reason=INVALID_SOURCE, hint=hint)
