"""Resolves host names in at most THREADS threads, with a share for each owner. Used by `webhooks.net.address_guard`.

getaddrinfo cannot be cancelled: if a name's servers do not answer, the lookup holds its thread for half a minute. In
asyncio's shared pool a few such names would stall every lookup of the process; here they stall only their owner's.
Waiting for a thread is our fault, not the receiver's: ResolverBusy reports it apart from a name without an answer.
"""

import asyncio
import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Final

# A waiting thread costs its stack, about 50 KiB. 32 owners (128 / 4) with silent name servers stall all the others.
THREADS: Final = 128
THREADS_PER_OWNER: Final = 4
PATIENCE_S: Final = 3.0

LookUp = Callable[[str, int], Sequence[str]]


def look_up(host: str, port: int) -> list[str]:
    """Return the numeric addresses of `host`, with the scope if there is one ("fe80::1%2"). Blocks; raises OSError."""
    # Bytes, because Python passes a str through its old IDNA codec, which raises UnicodeError for an empty label.
    found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    return [
        f"{address[0]}%{address[3]}" if len(address) == 4 and address[3] else str(address[0]) for *_, address in found
    ]


class ResolverBusy(OSError):
    """No thread was free in time, so the lookup did not begin. It says nothing about the name."""


class Resolver:
    """Runs at most `threads` lookups, at most `per_owner` of them for the same owner; others wait up to `patience_s`.

    The threads are daemons: a silent name server must not delay the end of the worker.
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
        # Weak: each lookup, waiting or running, holds its owner's semaphore, and an owner without lookups disappears.
        self._shares: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    async def resolve(self, host: str, port: int, *, owner: str, began: Callable[[], None] | None = None) -> list[str]:
        """Return the addresses of `host`; raise OSError if there are none, ResolverBusy if the lookup cannot begin.

        `began` is called when the lookup begins. From then on the caller limits it by cancelling; the thread still
        counts as busy until its lookup returns.
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
            found, error = _look_up_or_error(self._look_up, host, port)
            with contextlib.suppress(RuntimeError):  # the loop has ended: no task waits for the answer
                loop.call_soon_threadsafe(end, found, error)

        try:
            threading.Thread(target=run, name="webhook-names", daemon=True).start()
        except RuntimeError:  # the operating system allows no more threads
            end([], ResolverBusy("the system has no thread for the lookup"))
        return await answer

    async def _take_thread(self, share: asyncio.Semaphore) -> None:
        await share.acquire()
        try:
            await self._free.acquire()
        except BaseException:
            share.release()
            raise


def _look_up_or_error(look_up: LookUp, host: str, port: int) -> tuple[list[str], OSError | None]:
    try:
        found = list(look_up(host, port))
    except OSError as error:
        return [], error
    except Exception as error:  # the resolver cannot even read the name; the thread must still release its place
        unread = socket.gaierror(socket.EAI_NONAME, "the name cannot be read")
        unread.__cause__ = error
        return [], unread
    return found, None if found else socket.gaierror(socket.EAI_NONAME, "the name has no address")
