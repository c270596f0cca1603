"""Run the pool's tasks: async functions on the event loop, synchronous functions in threads. Does not import Celery.

Methods with `_` run on the loop's thread, so no lock is needed between a task's end and its cancellation.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import structlog

from worker.pool.event_loop import LoopThread
from worker.pool.hub_callbacks import HubCallbacks
from worker.pool.running_task import Call, Reason, drive, set_current

log = structlog.get_logger(__name__)

SYNC_THREADS = 8


class TaskExited(Exception):
    """A task raised SystemExit or KeyboardInterrupt, and that would have ended the loop and all other calls."""


@dataclass(slots=True, eq=False, weakref_slot=True, kw_only=True)
class PoolTask(Call):
    """One task to run by calling `work`. Three callbacks report its progress on Celery's thread.

    `accepted(pid, started_at)`: the task starts. `exceeded(True, soft_s)`: the task exceeded its soft limit, and
    `limit_error` was raised in it. `settled(pool_task, outcome)`: the task ended; `outcome` is the result of `work`, an
    exception, or None if the task was cancelled.
    """

    pid: int
    queue: str
    label: str
    is_async: bool
    work: Callable[[], Any]
    accepted: Callable[[int, float], object]
    exceeded: Callable[[bool, float], object]
    settled: "Callable[[PoolTask, Any], object]"
    revoke: "Callable[[PoolTask], object]"
    soft_s: float | None
    limit_error: type[BaseException]

    def terminate(self, signal: int | None = None) -> None:
        """Cancel the task. Celery calls this method on the object that the pool returned."""
        self.revoke(self)


class Runner:
    """Starts and cancels tasks, and keeps the set of running tasks."""

    def __init__(self, loop: LoopThread, hub_callbacks: HubCallbacks) -> None:
        self._loop = loop
        self._hub_callbacks = hub_callbacks
        self._threads = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="afterword-sync")
        self._running: set[PoolTask] = set()

    def start(self, pool_task: PoolTask) -> None:
        """Start a task at the loop's next turn."""
        self._loop.call(self._start, pool_task)

    def cancel(self, pool_task: PoolTask, reason: Reason) -> None:
        """Cancel one task. A synchronous task cannot be stopped once it has started."""
        self._loop.call(self._cancel, pool_task, reason)

    def cancel_all(self, reason: Reason) -> None:
        """Cancel all tasks, including tasks that the loop has not started yet."""
        self._loop.call(self._cancel_all, reason)

    def close(self) -> None:
        """Shut down the threads of synchronous tasks, without waiting."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self, pool_task: PoolTask) -> None:
        context = copy_context()
        context.run(set_current, pool_task)
        run = self._run_async(pool_task) if pool_task.is_async else self._run_sync(pool_task)
        pool_task.task = self._loop.loop.create_task(run, context=context)
        self._running.add(pool_task)
        pool_task.task.add_done_callback(partial(self._finish, pool_task))

    async def _run_async(self, pool_task: PoolTask) -> Any:
        self._accept(pool_task)
        limit = (
            self._loop.loop.call_later(pool_task.soft_s, self._exceed, pool_task, pool_task.soft_s)
            if pool_task.soft_s
            else None
        )
        try:
            return await drive(pool_task, pool_task.work)
        except (SystemExit, KeyboardInterrupt) as error:
            raise TaskExited(f"{pool_task.label} raised {error!r}") from error
        finally:
            if limit is not None:
                limit.cancel()

    async def _run_sync(self, pool_task: PoolTask) -> Any:
        def work() -> Any:
            self._accept(pool_task)
            return pool_task.work()

        return await self._loop.loop.run_in_executor(self._threads, work)

    def _accept(self, pool_task: PoolTask) -> None:
        self._hub_callbacks.put(pool_task.accepted, pool_task.pid, monotonic())

    def _exceed(self, pool_task: PoolTask, soft_s: float) -> None:
        if pool_task.cancel(Reason.soft_limit, instead=pool_task.limit_error(soft_s)):
            self._hub_callbacks.put(pool_task.exceeded, True, soft_s)

    def _cancel(self, pool_task: PoolTask, reason: Reason) -> None:
        if pool_task.task is not None and not pool_task.is_async:
            log.warning("task.not_stopped", task=pool_task.label, reason=reason.value)
            return
        pool_task.cancel(reason)

    def _cancel_all(self, reason: Reason) -> None:
        for pool_task in tuple(self._running):
            self._cancel(pool_task, reason)

    def _finish(self, pool_task: PoolTask, task: "asyncio.Task[Any]") -> None:
        self._running.discard(pool_task)
        pool_task.task = None
        outcome = None if task.cancelled() else task.exception() or task.result()
        self._hub_callbacks.put(pool_task.settled, pool_task, outcome)
