"""The Celery pool: runs thousands of `async def` tasks on one event loop, and synchronous tasks in threads.

Celery calls the pool from its own thread (`apply_async`, `terminate_job`, `stop`). The loop's thread runs the tasks and
reports to Celery through `HubCallbacks`. The pool counts slots by the tasks that really run, so a lost message can
never lose a slot.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from functools import partial, wraps
from inspect import iscoroutinefunction
from time import monotonic
from typing import Any

import structlog
from billiard.einfo import ExceptionInfo
from celery import Celery, _state
from celery.concurrency.base import BasePool
from celery.exceptions import Ignore, SoftTimeLimitExceeded, Terminated, WorkerLostError
from celery.utils.threads import USE_FAST_LOCALS
from celery.worker import state as worker_state

from worker.pool.event_loop import LoopThread
from worker.pool.hub_callbacks import HubCallbacks
from worker.pool.process_limits import fit_slots, raise_limit
from worker.pool.runner import PoolTask, Runner
from worker.pool.running_task import Reason, identity, wait_for

log = structlog.get_logger(__name__)

CALLS = "chat.run"  # `-c` sets the slots of this queue
SIGTERM = 15
# The longest time for a cancelled task to record its job, and for a cleanup to close its connections.
RELEASE_S = 10.0
LOOP_END_S = 5.0


class TaskPool(BasePool):  # type: ignore[misc]  # Celery publishes no types
    """Celery's extension point, one per process: `worker_pool = "worker.pool.pool:TaskPool"`."""

    signal_safe = False
    is_green = False
    uses_semaphore = False
    task_join_will_block = False
    body_can_be_buffer = True

    def __init__(self, limit: int | None = None, **options: Any) -> None:
        super().__init__(limit, **options)
        self._refuse_unsupported_options()
        conf = self.app.conf
        self.drain_s: float = conf.afterword_drain_s
        self.cleanups: list[Callable[[], Awaitable[None]]] = []  # run on the loop after the last task
        self.hub_callbacks = HubCallbacks()
        asked = {CALLS: limit or conf.worker_concurrency, **conf.afterword_slots}
        self._slots: Mapping[str, int] = fit_slots(asked, limit=raise_limit())
        self.limit: int = self._slots[CALLS]
        self._loop = LoopThread(block_s=conf.afterword_block_s, uvloop=conf.afterword_uvloop)
        self._runner = Runner(self._loop, self.hub_callbacks)
        self._tasks: dict[int, PoolTask] = {}
        self._active: Counter[str] = Counter()
        self._last_pid = 0

    # Called by the rest of the worker.

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that runs the tasks."""
        return self._loop.loop

    @property
    def loop_ticked_at(self) -> float:
        """The monotonic time of the loop's last turn."""
        return self._loop.ticked_at

    def submit(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Run a coroutine on the loop; call this from another thread."""
        return self._loop.submit(work)

    def end_worker(self, exit_code: int) -> None:
        """Make Celery end this worker as after SIGTERM, but with this exit code. Safe from any thread."""
        worker_state.should_stop = exit_code
        # The hub reads the flag at its next turn, and an empty callback wakes it.
        self.hub_callbacks.put(lambda: None)

    def abort(self, reason: Reason) -> None:
        """Cancel every running call, from any thread. The calls read the reason with `running_task.reason()`."""
        self._runner.cancel_all(reason)

    def active(self, queue: str) -> int:
        """Return the number of tasks of `queue` that hold a slot: exact on Celery's thread, slightly old elsewhere."""
        return self._active[queue]

    def free(self, queue: str) -> int:
        """Return the number of tasks of `queue` that may start now."""
        return max(self._slots.get(queue, self.limit) - self._active[queue], 0)

    def soon(self, callback: Callable[[], None]) -> None:
        """Wake Celery's thread and run `callback` on it. Safe from any thread."""
        self.hub_callbacks.put(callback)

    # Called by Celery, on its thread.

    def on_start(self) -> None:
        """Key Celery's context-local stacks by call instead of thread, and start the loop."""
        for stack in [_state._task_stack, *(task.request_stack for task in self.app.tasks.values())]:
            stack.__ident_func__ = identity
        self._loop.start()

    def did_start_ok(self) -> bool:
        """Return whether tasks can run."""
        return self._loop.is_alive()

    def register_with_event_loop(self, hub: Any) -> None:
        """Register the callbacks with the hub. Celery calls this after each reconnect, because it empties the hub."""
        hub.add_reader(self.hub_callbacks.fileno(), self.hub_callbacks.run)

    def on_apply(self, target: Callable[..., Any], args: Any, kwargs: Any, **options: Any) -> PoolTask:
        """Start a task and return at once. `args` are those of Celery's tracer: (task name, id, request, ...)."""
        self._last_pid += 1
        pool_task = PoolTask(
            pid=self._last_pid,
            queue=(args[2].get("delivery_info") or {}).get("routing_key") or "",
            label=f"{args[0]}[{args[1]}]",
            is_async=getattr(self.app.tasks[args[0]], "is_async", False),
            work=partial(target, *args, **kwargs),
            accepted=options["accept_callback"],
            exceeded=options["timeout_callback"],
            settled=partial(self._report_end, options["callback"]),
            revoke=partial(self._runner.cancel, reason=Reason.revoked),
            soft_s=options.get("soft_timeout") or self.options.get("soft_timeout"),
            limit_error=SoftTimeLimitExceeded,
        )
        self._tasks[pool_task.pid] = pool_task
        self._active[pool_task.queue] += 1
        self._runner.start(pool_task)
        return pool_task

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Cancel one task, because it was revoked."""
        if pool_task := self._tasks.get(pid):
            pool_task.terminate(signal)

    def on_stop(self) -> None:
        """Warm shutdown: let calls finish for `drain_s`, cancel the rest, end the loop.

        A cold shutdown also calls this, inside a signal handler that may interrupt any code. Then this method only
        cancels, and `on_terminate` waits.
        """
        if worker_state.should_terminate not in (None, False):
            self.abort(Reason.shutdown)
            return
        if self._tasks:
            log.info("pool.draining", calls=len(self._tasks), drain_s=self.drain_s)
        self._drain(self.drain_s)
        self.on_terminate()

    def on_terminate(self) -> None:
        """Cold shutdown, and end of a warm shutdown: cancel the calls, wait until they are recorded, end the loop."""
        if not self._loop.is_alive():
            return
        self.abort(Reason.shutdown)
        if not self._drain(RELEASE_S):
            log.error("pool.abandoned", calls=len(self._tasks), release_s=RELEASE_S)
        self._clean_up()
        self._runner.close()
        self._loop.stop(patience_s=LOOP_END_S)
        self.hub_callbacks.close()

    def _get_info(self) -> dict[str, Any]:
        queues = {queue: {"free": self.free(queue), "active": count} for queue, count in self._active.items()}
        return {
            **super()._get_info(),
            "queues": queues,
            "loop-ticked-s-ago": round(monotonic() - self.loop_ticked_at, 3),
        }

    def _report_end(self, callback: Callable[[Any], object], pool_task: PoolTask, outcome: Any) -> None:
        del self._tasks[pool_task.pid]
        self._active[pool_task.queue] -= 1
        callback(_for_celery(pool_task, outcome))

    def _drain(self, seconds: float) -> bool:
        """Run callbacks until no task is left; return whether that took at most `seconds`."""
        give_up = monotonic() + seconds
        self.hub_callbacks.run()
        while self._tasks and (left := give_up - monotonic()) > 0:
            self.hub_callbacks.wait(left)
            self.hub_callbacks.run()
        return not self._tasks

    def _clean_up(self) -> None:
        for cleanup in self.cleanups:
            try:
                self._loop.submit(_run_cleanup(cleanup)).result(RELEASE_S)
            except Exception:
                log.exception("pool.cleanup_failed", cleanup=getattr(cleanup, "__qualname__", repr(cleanup)))

    def _refuse_unsupported_options(self) -> None:
        if limit_s := self.options.get("timeout"):
            raise SystemExit(
                f"the hard time limit is {limit_s} s, but this worker's tasks take none: a job's timeout_s bounds its "
                "call; drop --time-limit and task_time_limit"
            )
        if USE_FAST_LOCALS:
            raise SystemExit("USE_FAST_LOCALS is set, but this pool needs Celery's own stacks; unset it")


def async_task(app: Celery, **options: Any) -> Callable[[Callable[..., Coroutine[Any, Any, Any]]], Any]:
    """Register an `async def` function as a task of `app`: `@async_task(app, name="chat.run")`.

    `options` are Celery's. Raises ValueError for a hard time limit: Celery would mark the task as failed and free its
    slot while the task still records a paid answer.
    """
    if limit_s := options.get("time_limit"):
        raise ValueError(
            f"time_limit is {limit_s}, but async tasks take no hard limit: bound the call inside the task, or use "
            "soft_time_limit"
        )

    def register(function: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
        if not iscoroutinefunction(function):
            raise TypeError(f"{function!r} is no async function; register it with app.task")

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            return wait_for(function(*args, **kwargs))

        return app.task(is_async=True, **options)(run)

    return register


def _for_celery(pool_task: PoolTask, outcome: Any) -> tuple[int, Any, float]:
    """Return the tracer's result for Celery, or a failure if the task was revoked or ended outside of the tracer."""
    if pool_task.reason is Reason.revoked:
        return _failed(Terminated(SIGTERM))
    if outcome is None:
        # We cancelled it. `Terminated` would announce a revocation, and a revocation cancels the job.
        return _failed(Ignore())
    if isinstance(outcome, BaseException):
        # Not announced yet. Celery itself announces a failure of this type.
        return _failed(WorkerLostError(f"{type(outcome).__name__}: {outcome}"))
    return outcome  # type: ignore[no-any-return]


def _failed(error: Exception) -> tuple[int, Any, float]:
    try:
        raise error  # an ExceptionInfo needs a traceback
    except Exception:
        return 1, ExceptionInfo(), 0.0


async def _run_cleanup(cleanup: Callable[[], Awaitable[None]]) -> None:
    await cleanup()
