"""Who sent a webhook: HMAC-SHA256 over the raw body with a shared secret, judged before anything of it is read.

Three forms are taken:
- `X-Pinflow-Signature: t=<seconds since 1970>,id=<delivery>,v1=<hex>` over `<t>.<delivery>.<body>`; the time keeps an old
  request from being sent again. `id` may be left out (then it is empty in what is signed), `v1` may be repeated while a
  secret is rotated.
- `X-Hub-Signature-256: sha256=<hex>` over the body, as GitHub sends it. It signs no time, so the same body again within
  the window is the same delivery.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import Unauthenticated

OURS = "x-pinflow-signature"
STANDARD = "webhook-signature"
GITHUBS = "x-hub-signature-256"
SIGNING_TOKEN = "whsec_"
"""What the secrets of Standard Webhooks begin with."""
_HEX = re.compile(r"[0-9a-f]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=")
_TIME = re.compile(r"[0-9]{1,12}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_MOST = 5
"""Signatures in one header."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of itself; nothing of it is true before `fits`.

    `delivery` is "" if the sender gave none that is signed. `time` is 0 for the form that has none.
    """

    signatures: tuple[str, ...]
    signed_before: bytes
    delivery: str = ""
    time: int = 0
    standard: bool = False

    def fits(self, body: bytes, secret: str) -> bool:
        """Whether one of the signatures is that of the body. Takes as long whether it is or not."""
        key = standard_key(secret) if self.standard else secret.encode()
        mac = hmac.new(key, self.signed_before + body, hashlib.sha256)
        made = base64.b64encode(mac.digest()).decode() if self.standard else mac.hexdigest()
        fitting = [hmac.compare_digest(made, given) for given in self.signatures]
        return any(fitting)


def read_claim(headers: Mapping[str, str], now: float, window: float) -> Claim:
    """The claim in the headers (lower-case names). Raises `Unauthenticated` if there is none, or its time is not now."""
    if OURS in headers:
        return _timed(headers[OURS], now, window)
    if STANDARD in headers:
        return read_standard(headers, now, window)
    if GITHUBS in headers:
        kind, _, given = headers[GITHUBS].strip().partition("=")
        if kind != "sha256" or not _HEX.fullmatch(given):
            raise _refused(f"the header {GITHUBS} is not sha256=<64 hex digits>")
        return Claim((given,), b"")
    raise _refused(f"a webhook needs the header {OURS}, {STANDARD} or {GITHUBS}")


def read_standard(headers: Mapping[str, str], now: float, window: float) -> Claim:
    """The claim of the form of Standard Webhooks. Raises `Unauthenticated` as `read_claim`."""
    delivery, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    listed = headers.get(STANDARD, "")[:2000].split()
    # Signatures of a kind that we do not know stand beside ours while a sender changes over.
    signatures = tuple(each[3:] for each in listed if each.startswith("v1,"))
    wellformed = (
        _ID.fullmatch(delivery)
        and _TIME.fullmatch(at)
        and 0 < len(signatures) <= _MOST
        and all(_BASE64.fullmatch(each) for each in signatures)
    )
    if not wellformed:
        raise _refused(
            f"the headers webhook-id, webhook-timestamp and {STANDARD} are not as Standard Webhooks has them"
        )
    _check_time(int(at), now, window)
    return Claim(signatures, f"{delivery}.{at}.".encode(), delivery, int(at), standard=True)


def standard_key(secret: str) -> bytes:
    """The key that a secret of Standard Webhooks stands for: base64 behind `whsec_`; any other text is its own bytes."""
    if secret.startswith(SIGNING_TOKEN):
        try:
            return base64.b64decode(secret.removeprefix(SIGNING_TOKEN), validate=True)
        except ValueError:
            pass
    return secret.encode()


def sign(secret: str, body: bytes, *, time: int, delivery: str = "") -> str:
    """The value of `X-Pinflow-Signature` for a body."""
    signed = f"{time}.{delivery}.".encode() + body
    name = f"id={delivery}," if delivery else ""
    return f"t={time},{name}v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def _timed(header: str, now: float, window: float) -> Claim:
    pairs = [part.strip().partition("=") for part in header[:2000].split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    ids = [value for name, _, value in pairs if name == "id"]
    signatures = tuple(value for name, _, value in pairs if name == "v1")
    wellformed = (
        len(times) == 1
        and _TIME.fullmatch(times[0])
        and len(ids) <= 1
        and all(_ID.fullmatch(each) for each in ids)
        and 0 < len(signatures) <= _MOST
        and all(_HEX.fullmatch(each) for each in signatures)
    )
    if not wellformed:
        raise _refused(f"the header {OURS} is not t=<seconds>,id=<delivery>,v1=<64 hex digits>")
    _check_time(int(times[0]), now, window)
    delivery = ids[0] if ids else ""
    return Claim(signatures, f"{times[0]}.{delivery}.".encode(), delivery, int(times[0]))


def _check_time(at: int, now: float, window: float) -> None:
    if abs(now - at) > window:
        raise _refused(f"the time of the signature is more than {window:g} s away from ours")


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(why, hint="docs/how-to/webhooks.md shows how a request is signed")
