"""Callbacks from other threads for the hub's thread: first in, first out; errors are logged, never raised.

Celery's request objects, and the sets that `inspect` iterates, belong to the hub's thread. An exception in one of the
hub's own callbacks ends the worker; here it becomes a log line. (The hub's `call_soon` uses a set without order, and
drops the remaining callbacks when a callback fails.)
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
    """The queue of callbacks. Any thread may `put`; only the hub's thread may `run`."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wake_sent = False

    def fileno(self) -> int:
        """Return the descriptor that is readable while callbacks wait, for the hub's poller."""
        return self._reader.fileno()

    def put(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Queue `callback(*arguments)` for the hub's thread."""
        self._waiting.append((callback, arguments))
        if not self._wake_sent:
            self._wake_sent = True
            # A full buffer is readable already, and after `close` no thread waits.
            with suppress(OSError):
                self._writer.send(b"\0")

    def run(self) -> None:
        """Call all waiting callbacks."""
        with suppress(OSError):
            self._reader.recv(4096)
        # Reset before reading the queue: a later `put` wakes the hub again.
        self._wake_sent = False
        while self._waiting:
            callback, arguments = self._waiting.popleft()
            try:
                callback(*arguments)
            except Exception:
                log.exception("errand.failed", errand=getattr(callback, "__qualname__", repr(callback)))

    def wait(self, seconds: float) -> None:
        """Return when a callback waits, or after `seconds`."""
        if not self._waiting:
            poller = select.poll()
            poller.register(self._reader, select.POLLIN)
            poller.poll(max(seconds, 0.0) * 1000)

    def close(self) -> None:
        """Close the descriptors; callbacks put from now on never run."""
        self._reader.close()
        self._writer.close()
