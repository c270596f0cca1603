"""The heartbeat of a worker process: one row renewed every second, from a thread of its own.

Each beat compares the database's clock with our monotonic one: where the first was set, all leases may seem to have
ended, and whoever takes leases back waits one lease until the living have renewed theirs.

It beats only while the event loop turns: a process whose calls no longer move must not keep them. When the row is gone
(another worker took it back) every call is aborted at once, and the process enters itself anew under another id.
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
    """How long a lease lasts and how often it is renewed, in seconds."""

    lease_s: float
    beat_s: float


@dataclass(frozen=True, slots=True)
class HeldCalls:
    """What the heartbeat needs of the calls that this process holds; the functions must work from any thread."""

    ticked_at: Callable[[], float | None]
    """Monotonic time of the event loop's last turn; None before it runs."""
    abort: Callable[[], None]
    """Abort every call: the lease is lost."""
    cancelled: Callable[[Connection, str], list[str]]
    """Return which jobs of a worker id were asked to be cancelled."""
    cancel: Callable[[list[str]], None]
    """End the calls of these jobs as cancelled."""


class Lease:
    """The lease of this process: its row in the table of workers. `slots`: the most calls in flight."""

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
        # A beat that took longer tells of a database that stood still, without an error, for everybody.
        self._gap_s = max(3 * times.beat_s, times.lease_s / 3)
        self._beaten_at = 0.0
        self._unbroken_since: float | None = None
        self._tolerance_s = min(TOLERANCE_S, times.lease_s / 4)
        self._offset: Offset | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="afterword-lease", daemon=True)

    def start(self) -> None:
        """Enter the process, then beat."""
        self._enter()
        self._turned()
        self._thread.start()

    def stop(self) -> None:
        """Stop beating and leave: what is still held is taken back by the next dispatcher."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self._times.lease_s)
        try:
            with self._engine.begin() as connection:
                leases.resign(connection, self.worker_id)
        except SQLAlchemyError as error:
            log.warning("lease.not_resigned", error=type(error).__name__)

    def unbroken_s(self) -> float:
        """Return for how long beats have succeeded without a gap: that the database was there for others too."""
        now = time.monotonic()
        if self._unbroken_since is None or now - self._beaten_at > self._gap_s:
            return 0.0
        return now - self._unbroken_since

    def knows_time(self, connection: Connection) -> bool:
        """Say whether the database's clock has not been set since the last beat."""
        # First: a beat in between restarts the evidence before it changes the offset.
        known = self._offset
        return known is not None and not known.step_s(_look(connection), tolerance_s=self._tolerance_s)

    def _enter(self) -> None:
        with self._engine.begin() as connection:
            leases.register(connection, self.worker_id, name=self._name, slots=self.slots, lease_s=self._times.lease_s)
            self._offset = _look(connection)
        self._unbroken_since = self._beaten_at = time.monotonic()

    def _run(self) -> None:
        while not self._stop.wait(self._times.beat_s):
            if self._loop_stands():
                log.error("lease.not_renewed", reason="the event loop does not turn")
                self._unbroken_since = None
                self._turned()
                continue
            try:
                self._beat()
                self._turned()
            except SQLAlchemyError as error:
                self._turned()
                # The database is away: nothing can be renewed, and nobody can take back either. Whether that was a gap
                # the next beat tells: a connection that was dropped and made anew at once kept nobody from renewing,
                # and where that happens again and again, no lease would ever be taken back.
                log.warning("lease.not_renewed", error=type(error).__name__)
            except Exception as error:
                # This thread is what holds the calls; whatever is wrong, it goes on beating.
                log.error("lease.failed", **describe(error))
                self._unbroken_since = None

    def _loop_stands(self) -> bool:
        ticked_at = self._calls.ticked_at()
        return ticked_at is not None and time.monotonic() - ticked_at > self._times.lease_s / 3

    def _beat(self) -> None:
        asked_at = time.monotonic()
        with self._engine.begin() as connection:
            unix_s = leases.renew(connection, self.worker_id, slots=self.slots, lease_s=self._times.lease_s)
            answered_at = time.monotonic()
            cancelled = [] if unix_s is None else self._calls.cancelled(connection, self.worker_id)
        if unix_s is None:
            self._lost()
        else:
            self._count(time.monotonic(), Offset.seen(unix_s, asked_at=asked_at, answered_at=answered_at))
        if cancelled:
            self._calls.cancel(cancelled)

    def _count(self, now: float, offset: Offset) -> None:
        step_s = self._offset.step_s(offset, tolerance_s=self._tolerance_s) if self._offset is not None else 0.0
        if step_s:
            log.warning("clock.stepped", by_s=round(step_s, 3), reason="the database's clock was set")
        if step_s or self._unbroken_since is None or now - self._beaten_at > self._gap_s:
            self._unbroken_since = now
        self._beaten_at, self._offset = now, offset

    def _lost(self) -> None:
        log.error("lease.lost", worker=self.worker_id)
        # The new id first: a call that starts during the abort claims under the lease that stands.
        self.worker_id = str(uuid.uuid4())
        self._calls.abort()
        self._enter()


def _look(connection: Connection) -> Offset:
    asked_at = time.monotonic()
    unix_s = leases.unix_s(connection)
    return Offset.seen(unix_s, asked_at=asked_at, answered_at=time.monotonic())
