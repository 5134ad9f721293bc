"""Which addresses `http_request` may reach."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from engine.activities.egress import EgressRules
from engine.errors import Misconfigured

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.7",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "2606:4700::1111",
    "2a00:1450:4001::8",
    "64:ff9b::808:808",
    "::ffff:8.8.8.8",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_and_special_addresses_are_refused(address: str) -> None:
    assert not EgressRules().permit("host", 80, ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_let_through(address: str) -> None:
    assert EgressRules().permit("host", 80, ip_address(address))


@pytest.mark.parametrize(
    ("entry", "host", "port", "address", "allowed"),
    [
        ("10.1.0.0/16", "db", 80, "10.1.2.3", True),
        ("10.1.0.0/16", "db", 80, "10.2.2.3", False),
        ("10.1.0.0/16", "db", 80, "::ffff:10.1.2.3", True),
        ("127.0.0.1", "x", 99, "127.0.0.1", True),
        ("127.0.0.1:8080", "x", 8080, "127.0.0.1", True),
        ("127.0.0.1:8080", "x", 5432, "127.0.0.1", False),
        ("[::1]:8080", "x", 8080, "::1", True),
        ("[::1]:8080", "x", 8081, "::1", False),
        ("fd00::/8", "x", 1, "fd00::5", True),
        ("api.internal", "api.internal", 443, "10.0.0.5", True),
        ("api.internal", "API.Internal.", 443, "10.0.0.5", True),
        ("api.internal:8443", "api.internal", 443, "10.0.0.5", False),
        ("api.internal", "evil-api.internal", 443, "10.0.0.5", False),
    ],
)
def test_what_the_operator_allows(entry: str, host: str, port: int, address: str, allowed: bool) -> None:
    assert EgressRules([entry]).permit(host, port, ip_address(address)) is allowed


@pytest.mark.parametrize("entry", ["", "http://x", "*.internal", "a b", "x:port", "10.0.0.0/99"])
def test_a_rule_that_means_nothing_is_refused(entry: str) -> None:
    with pytest.raises(Misconfigured, match="PINFLOW_HTTP_ALLOW"):
        EgressRules([entry])
