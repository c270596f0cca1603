"""What other threads want done on Celery's thread: first in, first out, logged and never raised.

Celery's request objects, and the sets that `inspect` walks over, belong to the thread of its hub. An exception in a
callback of the hub ends the worker; one here is a log line. (The hub's own `call_soon` keeps a set, without order, and
forgets what is left of it when one of its callbacks fails.)
"""

import select
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class HubCallbacks:
    """The queue. Any thread may `put`; only Celery's thread may `run`."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._rung = False

    def fileno(self) -> int:
        """Return the descriptor that is readable while errands wait, for the hub's poller."""
        return self._reader.fileno()

    def put(self, errand: Callable[..., object], *arguments: Any) -> None:
        """Have `errand(*arguments)` called on Celery's thread, after all that was put before."""
        self._waiting.append((errand, arguments))
        if not self._rung:
            self._rung = True
            # A full buffer is readable, a closed one has nobody left to wake.
            with suppress(OSError):
                self._writer.send(b"\0")

    def run(self) -> None:
        """Do all that waits."""
        with suppress(OSError):
            self._reader.recv(4096)
        # Before the queue is read: whoever puts later rings again.
        self._rung = False
        while self._waiting:
            errand, arguments = self._waiting.popleft()
            try:
                errand(*arguments)
            except Exception:
                log.exception("errand.failed", errand=getattr(errand, "__qualname__", repr(errand)))

    def wait(self, seconds: float) -> None:
        """Return when something waits, or after `seconds`."""
        if not self._waiting:
            poller = select.poll()
            poller.register(self._reader, select.POLLIN)
            poller.poll(max(seconds, 0.0) * 1000)

    def close(self) -> None:
        """Give the descriptors back; what is put from now on is never done."""
        self._reader.close()
        self._writer.close()
