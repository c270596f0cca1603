"""The dispatcher: one worker at a time tops up the window in Redis, takes back lost jobs and ends overdue jobs.

Each tick reads the window back from Redis and pushes the best due rows that are missing from it. The next tick thus
repairs a flushed Redis, an old snapshot, or the work of two dispatchers. SQL is the only truth: steps that need SQL
alone (ended leases, deadlines) come first. A step that fails does not stop the others.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from redis import Redis, RedisError
from sqlalchemy import Engine

from worker.jobs.core.endpoint_health import State
from worker.jobs.endpoint_probes import Probes
from worker.jobs.fair_share import FairShare
from worker.jobs.store import due, endpoints, reclaim
from worker.queue.keys import is_wrong_type, rename_misplaced_keys
from worker.queue.nudges import push_nudges, read_window
from worker.queue.window_size import WindowSize
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

# The least time between two ticks, however many rows become due and however often `wake` is called.
SHORTEST_S = 0.02

log = structlog.get_logger()
T = TypeVar("T")


class Dispatcher:
    """A thread of every worker; it dispatches while this worker holds the leadership.

    `leader_tasks` run in each tick of the leader, `local_tasks` once per tick in every worker. `window_s`: seconds of
    work to keep in the Redis window. `once_only`: endpoints for which a lost request is never repeated.
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
    ) -> None:
        self._engine, self._redis, self._lease = engine, redis, lease
        self._tick_s, self._lease_s, self._once_only = tick_s, lease_s, once_only
        self._leader_tasks, self._local_tasks = leader_tasks, local_tasks
        self._webhooks, self._turned = webhooks, turned
        self._local_tasks_at = 0.0
        self._led_at = -math.inf
        self._after = due.FIRST
        self._window_size = WindowSize(window_s)
        self._probes = Probes(engine, redis, QUEUE)
        self._fair_share = FairShare(engine, leads=self._leads)
        self._asked_at = math.inf
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="afterword-dispatcher", daemon=True)

    def start(self) -> None:
        self._turned()
        self._thread.start()

    def stop(self) -> None:
        """End the thread and give up the leadership, so another worker can dispatch at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(10.0)
        self._guarded(self._step_down)

    def wake(self, delay_s: float = 0.0) -> None:
        """Tick again within `delay_s`, because a row becomes due then."""
        with self._changed:
            self._asked_at = min(self._asked_at, time.monotonic() + delay_s)
            self._changed.notify()

    def _run(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            next_s = self._guarded(self._tick)
            self._turned()
            # Wait as long as the tick took. Without this, rows that become due one by one in thousands of lanes
            # would keep the thread busy all the time.
            least_s = max(SHORTEST_S, min(time.monotonic() - began, self._tick_s))
            self._sleep(self._tick_s if next_s is None else next_s, least_s=least_s)

    def _sleep(self, seconds: float, *, least_s: float) -> None:
        """Wait for `seconds`, or less if `wake` is called, but at least `least_s`."""
        began = time.monotonic()
        with self._changed:
            while not self._stopping:
                until = max(began + least_s, min(began + seconds, self._asked_at))
                if (left_s := until - time.monotonic()) <= 0:
                    break
                self._changed.wait(left_s)
            if self._asked_at <= time.monotonic():
                self._asked_at = math.inf

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
        if self._stopping:
            return False
        self._turned()  # between the steps of a long tick
        asked_at = time.monotonic()
        if asked_at - self._led_at < LEADER_BEAT_S:
            return True
        self._led_at = -math.inf
        with self._engine.begin() as connection:
            leading = leases.lead(connection, self._lease.worker_id, name=LEADER, lease_s=LEADER_LEASE_S)
        if leading:
            self._led_at = asked_at
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

    def _fill(self) -> float | None:
        """Top up the window; return the seconds until the next row becomes due, or None if no row waits."""
        window = read_window(self._redis, QUEUE)
        with self._engine.begin() as connection:
            # Read before the due rows: a row that becomes due in between is found there.
            next_s = due.next_start_s(connection)
            seen = endpoints.read_all(connection).values()
            paused = {endpoint.name for endpoint in seen if endpoint.state is State.paused}
            lanes, self._after = due.lanes(connection, after=self._after, limit=due.RANGES_A_TICK, skipped=paused)
            slots = sum(leases.living_workers(connection).values())
        room = self._window_size.room(window.keys(), slots=slots, at=time.monotonic())
        free = room - len(window)
        if free <= 0:
            return next_s
        slow = {endpoint.name: endpoint.since_s for endpoint in seen if endpoint.state is State.slow}
        missing = self._fair_share.missing(lanes, slow, room, window)[:free]
        if missing and self._leads():
            push_nudges(self._redis, QUEUE, missing, room=room)
            self._window_size.filled({entry for _, entry in missing})
        return next_s
