"""The event loop in a separate thread, and a watchdog that ends the process if the loop is blocked.

A blocked loop reads no answer and handles no cancellation, but the heartbeat in its own thread would continue to renew
the lease of those calls.
"""

import asyncio
import concurrent.futures
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

import structlog

log = structlog.get_logger(__name__)

BLOCKED_EXIT_CODE = 70
LOG_S = 2.0
START_S = 10.0


class LoopThread:
    """An asyncio loop that runs from `start` to `stop`. A loop blocked for `block_s` seconds ends the process."""

    def __init__(self, *, block_s: float, uvloop: bool = False) -> None:
        self.block_s = block_s
        self.loop = _loop_factory(uvloop=uvloop)()
        self.ticked_at = monotonic()
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._wake_sent = False
        self._started = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="afterword-loop", daemon=True)
        self._watchdog = threading.Thread(target=self._watch, name="afterword-watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread and wait until the loop runs."""
        self._thread.start()
        if not self._started.wait(START_S):
            raise RuntimeError(f"the event loop did not start within {START_S} s")
        self._watchdog.start()

    def is_alive(self) -> bool:
        """Return whether the loop's thread is alive."""
        return self._thread.is_alive()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Queue `function(*arguments)` for the loop's thread, in order. A loop that has ended calls nothing."""
        self._calls.append((function, arguments))
        # One wake-up for all waiting calls, because each costs a system call and, under load, a wait for the GIL.
        if not self._wake_sent and not self.loop.is_closed():
            self._wake_sent = True
            self.loop.call_soon_threadsafe(self._run_calls)

    def submit(self, work: Coroutine[Any, Any, Any]) -> "concurrent.futures.Future[Any]":
        """Run a coroutine on the loop; call this from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self, *, patience_s: float) -> None:
        """Cancel the running tasks and end the thread; after `patience_s` seconds, return without waiting longer."""
        self._stopped.set()
        self.call(self.loop.stop)
        self._thread.join(patience_s)
        if self._thread.is_alive():
            log.error("loop.not_stopped", patience_s=patience_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._tick)
        self.loop.call_soon(self._started.set)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(_cancel_all())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()

    def _run_calls(self) -> None:
        # Reset before reading the queue: a later `call` wakes the loop again.
        self._wake_sent = False
        while self._calls:
            function, arguments = self._calls.popleft()
            self.loop.call_soon(function, *arguments)

    def _tick(self) -> None:
        self.ticked_at = monotonic()
        self.loop.call_later(min(self.block_s / 10, 0.5), self._tick)

    def _watch(self) -> None:
        period = self.block_s / 4
        looked_at = monotonic()
        while not self._stopped.wait(period):
            now = monotonic()
            # If this thread is late too, the whole process was stopped. The loop then gets one more period.
            is_on_time = now - looked_at < 2 * period
            looked_at = now
            if is_on_time and now - self.ticked_at > self.block_s:
                self._end_process(now - self.ticked_at)

    def _end_process(self, blocked_s: float) -> None:
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "the loop's thread has ended"
        # Log in another thread, because the loop may be blocked in a write to the log's stream.
        report = threading.Thread(target=_report, args=(blocked_s, stack), daemon=True)
        report.start()
        report.join(LOG_S)
        os._exit(BLOCKED_EXIT_CODE)


def _report(blocked_s: float, stack: str) -> None:
    log.critical("loop.blocked", blocked_s=round(blocked_s, 3), exit_code=BLOCKED_EXIT_CODE, stack=stack)


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _loop_factory(*, uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop]:
    if not uvloop:
        return asyncio.new_event_loop
    try:
        import uvloop as fast
    except ImportError:
        raise ValueError("the event loop is set to uvloop, which is not installed; run: pip install uvloop") from None
    factory: Callable[[], asyncio.AbstractEventLoop] = fast.new_event_loop
    return factory
