"""Unit tests talk to this machine only."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_blocking = False
_installed = False


class OutsideWorld(AssertionError):
    """A unit test tried to reach another machine."""


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _blocking and event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and not _is_loopback(str(address[0])):
            raise OutsideWorld(f"a unit test connects to {address!r}; only loopback is open to it")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def loopback_only() -> Iterator[None]:
    """Make every connection of a Python socket to another machine fail inside of the block."""
    global _blocking, _installed
    if not _installed:  # an audit hook cannot be taken away again, hence the flag
        sys.addaudithook(_watch)
        _installed = True
    _blocking = True
    try:
        yield
    finally:
        _blocking = False
