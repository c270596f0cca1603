"""Refuses webhooks to forbidden addresses: resolves each name once, then checks every address before it is used.

`send` stores an OutgoingRequest in the context variable OUTGOING for each request. aiohttp then asks the guard three
times. `resolve` returns a name's addresses; all of them must be allowed. `open_socket` checks the numeric address of
each connect, also of a literal host. `check_peer`, called through `net.transport`, checks the peer of the connection,
because a kept connection needs no connect.
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


class ForbiddenAddress(OSError):
    """An address that webhooks may not connect to. Names no address, because the tenant must not learn it."""


class OutgoingRequest:
    """One request on its way out; its lookup counts against the share of `owner`.

    `forbidden`: the guard refused an address of its target. `crowded`: no thread was free to look up its name.
    `looking` is called when the lookup begins, `found` when the address is known, just before the first connect.
    """

    __slots__ = ("_found", "crowded", "forbidden", "looking", "owner")

    def __init__(self, owner: str, *, looking: Callable[[], None], found: Callable[[], None]) -> None:
        self.owner = owner
        self.forbidden = self.crowded = False
        self.looking = looking
        self._found: Callable[[], None] | None = found

    def connecting(self) -> None:
        """Call `found` at the first connect."""
        found, self._found = self._found, None
        if found is not None:
            found()


OUTGOING: Final[ContextVar[OutgoingRequest]] = ContextVar("OUTGOING")


class Guard(AbstractResolver):
    """aiohttp's resolver and socket factory under one policy; refuses our `own` servers too."""

    def __init__(self, policy: Policy, names: Resolver, own: OwnServers | None = None) -> None:
        self.policy = policy
        self.own = own or OwnServers()
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of `host`. Raises ForbiddenAddress if any is forbidden, OSError if there is none."""
        outgoing = OUTGOING.get()
        try:
            addresses = await self._names.resolve(host, port, owner=outgoing.owner, began=outgoing.looking)
        except ResolverBusy:
            outgoing.crowded = True
            raise
        for address in addresses:
            self._check(address, port)
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
        """Do nothing: a running lookup ends by itself."""

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """Return a socket for a connect to the address of `info`. Raises ForbiddenAddress."""
        family, kind, protocol, _, address = info
        self._check(address[0], address[1])
        OUTGOING.get().connecting()
        return socket.socket(family, kind, protocol)

    def check_peer(self, sock: TransportSocket) -> str:
        """Return the peer address of a connection. Raises ForbiddenAddress, or OSError if the connection is lost."""
        peer = sock.getpeername()
        self._check(peer[0], peer[1])
        if OUTGOING.get().forbidden:
            raise ForbiddenAddress
        return str(peer[0])

    def _check(self, address: str, port: int) -> None:
        if not self.policy.is_allowed(address, port) or self.own.holds(address, port):
            OUTGOING.get().forbidden = True
            raise ForbiddenAddress
