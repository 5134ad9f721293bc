"""Which addresses `http_request` may reach, and a network door that lets no other through.

A name is resolved once; every address that it has is judged; the connection goes to a judged address and to no
other, while `Host` and the name in TLS stay those of the URL.  The pool opens each connection through this door, so
each hop of a redirect and each reconnect is judged anew, and a name that changes its answer gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore2

from engine.errors import Misconfigured

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

# Written out, because `ipaddress.is_global` has meant different things in different releases of Python.
_REFUSED_V4 = [
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host agent on a public address
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
# Of IPv6 only global unicast is let through, less its parts that tunnel, document or stay local.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = [
    ipaddress.IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
_MAPPED_V4 = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class EgressDenied(Exception):
    """The address may not be reached; the message says which and what the operator can do."""


class EgressRules:
    """Public addresses may be reached, others only if the operator allows them.

    An entry of `allow` is a host name, an address or a CIDR block; a name or an address may have `:port`
    (`[::1]:8080` for IPv6). Raises `Misconfigured` for anything else.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._networks: list[tuple[Any, int | None]] = []
        self._hosts: set[tuple[str, int | None]] = set()
        for entry in allow:
            self._add(entry.strip())

    def _add(self, entry: str) -> None:
        try:
            self._networks.append((ipaddress.ip_network(entry, strict=False), None))
            return
        except ValueError:
            pass
        name, _, port = entry.rpartition(":") if ":" in entry else (entry, "", "")
        if (
            not name
            or "/" in name
            or "*" in name
            or any(c.isspace() for c in name)
            or (port and not port.isdecimal())
        ):
            raise Misconfigured(
                f"PINFLOW_HTTP_ALLOW holds {entry!r}",
                hint="give host names, addresses or CIDR blocks, each name or address with :port if you like",
            )
        number = int(port) if port else None
        try:
            self._networks.append((ipaddress.ip_network(name.strip("[]")), number))
        except ValueError:
            self._hosts.add((_plain(name), number))

    def permit(self, host: str, port: int, address: Address) -> bool:
        """Whether `address`, which `host` resolved to, may be connected to at `port`."""
        if not self._hosts.isdisjoint({(_plain(host), None), (_plain(host), port)}):
            return True
        inner = _inside(address)
        for network, only_port in self._networks:
            if only_port in (None, port) and (address in network or inner in network):
                return True
        return _public(inner)


def _plain(host: str) -> str:
    return host.lower().rstrip(".")


def _inside(address: Address) -> Address:
    """The IPv4 address that an IPv6 one carries, else the address itself."""
    if isinstance(address, ipaddress.IPv6Address) and (address in _MAPPED_V4 or address in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in block for block in _REFUSED_V4)
    return address in _GLOBAL_V6 and not any(address in block for block in _REFUSED_V6)


class Resolver:
    """The machine's own resolver, on threads of its own: a name server that hangs must not stop other threads' work."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="dns")

    async def __call__(self, host: str, port: int) -> list[str]:
        """Every address of `host`, in the order in which the machine prefers them. Raises OSError or UnicodeError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads,
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP),
        )
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        """Wait for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections to permitted addresses only. Raises `EgressDenied` before any packet is sent."""

    def __init__(self, rules: EgressRules, resolve: Resolve) -> None:
        self._rules = rules
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first permitted address that answers; `timeout` is for all of them together."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (timeout if timeout is not None else 60.0)
        try:
            async with asyncio.timeout_at(end):
                addresses = await self._permitted(host, port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"no address for {host!r} in time") from error
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                # A share of the time for each: one address that swallows packets must not eat it all.
                share = max((end - loop.time()) / left, 0.05)
                return await self._network.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if left == 1:
                    raise
        raise httpcore2.ConnectError(f"{host!r} has no address")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Never."""
        raise EgressDenied("unix sockets cannot be reached")

    async def sleep(self, seconds: float) -> None:
        """As the base asks."""
        await asyncio.sleep(seconds)

    async def _permitted(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = [str(ipaddress.ip_address(host))]
        except ValueError:
            try:
                addresses = await self._resolve(host, port)
            except (OSError, UnicodeError) as error:
                raise httpcore2.ConnectError(f"cannot resolve {host!r}: {error}") from error
        for address in addresses:
            if not self._rules.permit(host, port, ipaddress.ip_address(address)):
                shown = host if address == host else f"{host} ({address})"
                raise EgressDenied(
                    f"{shown} is a private or special address; the operator can allow it in PINFLOW_HTTP_ALLOW"
                )
        return addresses
