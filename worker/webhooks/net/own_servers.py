"""Addresses of this service's own servers: no webhook connects to them, whichever networks the operator allows.

The database and Redis are refused at every address. An endpoint is always refused by its name, but by its address only
in private networks: a public endpoint's address may belong to a CDN that also serves receivers. Port 443 of a private
endpoint's address is allowed too: an ingress serves many hosts at one address, and TLS selects the host by its name.

If a server has an address of this machine, all addresses of this machine are refused: a Redis on 127.0.0.1 may listen
on the others too.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from worker.webhooks.net.address_policy import HTTPS_PORT, is_public, plain
from worker.webhooks.net.resolver import LookUp, look_up

FRESH_S: Final = 30.0
LOOKUP_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server of ours; `host` is a name or a numeric address. `is_endpoint`: neither the database nor Redis."""

    host: str
    port: int
    is_endpoint: bool = False


class OwnServers:
    """The resolved addresses of our servers; looked up again after FRESH_S.

    `moving` returns the servers that may change, such as the primary behind Sentinel. If it raises OSError, the
    previous servers stay.
    """

    def __init__(
        self,
        servers: Iterable[Server] = (),
        look_up: LookUp = look_up,
        *,
        moving: Callable[[], Iterable[Server]] = lambda: (),
    ) -> None:
        self._fixed = self._servers = tuple(servers)
        self._look_up, self._moving = look_up, moving
        self._found: dict[Server, frozenset[str]] = {}
        self._until_s = 0.0
        self._renewal: asyncio.Task[None] | None = None

    async def renew(self) -> None:
        """Start a new lookup if the addresses are old; wait for it only the first time, at most LOOKUP_S.

        A name that does not resolve keeps its previous addresses.
        """
        now_s = asyncio.get_running_loop().time()
        if not self._servers or now_s < self._until_s:
            return
        first = self._until_s == 0.0
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._look_all_up())
        if first:
            await asyncio.wait([self._renewal], timeout=LOOKUP_S)
        self._until_s = now_s + FRESH_S

    def close(self) -> None:
        """Cancel a running lookup."""
        if self._renewal is not None:
            self._renewal.cancel()

    def is_named(self, host: str, port: int) -> bool:
        """Say whether a URL's host and port equal those of a server of ours, as written in the settings."""
        return any((server.host.lower(), server.port) == (host, port) for server in self._servers)

    def holds(self, address: str, port: int) -> bool:
        """Say whether a server of ours has this numeric address and port."""
        target = plain(address)
        for server in self._servers:
            if server.port != port:
                continue
            addresses = self._found.get(server, frozenset({plain(server.host)}))
            if server.is_endpoint:
                addresses = frozenset(known for known in addresses if port != HTTPS_PORT and not is_public(known))
            if target in addresses or (any(map(_is_of_this_machine, addresses)) and _is_of_this_machine(target)):
                return True
        return False

    async def _look_all_up(self) -> None:
        with suppress(OSError):
            self._servers = (*self._fixed, *await asyncio.to_thread(lambda: tuple(self._moving())))
        for server in self._servers:
            try:
                found = await asyncio.to_thread(self._look_up, server.host, server.port)
            except (OSError, UnicodeError):
                continue
            if found:
                self._found[server] = frozenset(map(plain, found))


def _is_of_this_machine(address: str) -> bool:
    """Say whether this machine has the address: a socket can bind only to its machine's own addresses."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
