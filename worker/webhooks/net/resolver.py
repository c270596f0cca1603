"""Resolves host names in bounded threads of our own, with a share for each owner. Used by `webhooks.net.address_guard`.

getaddrinfo cannot be cancelled: a name whose servers are silent holds its thread for half a minute. In asyncio's shared
pool a few such names would stall every lookup of the process; here they stall their owner's. Who waits for a thread
waits because of us, so that this is told apart from a name that is not answered.
"""

import asyncio
import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Final

# A thread that waits for an answer costs its stack, some 50 KiB. So many owners of silent names stall all the others.
THREADS: Final = 128
THREADS_PER_OWNER: Final = 4
PATIENCE_S: Final = 3.0

LookUp = Callable[[str, int], Sequence[str]]


def look_up(host: str, port: int) -> list[str]:
    """Return the numeric addresses of `host`, those of a scope with it ("fe80::1%2"). Blocks; raises OSError."""
    # Bytes: Python would run a str through its old IDNA codec, and raise UnicodeError for an empty label.
    found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    return [f"{where[0]}%{where[3]}" if len(where) == 4 and where[3] else str(where[0]) for *_, where in found]


class ResolverBusy(OSError):
    """No thread was free for a lookup in time: nothing is known of the name."""


class Resolver:
    """Any number of waiting lookups, none for longer than `patience_s`; at most `threads` running ones, of which at
    most `per_owner` are one owner's.

    The threads are daemons, so that a silent name server does not hold up the end of the worker.
    """

    def __init__(
        self,
        look_up: LookUp = look_up,
        *,
        threads: int = THREADS,
        per_owner: int = THREADS_PER_OWNER,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._look_up = look_up
        self._patience_s = patience_s
        self._per_owner = per_owner
        self._free = asyncio.Semaphore(threads)
        # Whoever waits or runs holds its owner's; an owner without lookups is forgotten.
        self._shares: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    async def resolve(self, host: str, port: int, *, owner: str, began: Callable[[], None] | None = None) -> list[str]:
        """Return the addresses of `host`; raises OSError if there are none, Crowded if the lookup could not begin.

        `began` is called when it does. From then on it is bounded by the caller, by cancellation: the thread stays
        busy, and counted, until its lookup returns.
        """
        share = self._shares.setdefault(owner, asyncio.Semaphore(self._per_owner))
        try:
            async with asyncio.timeout(self._patience_s):
                await self._take_thread(share)
        except TimeoutError as error:
            raise ResolverBusy("no thread was free for the lookup") from error
        if began is not None:
            began()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def end(found: list[str], error: OSError | None) -> None:
            self._free.release()
            share.release()
            if answer.cancelled():
                return
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        def run() -> None:
            found, error = _outcome(self._look_up, host, port)
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(end, found, error)

        try:
            threading.Thread(target=run, name="webhook-names", daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            end([], ResolverBusy("the system has no thread for the lookup"))
        return await answer

    async def _take_thread(self, share: asyncio.Semaphore) -> None:
        await share.acquire()
        try:
            await self._free.acquire()
        except BaseException:
            share.release()
            raise


def _outcome(look_up: LookUp, host: str, port: int) -> tuple[list[str], OSError | None]:
    try:
        found = list(look_up(host, port))
    except OSError as error:
        return [], error
    except Exception as error:  # a name that the resolver cannot even read: the thread must still give back its place
        unread = socket.gaierror(socket.EAI_NONAME, "the name cannot be read")
        unread.__cause__ = error
        return [], unread
    return found, None if found else socket.gaierror(socket.EAI_NONAME, "the name has no address")
