"""Group commit: one writer thread commits writes that arrive together in one transaction.

The event loop awaits `submit(function, item)`. The thread takes all waiting items, calls each store function once with
its list of items, and commits once. A bad item never fails the others: if a transaction fails, the thread repeats its
items one by one. While the database is away the thread waits. After a lock conflict an item is repeated later, alone.

A refused claim fails at once, because nothing was bought. A record with a paid answer fails only if the database
refuses its own data. The class of the error does not show that: a trigger, a lost table or an exhausted transaction
counter refuses every record with the same error. See `_is_refused_alone`.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, Engine

from worker.store.engine import describe, is_away, is_busy, is_refused, succeeds

Item = TypeVar("Item")
Result = TypeVar("Result")
StoreFunction = Callable[[Connection, Sequence[Item]], list[Result]]

AWAY_S = (0.1, 5.0)  # first and longest pause before a retry
BUSY_TRIES = 3
IDLE_S = 5.0  # the longest wait of an idle thread

log = structlog.get_logger()


async def finish_despite_cancel(work: "asyncio.Future[Result]") -> Result:
    """Wait for `work` and return its result; a cancellation during the wait is raised at the caller's next await."""
    task, cancelled = asyncio.current_task(), False
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled and task is not None:
        task.uncancel()
        task.cancel()
    return work.result()


class BatcherClosed(RuntimeError):
    """The writer thread has ended; this process writes nothing more."""


@dataclass(slots=True, eq=False)
class _Write:
    function: Callable[..., list[Any]]
    item: Any
    size: int
    plain: Callable[[], Any] | None = None
    future: "Future[Any]" = field(default_factory=Future)
    due_at: float = 0.0  # monotonic time of the retry, after a failure that was not the item's fault
    pause_s: float = AWAY_S[0]
    is_suspect: bool = False  # the item was refused, then the plain item was accepted


class Batcher:
    """Runs store functions for a process, in batches of at most `max_items` items and `max_bytes` bytes.

    `last`: functions that lock rows which every process needs, until the commit. They run after all other functions, in
    this order. `apart`: each function gets its own transaction. `turned` is called at each turn of the thread, see
    `worker.pool.liveness`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_items: int = 100,
        max_bytes: int = 8 * 1024 * 1024,
        last: tuple[StoreFunction[Any, Any], ...] = (),
        apart: bool = False,
        name: str = "writer",
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._last, self._apart, self._turned = engine, last, apart, turned
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._waiting: deque[_Write] = deque()
        self._postponed: list[_Write] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"afterword-{name}", daemon=True)

    def start(self) -> None:
        self._turned()
        self._thread.start()

    def close(self, *, timeout_s: float) -> bool:
        """Write the waiting items, then end the thread; return False if that takes longer than `timeout_s`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    async def submit(
        self,
        function: StoreFunction[Item, Result],
        item: Item,
        *,
        size: int = 0,
        plain: Callable[[], Item] | None = None,
    ) -> Result:
        """Run `function` on `item` in the next transaction and return its result after the commit.

        `plain` returns an item for the same rows without the data that the database may refuse. With `plain`, the item
        fails only if the plain item would not. A cancellation does not stop the write: it is raised at the caller's
        next await.
        """
        return await finish_despite_cancel(asyncio.wrap_future(self.put(function, item, size=size, plain=plain)))

    def put(
        self,
        function: StoreFunction[Item, Result],
        item: Item,
        *,
        size: int = 0,
        plain: Callable[[], Item] | None = None,
    ) -> "Future[Result]":
        """Queue a write from any thread; the future gets its result after the commit."""
        write = _Write(function, item, size, plain)
        with self._changed:
            if self._closing:
                raise BatcherClosed("the worker is ending; this write was not made")
            self._waiting.append(write)
            self._changed.notify()
        return write.future

    def _run(self) -> None:
        while batch := self._take():
            try:
                for writes in self._by_function(batch) if self._apart else [batch]:
                    self._write(writes)
            except Exception as error:
                # A bug in the writer itself: the callers get the exception, and the thread continues.
                log.error("writer.failed", items=len(batch), **describe(error))
                for write in batch:
                    if not write.future.done():
                        write.future.set_exception(error)

    def _take(self) -> list[_Write]:
        with self._changed:
            self._turned()
            while not self._waiting and not (ready := self._ready()):
                if self._closing and not self._postponed:
                    return []
                self._changed.wait(self._patience_s())
                self._turned()
            if not self._waiting or (ready := self._ready()):
                self._postponed.remove(ready[0])
                return [ready[0]]
            batch = [self._waiting.popleft()]
            size = batch[0].size
            while self._waiting and len(batch) < self._max_items and size + self._waiting[0].size <= self._max_bytes:
                batch.append(self._waiting.popleft())
                size += batch[-1].size
            return batch

    def _ready(self) -> list[_Write]:
        return [write for write in self._postponed if write.due_at <= time.monotonic()]

    def _patience_s(self) -> float:
        soonest = min((write.due_at - time.monotonic() for write in self._postponed), default=IDLE_S)
        return min(max(0.0, soonest), IDLE_S)

    def _write(self, batch: list[_Write]) -> None:
        try:
            results = self._transaction(batch)
        except Exception as error:
            if len(batch) > 1:
                log.warning("writer.batch_split", items=len(batch), **describe(error))
                for write in batch:
                    self._write([write])
            elif self._is_refused_alone(batch[0], error):
                batch[0].future.set_exception(error)
            else:
                self._postpone(batch[0], error)
            return
        for write, result in results:
            write.future.set_result(result)

    def _is_refused_alone(self, write: _Write, error: Exception) -> bool:
        """Return whether the database refuses this item because of its own data.

        For a paid item that takes three steps: the item is refused, its plain item is accepted (and rolled back), the
        item is refused again. A database that starts or stops refusing everything in between gives another result.
        """
        if is_busy(error):
            return False
        function, plain = write.function, write.plain
        if plain is None:
            return is_refused(error)
        if not write.is_suspect:
            write.is_suspect = succeeds(self._engine, lambda connection: function(connection, [plain()]))
            return False
        return True

    def _postpone(self, write: _Write, error: Exception) -> None:
        log.warning("writer.postponed", pause_s=write.pause_s, **describe(error))
        write.due_at = time.monotonic() + write.pause_s
        write.pause_s = min(write.pause_s * 2, AWAY_S[1])
        with self._changed:
            self._postponed.append(write)

    def _transaction(self, batch: list[_Write]) -> list[tuple[_Write, Any]]:
        """Run the batch in one transaction; wait while the database is away, retry a batch after a lock conflict."""
        pause_s, tries = AWAY_S[0], 0
        while True:
            try:
                with self._engine.begin() as connection:
                    return self._call(connection, batch)
            except Exception as error:
                if is_away(error):
                    log.warning("database.away", items=len(batch), pause_s=pause_s, **describe(error))
                elif is_busy(error) and tries < BUSY_TRIES and len(batch) > 1:
                    tries += 1
                else:
                    raise
            self._turned()
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, AWAY_S[1])

    def _call(self, connection: Connection, batch: list[_Write]) -> list[tuple[_Write, Any]]:
        results: list[tuple[_Write, Any]] = []
        for writes in self._by_function(batch):
            values = writes[0].function(connection, [write.item for write in writes])
            results.extend(zip(writes, values, strict=True))
        return results

    def _by_function(self, batch: list[_Write]) -> list[list[_Write]]:
        """Group the writes by function. All processes use the same order, because another order could deadlock."""
        groups: dict[Callable[..., list[Any]], list[_Write]] = {}
        for write in batch:
            groups.setdefault(write.function, []).append(write)
        return [groups[function] for function in sorted(groups, key=self._rank)]

    def _rank(self, function: Callable[..., list[Any]]) -> tuple[int, str]:
        return (self._last.index(function) if function in self._last else -1), function.__name__
