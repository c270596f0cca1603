"""Runs the pool's tasks: async ones as asyncio tasks on the loop, synchronous ones in threads. Knows nothing of Celery.

What begins with `_` runs on the loop's thread, which alone decides the race between a task's end and its cancellation.
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
from worker.pool.running_task import Call, Reason, drive, enter

log = structlog.get_logger(__name__)

SYNC_THREADS = 8


class TaskExited(Exception):
    """A task raised SystemExit or KeyboardInterrupt, which would have ended the loop and with it all other calls."""


@dataclass(slots=True, eq=False, weakref_slot=True, kw_only=True)
class PoolTask(Call):
    """One task to run: `work` does it, and three others, called on Celery's thread, hear of it.

    `accepted(pid, started_at)`: it begins. `exceeded(True, soft_s)`: past its soft limit, `limit_error` was raised in
    it. `settled(job, outcome)`: it ended; `outcome` is what `work` returned, an exception, or None if it was cancelled.
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
        """Cancel the task; Celery's name for it, on what it got from the pool."""
        self.revoke(self)


class Runner:
    """The tasks that run now."""

    def __init__(self, loop: LoopThread, errands: HubCallbacks) -> None:
        self._loop = loop
        self._errands = errands
        self._threads = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="afterword-sync")
        self._running: set[PoolTask] = set()

    def start(self, job: PoolTask) -> None:
        """Begin a task as soon as the loop comes to it."""
        self._loop.call(self._start, job)

    def cancel(self, job: PoolTask, reason: Reason) -> None:
        """Cancel one task. A synchronous one that has begun cannot be stopped."""
        self._loop.call(self._cancel, job, reason)

    def cancel_all(self, reason: Reason) -> None:
        """Cancel all tasks, also those whose `start` the loop has not come to."""
        self._loop.call(self._cancel_all, reason)

    def close(self) -> None:
        """Let the threads of synchronous tasks go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self, job: PoolTask) -> None:
        context = copy_context()
        context.run(enter, job)
        run = self._run_async(job) if job.is_async else self._run_sync(job)
        job.task = self._loop.loop.create_task(run, context=context)
        self._running.add(job)
        job.task.add_done_callback(partial(self._finish, job))

    async def _run_async(self, job: PoolTask) -> Any:
        self._accept(job)
        limit = self._loop.loop.call_later(job.soft_s, self._exceed, job, job.soft_s) if job.soft_s else None
        try:
            return await drive(job, job.work)
        except (SystemExit, KeyboardInterrupt) as error:
            raise TaskExited(f"{job.label} raised {error!r}") from error
        finally:
            if limit is not None:
                limit.cancel()

    async def _run_sync(self, job: PoolTask) -> Any:
        def work() -> Any:
            self._accept(job)
            return job.work()

        return await self._loop.loop.run_in_executor(self._threads, work)

    def _accept(self, job: PoolTask) -> None:
        self._errands.put(job.accepted, job.pid, monotonic())

    def _exceed(self, job: PoolTask, soft_s: float) -> None:
        if job.cancel(Reason.soft_limit, instead=job.limit_error(soft_s)):
            self._errands.put(job.exceeded, True, soft_s)

    def _cancel(self, job: PoolTask, reason: Reason) -> None:
        if job.task is not None and not job.is_async:
            log.warning("task.not_stopped", task=job.label, reason=reason.value)
            return
        job.cancel(reason)

    def _cancel_all(self, reason: Reason) -> None:
        for job in tuple(self._running):
            self._cancel(job, reason)

    def _finish(self, job: PoolTask, task: "asyncio.Task[Any]") -> None:
        self._running.discard(job)
        job.task = None
        outcome = None if task.cancelled() else task.exception() or task.result()
        self._errands.put(job.settled, job, outcome)
