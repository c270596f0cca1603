"""Stands between a webhook and the network: names resolved once, forbidden addresses never connected to.

`send` puts a Passage into the context of each request. aiohttp then asks the guard three times: for a name's
addresses, all of which must be allowed; for the socket of each connect, by its numeric address, literal ones included;
and, through `net.transport`, about the peer of the connection, which may be a kept one.
"""

import socket
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from aiohappyeyeballs import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from worker.webhooks.net.address_policy import Policy
from worker.webhooks.net.own_servers import OwnServers
from worker.webhooks.net.resolver import Resolver, ResolverBusy


class Forbidden(OSError):
    """An address that webhooks may not connect to. Deliberately says no more: the tenant must not learn addresses."""


class OutgoingRequest:
    """One request on its way out: `owner` pays for its lookup.

    `forbidden`: the guard refused an address of its target. `crowded`: there was no room to look its name up.
    `looking` is called when the lookup begins, `found` when the address is known, just before the first connect.
    """

    __slots__ = ("_found", "crowded", "forbidden", "looking", "owner")

    def __init__(self, owner: str, *, looking: Callable[[], None], found: Callable[[], None]) -> None:
        self.owner = owner
        self.forbidden = self.crowded = False
        self.looking = looking
        self._found: Callable[[], None] | None = found

    def connecting(self) -> None:
        """Note the first connect."""
        found, self._found = self._found, None
        if found is not None:
            found()


PASSAGE: Final[ContextVar[OutgoingRequest]] = ContextVar("PASSAGE")


class Guard(AbstractResolver):
    """aiohttp's resolver and its socket factory in one, under one policy; nothing goes to our `own` servers."""

    def __init__(self, policy: Policy, names: Resolver, own: OwnServers | None = None) -> None:
        self.policy = policy
        self.own = own or OwnServers()
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of `host`. Raises Forbidden if one of them is, OSError if there are none."""
        passage = PASSAGE.get()
        try:
            addresses = await self._names.resolve(host, port, owner=passage.owner, began=passage.looking)
        except ResolverBusy:
            passage.crowded = True
            raise
        for address in addresses:
            self._admit(address, port)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in dict.fromkeys(addresses)
        ]

    async def close(self) -> None:
        """Do nothing: a lookup that runs ends by itself."""

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """Return a socket for a connect to the address of `info`. Raises Forbidden."""
        family, kind, protocol, _, where = info
        self._admit(where[0], where[1])
        PASSAGE.get().connecting()
        return socket.socket(family, kind, protocol)

    def check_peer(self, sock: TransportSocket) -> str:
        """Return the address a connection really leads to. Raises Forbidden; OSError if it is lost."""
        where = sock.getpeername()
        self._admit(where[0], where[1])
        if PASSAGE.get().forbidden:
            raise Forbidden
        return str(where[0])

    def _admit(self, address: str, port: int) -> None:
        if not self.policy.is_allowed(address, port) or self.own.holds(address, port):
            PASSAGE.get().forbidden = True
            raise Forbidden
