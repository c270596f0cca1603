"""The calls that this process works on, by the id of their row: to cancel them, and to find rows without a call."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from worker.pool import running_task
from worker.pool.running_task import Call, Reason


class RunningCalls:
    """Calls by job id or delivery id. The loop's thread adds and removes them; other threads read and cancel."""

    def __init__(self) -> None:
        self._calls: dict[str, list[Call]] = {}
        self.loop: asyncio.AbstractEventLoop | None = None  # set when the pool runs

    def __contains__(self, row_id: object) -> bool:
        return row_id in self._calls

    @contextmanager
    def tracking(self, row_id: str) -> Iterator[None]:
        """Register the current call under `row_id`. Begin before the claim: a row without a call is an orphan."""
        current = running_task.current()
        calls = self._calls.setdefault(row_id, [])
        if current is not None:
            calls.append(current)
        try:
            yield
        finally:
            if current is not None:
                calls.remove(current)
            # Another attempt at the same row may have begun since, with another list.
            if not calls and self._calls.get(row_id) is calls:
                del self._calls[row_id]

    def cancel(self, row_ids: Iterable[str], reason: Reason) -> None:
        """Cancel the calls of these rows, if they run here; from any thread."""
        for call in [call for row_id in row_ids for call in tuple(self._calls.get(row_id, ()))]:
            if self.loop is not None:
                self.loop.call_soon_threadsafe(call.cancel, reason)
