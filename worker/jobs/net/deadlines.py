"""The deadlines of one call: first byte, idle and total, on one timer. Used by `jobs.net.call`."""

import asyncio
from types import TracebackType
from typing import Self

from worker.core.failure import ErrorCode


class DeadlineExceeded(Exception):
    """A deadline of the call passed; `code` is its timeout error."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code)
        self.code = code


class Deadlines:
    """A context manager: when the current deadline passes, it cancels the task and raises DeadlineExceeded.

    One deadline is in force at a time, plus the total. Every piece of a stream moves it later, and that costs only an
    assignment: the timer is left alone and compares again when it fires.
    """

    __slots__ = ("_at", "_cancelling", "_code", "_loop", "_overdue", "_task", "_timer", "_total_at")

    def __init__(self, total_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._total_at = self._at = self._loop.time() + total_s
        self._code = ErrorCode.total_timeout
        self._overdue = False
        self._timer: asyncio.TimerHandle

    def expect(self, code: ErrorCode, within_s: float) -> None:
        """Replace the current deadline: `code`, `within_s` seconds from now."""
        at = self._loop.time() + within_s
        if at < self._total_at:
            self._at, self._code = at, code
        else:
            self._at, self._code = self._total_at, ErrorCode.total_timeout
        if self._at < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(self._at, self._on_timer)

    def _on_timer(self) -> None:
        if self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._on_timer)
            return
        self._overdue = True
        self._task.cancel()

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        # The caller may have cancelled the task already; that cancellation must not be swallowed.
        self._cancelling = task.cancelling()
        self._timer = self._loop.call_at(self._at, self._on_timer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._overdue and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise DeadlineExceeded(self._code) from error
