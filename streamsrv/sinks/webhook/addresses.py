"""Which addresses a webhook may reach.  A name is resolved here, each address is looked at, and the connection goes to
one of those very addresses: a name that points elsewhere a moment later changes nothing."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator
from typing import TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_ADDRESSES = 16
"""Addresses of one name looked at; further ones are left out."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class NotAllowed(OSError):
    """The name leads only to addresses that a webhook may not reach."""


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet; of one that wraps an IPv4 address, that one counts."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0].strip("[]"))
    except ValueError:
        return False
    return all(_plain(one) for one in tuple(_wrapped(address)) or (address,))


def _plain(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved


def _wrapped(address: Address) -> Iterator[Address]:
    """IPv4 addresses inside: mapped, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)


class Resolver(AbstractResolver):
    """Resolves names for the HTTP client, and lets only allowed addresses through.

    Args:
        allow_private: all are allowed.
    """

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
        )
        addresses = [(where[0], one) for one, _, _, _, where in found[:MAX_ADDRESSES] if isinstance(where[0], str)]
        allowed = [pair for pair in addresses if self._allow_private or is_public(pair[0])]
        if not allowed:
            raise NotAllowed("the name leads to no address a webhook may reach")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=one, proto=0, flags=socket.AI_NUMERICHOST)
            for address, one in allowed
        ]

    async def close(self) -> None:
        """Nothing is held."""
