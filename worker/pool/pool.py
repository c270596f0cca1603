"""The Celery pool that runs `async def` tasks by the thousand on one event loop; synchronous ones run in threads.

Celery calls in on its own thread (`apply_async`, `terminate_job`, `stop`); the loop's thread runs the tasks; what
Celery must hear comes back through `HubCallbacks`. How many tasks each queue has here is counted in what really runs,
so that nothing that happens to a message on its way can lose a slot.
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
from worker.pool.process_limits import fitting, raise_limit
from worker.pool.runner import PoolTask, Runner
from worker.pool.running_task import Reason, identity, wait_for

log = structlog.get_logger(__name__)

CALLS = "chat.run"  # the queue whose slots are `-c`
SIGTERM = 15
# What a cancelled body may take to put its job away, and a cleanup to close its connections.
RELEASE_S = 10.0
LOOP_END_S = 5.0


class TaskPool(BasePool):  # type: ignore[misc]  # Celery publishes no types
    """Celery's extension point: `worker_pool = "worker.pool.pool:TaskPool"`. One a process."""

    signal_safe = False
    is_green = False
    uses_semaphore = False
    task_join_will_block = False
    body_can_be_buffer = True

    def __init__(self, limit: int | None = None, **options: Any) -> None:
        super().__init__(limit, **options)
        self._refuse_what_it_cannot_keep()
        conf = self.app.conf
        self.drain_s: float = conf.afterword_drain_s
        self.cleanups: list[Callable[[], Awaitable[None]]] = []  # run on the loop when the last task has ended
        self.errands = HubCallbacks()
        asked = {CALLS: limit or conf.worker_concurrency, **conf.afterword_slots}
        self._slots: Mapping[str, int] = fitting(asked, limit=raise_limit())
        self.limit: int = self._slots[CALLS]
        self._loop = LoopThread(block_s=conf.afterword_block_s, uvloop=conf.afterword_uvloop)
        self._runner = Runner(self._loop, self.errands)
        self._jobs: dict[int, PoolTask] = {}
        self._active: Counter[str] = Counter()
        self._last_pid = 0

    # For the rest of the worker.

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that runs the tasks."""
        return self._loop.loop

    @property
    def loop_ticked_at(self) -> float:
        """When the loop last proved to be alive, on the clock of `time.monotonic`."""
        return self._loop.ticked_at

    def submit(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Run a coroutine on the loop, from any other thread."""
        return self._loop.submit(work)

    def end_worker(self, exit_code: int) -> None:
        """Have Celery end this worker as SIGTERM does, but with this exit code; from any thread."""
        worker_state.should_stop = exit_code
        # The hub looks at its next turn; an errand makes it turn.
        self.errands.put(lambda: None)

    def abort(self, reason: Reason) -> None:
        """Cancel every call that runs now; from any thread. Their bodies read `reason()` of worker.call."""
        self._runner.cancel_all(reason)

    def active(self, queue: str) -> int:
        """Return how many tasks of `queue` hold a slot: exact on Celery's thread, a moment old elsewhere."""
        return self._active[queue]

    def free(self, queue: str) -> int:
        """Return how many more tasks of `queue` may start now."""
        return max(self._slots.get(queue, self.limit) - self._active[queue], 0)

    def soon(self, errand: Callable[[], None]) -> None:
        """Have something done on Celery's thread, which it wakes; from any thread."""
        self.errands.put(errand)

    # For Celery, on its thread.

    def on_start(self) -> None:
        """Key Celery's context-local stacks by call, and start the loop."""
        for stack in [_state._task_stack, *(task.request_stack for task in self.app.tasks.values())]:
            stack.__ident_func__ = identity
        self._loop.start()

    def did_start_ok(self) -> bool:
        """Say whether tasks can run."""
        return self._loop.is_alive()

    def register_with_event_loop(self, hub: Any) -> None:
        """Have the hub do our errands; called again after every reconnect, which empties the hub."""
        hub.add_reader(self.errands.fileno(), self.errands.run)

    def on_apply(self, target: Callable[..., Any], args: Any, kwargs: Any, **options: Any) -> PoolTask:
        """Take a task over; returns at once. `args` are Celery's tracer's: (task name, id, request, ...)."""
        self._last_pid += 1
        job = PoolTask(
            pid=self._last_pid,
            queue=(args[2].get("delivery_info") or {}).get("routing_key") or "",
            label=f"{args[0]}[{args[1]}]",
            is_async=getattr(self.app.tasks[args[0]], "is_async", False),
            work=partial(target, *args, **kwargs),
            accepted=options["accept_callback"],
            exceeded=options["timeout_callback"],
            settled=partial(self._settle, options["callback"]),
            revoke=partial(self._runner.cancel, reason=Reason.revoked),
            soft_s=options.get("soft_timeout") or self.options.get("soft_timeout"),
            limit_error=SoftTimeLimitExceeded,
        )
        self._jobs[job.pid] = job
        self._active[job.queue] += 1
        self._runner.start(job)
        return job

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Cancel one task for good, because it was revoked."""
        if job := self._jobs.get(pid):
            job.terminate(signal)

    def on_stop(self) -> None:
        """Warm shutdown: let calls finish for `drain_s`, cancel the rest, end the loop.

        A cold shutdown calls this too, inside a signal handler that may have interrupted anything: then it only
        cancels, and `on_terminate` waits.
        """
        if worker_state.should_terminate not in (None, False):
            self.abort(Reason.shutdown)
            return
        if self._jobs:
            log.info("pool.draining", calls=len(self._jobs), drain_s=self.drain_s)
        self._drain(self.drain_s)
        self.on_terminate()

    def on_terminate(self) -> None:
        """Cold shutdown, and the end of a warm one: cancel what runs, wait for it to be put away, end the loop."""
        if not self._loop.is_alive():
            return
        self.abort(Reason.shutdown)
        if not self._drain(RELEASE_S):
            log.error("pool.abandoned", calls=len(self._jobs), release_s=RELEASE_S)
        self._clean_up()
        self._runner.close()
        self._loop.stop(patience_s=LOOP_END_S)
        self.errands.close()

    def _get_info(self) -> dict[str, Any]:
        queues = {queue: {"free": self.free(queue), "active": count} for queue, count in self._active.items()}
        return {
            **super()._get_info(),
            "queues": queues,
            "loop-ticked-s-ago": round(monotonic() - self.loop_ticked_at, 3),
        }

    def _settle(self, callback: Callable[[Any], object], job: PoolTask, outcome: Any) -> None:
        del self._jobs[job.pid]
        self._active[job.queue] -= 1
        callback(_for_celery(job, outcome))

    def _drain(self, seconds: float) -> bool:
        """Do errands until no task is left; say whether that was reached within `seconds`."""
        give_up = monotonic() + seconds
        self.errands.run()
        while self._jobs and (left := give_up - monotonic()) > 0:
            self.errands.wait(left)
            self.errands.run()
        return not self._jobs

    def _clean_up(self) -> None:
        for cleanup in self.cleanups:
            try:
                self._loop.submit(_awaited(cleanup)).result(RELEASE_S)
            except Exception:
                log.exception("pool.cleanup_failed", cleanup=getattr(cleanup, "__qualname__", repr(cleanup)))

    def _refuse_what_it_cannot_keep(self) -> None:
        if limit_s := self.options.get("timeout"):
            raise SystemExit(
                f"the hard time limit is {limit_s} s, but this worker's tasks take none: a job's timeout_s bounds its "
                "call; drop --time-limit and task_time_limit"
            )
        if USE_FAST_LOCALS:
            raise SystemExit("USE_FAST_LOCALS is set, but this pool needs Celery's own stacks; unset it")


def async_task(app: Celery, **options: Any) -> Callable[[Callable[..., Coroutine[Any, Any, Any]]], Any]:
    """Register an `async def` function as a task of `app`: `@async_task(app, name="chat.run")`.

    Options are Celery's. Raises ValueError for a hard time limit: Celery would mark the task failed and free its slot
    while the body still records what it paid for.
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


def _for_celery(job: PoolTask, outcome: Any) -> tuple[int, Any, float]:
    """Return what Celery is told: its tracer's own word, unless the task was revoked or ended outside of the tracer."""
    if job.reason is Reason.revoked:
        return _failed(Terminated(SIGTERM))
    if outcome is None:
        # Cancelled by ourselves. `Terminated` would announce a revocation, and a revocation cancels the job.
        return _failed(Ignore())
    if isinstance(outcome, BaseException):
        # Nobody has heard of it yet: of this type Celery announces the failure itself.
        return _failed(WorkerLostError(f"{type(outcome).__name__}: {outcome}"))
    return outcome  # type: ignore[no-any-return]


def _failed(error: Exception) -> tuple[int, Any, float]:
    try:
        raise error  # an ExceptionInfo needs a traceback
    except Exception:
        return 1, ExceptionInfo(), 0.0


async def _awaited(cleanup: Callable[[], Awaitable[None]]) -> None:
    await cleanup()
