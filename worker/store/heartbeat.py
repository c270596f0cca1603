"""The heartbeat: a thread renews the lease of this worker process, one row in afterword_workers, every `beat_s`.

Each beat compares the database's clock with our monotonic clock. If the database's clock was set, the leases of living
workers may seem to have ended. The dispatcher then waits for one whole lease: living workers renew theirs before.

The thread beats only while the event loop turns, because a process with a blocked loop must not keep its calls. If the
row is gone (another worker took the lease back), the thread aborts every call and registers the process with a new id.
"""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from worker.core.clock_offset import TOLERANCE_S, Offset
from worker.store import leases
from worker.store.engine import describe

log = structlog.get_logger()


class LeaseTimes(NamedTuple):
    """The length of a lease and the time between two renewals, in seconds."""

    lease_s: float
    beat_s: float


@dataclass(frozen=True, slots=True)
class HeldCalls:
    """The calls of this process, as the heartbeat sees them. Every function must be safe to call from any thread."""

    ticked_at: Callable[[], float | None]
    """Return the monotonic time of the event loop's last turn; None before the loop runs."""
    abort: Callable[[], None]
    """Abort every call, because the lease is lost."""
    cancelled: Callable[[Connection, str], list[str]]
    """Return the ids of the jobs that this worker id holds and a user asked to cancel."""
    cancel: Callable[[list[str]], None]
    """End the calls of these jobs as cancelled."""


class Lease:
    """The lease of this process and the thread that renews it. `slots`: the most calls in flight."""

    def __init__(
        self,
        engine: Engine,
        times: LeaseTimes,
        calls: HeldCalls,
        *,
        name: str,
        slots: int,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        self.worker_id = str(uuid.uuid4())
        self._engine, self._times, self._calls = engine, times, calls
        self._name, self.slots = name, slots
        self._turned = turned
        # A longer time between beats means that the database hung without an error, for all workers.
        self._gap_s = max(3 * times.beat_s, times.lease_s / 3)
        self._beaten_at = 0.0
        self._unbroken_since: float | None = None
        self._tolerance_s = min(TOLERANCE_S, times.lease_s / 4)
        self._offset: Offset | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="afterword-lease", daemon=True)

    def start(self) -> None:
        """Register the process, then start the thread."""
        self._register()
        self._turned()
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and delete the row; the next dispatcher takes back the rows that are still held."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self._times.lease_s)
        try:
            with self._engine.begin() as connection:
                leases.resign(connection, self.worker_id)
        except SQLAlchemyError as error:
            log.warning("lease.not_resigned", error=type(error).__name__)

    def unbroken_s(self) -> float:
        """Return for how long beats have succeeded without a gap; as long could other workers reach the database."""
        now = time.monotonic()
        if self._unbroken_since is None or now - self._beaten_at > self._gap_s:
            return 0.0
        return now - self._unbroken_since

    def knows_time(self, connection: Connection) -> bool:
        """Return whether the database's clock was not set since the last beat."""
        # Read the offset first: a beat in between resets `unbroken_s` before it changes the offset.
        known = self._offset
        return known is not None and not known.step_s(_clock_offset(connection), tolerance_s=self._tolerance_s)

    def _register(self) -> None:
        with self._engine.begin() as connection:
            leases.register(connection, self.worker_id, name=self._name, slots=self.slots, lease_s=self._times.lease_s)
            self._offset = _clock_offset(connection)
        self._unbroken_since = self._beaten_at = time.monotonic()

    def _run(self) -> None:
        while not self._stop.wait(self._times.beat_s):
            if self._is_loop_blocked():
                log.error("lease.not_renewed", reason="the event loop is blocked")
                self._unbroken_since = None
                self._turned()
                continue
            try:
                self._beat()
                self._turned()
            except SQLAlchemyError as error:
                self._turned()
                # While the database is away, no worker can renew or take back a lease. `_unbroken_since` stays: the
                # next beat decides whether this was a gap. A connection that drops and reopens at once stops no other
                # worker; if each such drop were a gap, frequent drops would prevent every take-back.
                log.warning("lease.not_renewed", error=type(error).__name__)
            except Exception as error:
                # Without this thread the process loses its calls, so it continues after any error.
                log.error("lease.failed", **describe(error))
                self._unbroken_since = None

    def _is_loop_blocked(self) -> bool:
        ticked_at = self._calls.ticked_at()
        return ticked_at is not None and time.monotonic() - ticked_at > self._times.lease_s / 3

    def _beat(self) -> None:
        asked_at = time.monotonic()
        with self._engine.begin() as connection:
            unix_s = leases.renew(connection, self.worker_id, slots=self.slots, lease_s=self._times.lease_s)
            answered_at = time.monotonic()
            cancelled = [] if unix_s is None else self._calls.cancelled(connection, self.worker_id)
        if unix_s is None:
            self._replace_lost_lease()
        else:
            self._note_beat(time.monotonic(), Offset.from_reading(unix_s, asked_at=asked_at, answered_at=answered_at))
        if cancelled:
            self._calls.cancel(cancelled)

    def _note_beat(self, now: float, offset: Offset) -> None:
        step_s = self._offset.step_s(offset, tolerance_s=self._tolerance_s) if self._offset is not None else 0.0
        if step_s:
            log.warning("clock.stepped", by_s=round(step_s, 3), reason="the database's clock was set")
        if step_s or self._unbroken_since is None or now - self._beaten_at > self._gap_s:
            self._unbroken_since = now
        self._beaten_at, self._offset = now, offset

    def _replace_lost_lease(self) -> None:
        log.error("lease.lost", worker=self.worker_id)
        # Set the new id first: a call that starts during the abort must claim under the new lease.
        self.worker_id = str(uuid.uuid4())
        self._calls.abort()
        self._register()


def _clock_offset(connection: Connection) -> Offset:
    asked_at = time.monotonic()
    unix_s = leases.unix_s(connection)
    return Offset.from_reading(unix_s, asked_at=asked_at, answered_at=time.monotonic())
