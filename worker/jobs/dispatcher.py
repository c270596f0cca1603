"""The dispatcher: one worker at a time tops up the window in Redis, takes back lost jobs and ends overdue jobs.

Each tick reads the window back from Redis and pushes the best due rows that are missing from it. The next tick thus
repairs a flushed Redis, an old snapshot, or the work of two dispatchers. SQL is the only truth: steps that need SQL
alone (ended leases, deadlines) come first. A step that fails does not stop the others.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import structlog
from redis import Redis, RedisError
from sqlalchemy import Engine

from worker.jobs.core.endpoint_health import State
from worker.jobs.endpoint_probes import Probes
from worker.jobs.fair_share import FairShare, Waiting
from worker.jobs.store import due, endpoints, reclaim
from worker.jobs.store.tenant_usage import CallsInProgress, in_progress, slots_in_use
from worker.jobs.tick_timer import TickTimer
from worker.queue.keys import is_wrong_type, rename_misplaced_keys
from worker.queue.nudges import push_nudges, read_window
from worker.queue.window_size import ShortWindow
from worker.store import leases
from worker.store.engine import describe, is_away, is_busy
from worker.store.heartbeat import Lease
from worker.webhooks.service import WebhookService

LEADER = "dispatch"
LEADER_LEASE_S = 5.0
# The leadership is renewed at this age: also within a long tick, but not once per short tick (each renewal commits).
LEADER_BEAT_S = LEADER_LEASE_S / 3
QUEUE = "chat.run"
TAKE_BACK_BATCH = 500

# Redis holds nudges for so many seconds of starts, because a job that comes late waits behind all of them.
AHEAD_S = 0.5

log = structlog.get_logger()
T = TypeVar("T")


class Dispatcher:
    """A thread of every worker; it dispatches while this worker holds the leadership.

    `leader_tasks` run in each tick of the leader, `local_tasks` once per tick in every worker. `window_s`: the most
    seconds of starts to keep in the Redis window. `once_only`: endpoints for which a lost request is never repeated.
    `weight(tenant)`: a tenant's part of the tokens.
    """

    def __init__(  # noqa: PLR0913  parts and settings; a class around them would be unpacked at once
        self,
        engine: Engine,
        redis: Redis,
        lease: Lease,
        *,
        tick_s: float,
        lease_s: float,
        window_s: float = 2.0,
        once_only: frozenset[str] = frozenset(),
        leader_tasks: tuple[Callable[[], None], ...] = (),
        local_tasks: tuple[Callable[[], None], ...] = (),
        webhooks: WebhookService | None = None,
        turned: Callable[[], None] = lambda: None,
        weight: Callable[[str], float] = lambda tenant: 1.0,
    ) -> None:
        self._engine, self._redis, self._lease = engine, redis, lease
        self._tick_s, self._lease_s, self._once_only = tick_s, lease_s, once_only
        self._leader_tasks, self._local_tasks = leader_tasks, local_tasks
        self._webhooks, self._turned = webhooks, turned
        self._local_tasks_at = 0.0
        self._led_at = -math.inf
        self._after = due.FIRST
        self._window_size = ShortWindow(min(window_s, AHEAD_S), most_s=window_s)
        self._is_waiting = False
        self._probes = Probes(engine, redis, QUEUE)
        self._fair_share = FairShare(engine, leads=self._leads, weight=weight)
        self._timer = TickTimer(tick_s)
        self._thread = threading.Thread(target=self._run, name="afterword-dispatcher", daemon=True)

    def start(self) -> None:
        self._turned()
        self._thread.start()

    def stop(self) -> None:
        """End the thread and give up the leadership, so another worker can dispatch at once."""
        self._timer.stop()
        if self._thread.is_alive():
            self._thread.join(10.0)
        self._guarded(self._step_down)

    def refill(self) -> None:
        """Top up the window soon, because a job waits for a slot."""
        self._timer.refill()

    def wake(self, delay_s: float = 0.0) -> None:
        """Tick again within `delay_s`, because a row becomes due then."""
        self._timer.wake(delay_s)

    def _run(self) -> None:
        while not self._timer.is_stopping:
            began = time.monotonic()
            next_s = self._guarded(self._tick)
            self._turned()
            self._timer.ticked(time.monotonic() - began, next_s)
            while self._timer.pause(is_waiting=self._is_waiting):
                self._timer.refilled(self._guarded(self._refill))
                self._turned()

    def _guarded(self, step: Callable[[], T]) -> T | None:
        """Run a step; on any error write one log line and return None, so the other steps still run."""
        name = getattr(getattr(step, "func", step), "__name__", "step").strip("_")
        try:
            return step()
        except Exception as error:
            if isinstance(error, RedisError) or is_away(error) or is_busy(error):
                log.warning("dispatch.postponed", step=name, error=type(error).__name__)
            else:
                log.error("dispatch.failed", step=name, **describe(error))
            if is_wrong_type(error):
                self._guarded(self._rename_misplaced_keys)
            return None

    def _rename_misplaced_keys(self) -> None:
        rename_misplaced_keys(self._redis)

    def _tick(self) -> float:
        """Run the steps while we lead; return the seconds until the next row becomes due, at most `tick_s`."""
        self._is_waiting = False
        if time.monotonic() >= self._local_tasks_at:
            self._local_tasks_at = time.monotonic() + self._tick_s
            for task in self._local_tasks:
                self._guarded(task)
        for step in (self._end_leases, self._expire, *self._leader_tasks, self._probe):
            if not self._leads():
                return self._tick_s
            self._guarded(step)
        fills = (self._fill, self._webhooks.fill) if self._webhooks is not None else (self._fill,)
        starts = [self._guarded(fill) for fill in fills if self._leads()]
        return min([self._tick_s, *(next_s for next_s in starts if next_s is not None)])

    def _leads(self) -> bool:
        """Return whether this worker leads; renews the leadership in the database every LEADER_BEAT_S."""
        if self._timer.is_stopping:
            return False
        self._turned()  # between the steps of a long tick
        asked_at = time.monotonic()
        if asked_at - self._led_at < LEADER_BEAT_S:
            return True
        is_new, self._led_at = self._led_at == -math.inf, -math.inf
        with self._engine.begin() as connection:
            leading = leases.lead(connection, self._lease.worker_id, name=LEADER, lease_s=LEADER_LEASE_S)
        if leading:
            self._led_at = asked_at
            if is_new:
                self._fair_share.begin()
        return leading

    def _step_down(self) -> None:
        with self._engine.begin() as connection:
            due.step_down(connection, self._lease.worker_id, name=LEADER)

    def _expire(self) -> None:
        ended = due.EXPIRY_BATCH
        while ended == due.EXPIRY_BATCH and self._leads():
            with self._engine.begin() as connection:
                ended = len(due.expire(connection))
            if ended:
                log.info("job.expired", jobs=ended)

    def _end_leases(self) -> None:
        taken = TAKE_BACK_BATCH
        while taken >= TAKE_BACK_BATCH and self._leads():
            taken = self._take_back()

    def _take_back(self) -> int:
        """Take back one batch of jobs; return their number.

        After an outage of the database, all leases have run out at once, but their workers are alive. So we wait until
        our own heartbeat has had no gap for a whole lease: by then, living workers have renewed too. An earlier
        take-back would run, and pay for, calls in flight a second time. A step of the database's clock has the same
        effect. Both are checked again before the commit: our own statement may have waited through the outage, or may
        be the first to see the new time.
        """
        if self._lease.unbroken_s() < self._lease_s:
            return 0
        with self._engine.connect() as connection:
            back = reclaim.take_back(connection, limit=TAKE_BACK_BATCH, once_only=self._once_only)
            stepped = back.workers and not self._lease.knows_time(connection)
            if stepped or self._lease.unbroken_s() < self._lease_s:
                connection.rollback()
                return 0
            connection.commit()
        deliveries = self._webhooks.take_back() if self._webhooks is not None else 0
        if deliveries:
            log.warning("delivery.taken_back", deliveries=deliveries)
        queued, failed, cancelled = len(back.queued), len(back.failed), len(back.cancelled)
        if back.workers or queued or failed or cancelled:
            log.warning("lease.taken_back", workers=back.workers, queued=queued, failed=failed, cancelled=cancelled)
        return max(queued + failed + cancelled, deliveries)

    def _probe(self) -> None:
        next_s = self._probes.send()
        if next_s is not None:
            self.wake(next_s)

    def _refill(self) -> float | None:
        """Top up the window between two ticks, if this worker led at the last tick."""
        self._is_waiting = False
        return self._fill() if self._led_at > -math.inf and self._leads() else None

    def _fill(self) -> float | None:
        """Top up the window; return the seconds until the next row becomes due, or None if no row waits."""
        began = time.monotonic()
        try:
            return self._top_up()
        finally:
            self._timer.filled(time.monotonic() - began)

    def _top_up(self) -> float | None:
        window = read_window(self._redis, QUEUE)
        with self._engine.begin() as connection:
            # Read before the due rows: a row that becomes due in between is found there.
            next_s = due.next_start_s(connection)
            seen = endpoints.read_all(connection).values()
            paused = {endpoint.name for endpoint in seen if endpoint.state is State.paused}
            calls = in_progress(connection)
            self._fair_share.learn(connection)
            room = self._room(calls, window)
            left = room - len(window)
            if left <= 0:
                # The next lanes keep their turn until there is room.
                return next_s
            after, limit = self._after, due.RANGES_A_TICK
            lanes, self._after = due.lanes(connection, after=after, limit=limit, skipped=paused)
            urgent = due.urgent(connection, skipped=paused) if lanes else []
        slow = {endpoint.name: endpoint.since_s for endpoint in seen if endpoint.state is State.slow}
        is_all = after == self._after == due.FIRST
        missing = self._fair_share.missing(Waiting(lanes, urgent, calls, slow, is_all=is_all), window, left)
        if missing and self._leads():
            self._is_waiting = True
            push_nudges(self._redis, QUEUE, missing, room=room)
            self._window_size.filled({entry for _, entry in missing})
        return next_s

    def _room(self, calls: Sequence[CallsInProgress], window: Mapping[bytes, int]) -> int:
        slots = slots_in_use(calls)
        # A worker without a free slot may push no nudge for the jobs that it accepts.
        self._is_waiting = bool(window) or slots.is_any_full
        return self._window_size.room(window.keys(), free=slots.free, in_progress=slots.in_use, at=time.monotonic())
