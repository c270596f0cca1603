"""Where this service's own servers are: no webhook connects to them, whatever is opened.

The database and Redis are refused wherever they are. An endpoint is refused by its name everywhere, and by its address
only in private space: out there everybody can reach it, and its address may be a provider's, shared with receivers. Of
a private one port 443 is left to names: one address of an ingress serves many, and TLS asks for the right one.

An address of this machine is all of them: a Redis on 127.0.0.1 may listen on the others, too.
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
    """A server of ours; `host` is a name or a numeric address. `is_endpoint`: not the database, nor Redis."""

    host: str
    port: int
    is_endpoint: bool = False


class OwnServers:
    """The addresses of our servers, as their names resolve now; looked up again when they are FRESH_S old.

    `moving` returns those that change by themselves, as behind Sentinel; where it raises OSError, nothing changes.
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
        """See to it that the addresses are known, and are not old for long; wait only the first time, LOOKUP_S at most.

        A name that does not resolve keeps the addresses it had.
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
        """Give up a lookup that runs."""
        if self._renewal is not None:
            self._renewal.cancel()

    def is_named(self, host: str, port: int) -> bool:
        """Say whether a URL's host and port are those of a server of ours, as it is written in the settings."""
        return any((one.host.lower(), one.port) == (host, port) for one in self._servers)

    def holds(self, address: str, port: int) -> bool:
        """Say whether a server of ours is at a numeric address."""
        asked = plain(address)
        for one in self._servers:
            if one.port != port:
                continue
            theirs = self._found.get(one, frozenset({plain(one.host)}))
            if one.is_endpoint:
                theirs = frozenset(each for each in theirs if port != HTTPS_PORT and not is_public(each))
            if asked in theirs or (any(map(_is_here, theirs)) and _is_here(asked)):
                return True
        return False

    async def _look_all_up(self) -> None:
        with suppress(OSError):
            self._servers = (*self._fixed, *await asyncio.to_thread(lambda: tuple(self._moving())))
        for one in self._servers:
            try:
                found = await asyncio.to_thread(self._look_up, one.host, one.port)
            except (OSError, UnicodeError):
                continue
            if found:
                self._found[one] = frozenset(map(plain, found))


def _is_here(address: str) -> bool:
    """Say whether an address is one of this machine's: only such a one can be bound to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
