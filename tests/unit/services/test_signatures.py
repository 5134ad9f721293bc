"""Which requests are believed: the signature of the raw body, with a time or in GitHub's form."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Unauthenticated
from engine.services.signatures import read_claim, sign

NOW = 1_700_000_000
BODY = b'{"ref": "refs/heads/main"}'
SECRET = "It's a Secret to Everybody"
WINDOW = 300.0


def fits(headers: dict[str, str], body: bytes = BODY, secret: str = SECRET, now: float = NOW) -> bool:
    return read_claim(headers, now, WINDOW).fits(body, secret)


def ours(delivery: str = "", time: int = NOW) -> dict[str, str]:
    return {"x-pinflow-signature": sign(SECRET, BODY, time=time, delivery=delivery)}


def test_githubs_own_example_is_taken() -> None:
    # From GitHub's page on validating webhook deliveries.
    given = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert fits({"x-hub-signature-256": given}, b"Hello, World!")


def test_our_form_signs_the_time_the_delivery_and_the_body() -> None:
    assert fits(ours("d-1"))
    made = hmac.new(SECRET.encode(), f"{NOW}.d-1.".encode() + BODY, hashlib.sha256).hexdigest()
    assert ours("d-1") == {"x-pinflow-signature": f"t={NOW},id=d-1,v1={made}"}


@pytest.mark.parametrize(
    "changed",
    [
        ours("d-1")["x-pinflow-signature"].replace("d-1", "d-2"),
        ours("d-1")["x-pinflow-signature"].replace("id=d-1,", ""),
        ours()["x-pinflow-signature"].replace(f"t={NOW}", f"t={NOW + 1}"),
    ],
)
def test_what_is_signed_cannot_be_changed(changed: str) -> None:
    assert not fits({"x-pinflow-signature": changed})


def test_another_body_or_another_secret_does_not_fit() -> None:
    assert not fits(ours(), BODY + b" ")
    assert not fits(ours(), secret="another secret")


def test_one_of_several_signatures_is_enough_while_a_secret_is_rotated() -> None:
    header = ours()["x-pinflow-signature"]
    assert fits({"x-pinflow-signature": header.replace("v1=", f"v1={'0' * 64},v1=")})


@pytest.mark.parametrize("age", [-301, 301, -10_000_000])
def test_a_signature_of_another_time_is_refused(age: int) -> None:
    with pytest.raises(Unauthenticated, match="more than 300 s"):
        fits(ours(time=NOW + age))


@pytest.mark.parametrize("age", [-299, 299])
def test_clocks_may_differ_by_the_window(age: int) -> None:
    assert fits(ours(time=NOW + age))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer x"},
        {"x-hub-signature": "sha1=" + "0" * 40},
        {"x-hub-signature-256": "sha256="},
        {"x-hub-signature-256": "sha256=" + "G" * 64},
        {"x-hub-signature-256": "sha1=" + "0" * 64},
        {"x-hub-signature-256": "0" * 64},
        {"x-pinflow-signature": ""},
        {"x-pinflow-signature": f"t={NOW}"},
        {"x-pinflow-signature": f"v1={'0' * 64}"},
        {"x-pinflow-signature": f"t=soon,v1={'0' * 64}"},
        {"x-pinflow-signature": f"t={NOW},t={NOW},v1={'0' * 64}"},
        {"x-pinflow-signature": f"t={NOW},id=a.b,v1={'0' * 64}"},
        {"x-pinflow-signature": f"t={NOW},id={'a' * 101},v1={'0' * 64}"},
        {"x-pinflow-signature": f"t={NOW}," + ",".join([f"v1={'0' * 64}"] * 6)},
        {"x-pinflow-signature": f"t=٣,v1={'0' * 64}"},
        {"x-pinflow-signature": "," * 100_000},
    ],
)
def test_headers_that_are_no_signature_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated):
        fits(headers)


def test_githubs_form_beside_a_broken_one_of_ours_does_not_help() -> None:
    github = {"x-hub-signature-256": "sha256=" + hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest()}
    assert fits(github)
    with pytest.raises(Unauthenticated):
        fits(github | {"x-pinflow-signature": "t=1"})


# --- Standard Webhooks, which GitLab has as well ------------------------------------------------------------------------

TOKEN = "whsec_" + base64.b64encode(b"a key of thirty-two bytes, or so").decode()


def standard(delivery: str = "d-1", at: int = NOW, secret: str = TOKEN, body: bytes = BODY) -> dict[str, str]:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = base64.b64encode(hmac.digest(key, f"{delivery}.{at}.".encode() + body, "sha256")).decode()
    return {"webhook-id": delivery, "webhook-timestamp": str(at), "webhook-signature": f"v1,{made}"}


def test_the_example_of_standard_webhooks_is_taken() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert fits(headers, b'{"test": 2432232314}', secret, now=1614265330)


def test_one_of_several_standard_signatures_is_enough() -> None:
    mine = standard()["webhook-signature"]
    other = standard(secret="whsec_" + base64.b64encode(b"x" * 32).decode())["webhook-signature"]
    for listed in (f"{other} {mine}", f"v1a,abc {mine}", f"{mine} v2,{'0' * 300}"):
        assert fits(standard() | {"webhook-signature": listed}, secret=TOKEN)
    assert not fits(standard() | {"webhook-signature": other}, secret=TOKEN)


@pytest.mark.parametrize(
    "changed", [{"webhook-id": "d-2"}, {"webhook-timestamp": str(NOW + 1)}, {"webhook-id": f"d-1.{NOW}"}]
)
def test_what_is_signed_in_the_standard_form_cannot_be_changed(changed: dict[str, str]) -> None:
    try:
        assert not fits(standard() | changed, secret=TOKEN)
    except Unauthenticated:
        assert "." in changed["webhook-id"]


def test_a_standard_signature_of_another_body_or_time_is_refused() -> None:
    assert not fits(standard(), BODY + b" ", TOKEN)
    for age in (-301, 301):
        with pytest.raises(Unauthenticated, match="more than 300 s"):
            fits(standard(at=NOW + age), secret=TOKEN)


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": ""},
        {"webhook-id": "a b"},
        {"webhook-id": "a" * 101},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "-5"},
        {"webhook-timestamp": "1e9"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,é" + "A" * 42 + "="},
        {"webhook-signature": "v2," + "A" * 43 + "="},
        {"webhook-signature": " ".join(["v1," + "A" * 43 + "="] * 6)},
        {"webhook-signature": " " * 100_000},
    ],
)
def test_headers_that_are_no_standard_signature_are_refused(changed: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated):
        fits(standard() | changed, secret=TOKEN)


def test_a_signing_token_that_is_no_base64_fits_nothing_of_a_sender_who_has_the_right_one() -> None:
    assert not fits(standard(), secret="whsec_???")
    assert not fits(standard(), secret="whsec_é")


def test_the_code_of_the_how_to_page_signs_as_we_read() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/webhooks.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    header = {"x-pinflow-signature": names["signature"](SECRET, BODY, "d-1")}
    assert fits(header, now=time.time())
