"""One running task: Celery's tracer in a greenlet, the task's coroutine on the loop, the reason of a cancellation.

Celery's tracer is synchronous. It runs unmodified in a greenlet. When it calls the task, the greenlet passes the
coroutine to the asyncio task that started it, and sleeps until the result arrives. Signals, `self.request` and
`current_task` work, because greenlet and coroutine share one context. Imports nothing of Celery.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]


class Reason(StrEnum):
    """The reason why a running call is cancelled; it decides how the task records its job."""

    revoked = "revoked"
    soft_limit = "soft_limit"
    shutdown = "shutdown"
    lease_lost = "lease_lost"


@dataclass(slots=True, eq=False, weakref_slot=True)
class Call:
    """The state of one task on the loop. Only the loop's thread uses it."""

    task: asyncio.Task[Any] | None = None
    reason: Reason | None = None
    instead: BaseException | None = None

    def cancel(self, reason: Reason, *, instead: BaseException | None = None) -> bool:
        """Cancel the coroutine; return whether that was done. `instead` is raised in place of CancelledError.

        Only the first call does it: a second cancellation would interrupt the recording of the job. Exception: another
        reason may follow a soft limit, because a task may continue after that.
        """
        if self.reason not in (None, Reason.soft_limit):
            return False
        self.reason, self.instead = reason, instead
        if self.task is not None:
            self.task.cancel()
        return True


_current: ContextVar[Call | None] = ContextVar("afterword_call", default=None)


def current() -> Call | None:
    """Return the call that this code runs in, to cancel it from elsewhere; None outside of async tasks."""
    return _current.get()


def reason() -> Reason | None:
    """Return the reason, for `except asyncio.CancelledError` in the running task; None: it is not being cancelled."""
    call = _current.get()
    return None if call is None else call.reason


def absorb_cancellation() -> None:
    """End the cancellation here: the task goes on and records its job."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def identity() -> object:
    """Return the key of Celery's context-local stacks: the call, in all of its asyncio tasks; else the greenlet."""
    call = _current.get()
    return getcurrent() if call is None else call


def enter(call: Call) -> None:
    """Make `call` the current one of this context."""
    _current.set(call)


def wait_for(awaitable: Awaitable[Any]) -> Any:
    """Return the awaitable's result to synchronous code that runs under `drive`."""
    driver = getcurrent().parent
    if driver is None:
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError("an async task was called outside of the worker; await its function instead")
    return driver.switch(awaitable)


async def drive(call: Call, target: Callable[..., Any], *arguments: Any) -> Any:
    """Run the synchronous `target` in a greenlet; await its coroutines; return its result."""
    tracer = greenlet(target)
    # Without this the tracer has another context: no job in its log lines, another `self.request`.
    tracer.gr_context = getcurrent().gr_context
    state = tracer.switch(*arguments)
    while not tracer.dead:
        try:
            result = await state
        except asyncio.CancelledError:
            state = _throw_cancelled(call, tracer)
        except BaseException:
            state = tracer.throw(*sys.exc_info())
        else:
            state = tracer.switch(result)
    return state


def _throw_cancelled(call: Call, tracer: greenlet) -> Any:
    task, instead = asyncio.current_task(), call.instead
    if instead is None or task is None:
        return tracer.throw(*sys.exc_info())
    # The cancellation ends here: the tracer goes on with this task.
    while task.cancelling():
        task.uncancel()
    call.instead = None
    return tracer.throw(instead)
