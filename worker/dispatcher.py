"""The dispatcher: one among all workers tops the window in Redis up from SQL, and ends what time has ended.

Redis knows what is in Redis: each tick reads the window back and pushes the best due rows that are not in it, so that
a flushed Redis, an old snapshot or two dispatchers are all repaired by the next tick.
"""

import math
import threading
import time
from collections.abc import Callable

import structlog
from redis import Redis, RedisError
from sqlalchemy import Connection, Engine

from worker.lease import Lease
from worker.nudge import nudge, push_nudges, read_window
from worker.store import dispatch, leases
from worker.store.engine import is_away, is_busy

LEADER = "dispatch"
LEADER_LEASE_S = 5.0
QUEUE = "chat.run"
LARGEST_WINDOW = 20_000
# The window is a window: twice the slots of all workers at least, doubled while a tick finds it empty.
SLOTS_AHEAD = 2

# However many rows become due one after another.
SHORTEST_S = 0.02

log = structlog.get_logger()


class Dispatcher:
    """A thread in every worker that takes its turn at dispatch.

    `chores` are called at each of its ticks as the leader, `own_chores` once a tick in any case.
    """

    def __init__(
        self,
        engine: Engine,
        redis: Redis,
        lease: Lease,
        *,
        tick_s: float,
        lease_s: float,
        chores: tuple[Callable[[], None], ...] = (),
        own_chores: tuple[Callable[[], None], ...] = (),
    ) -> None:
        self._engine, self._redis, self._lease = engine, redis, lease
        self._tick_s, self._lease_s = tick_s, lease_s
        self._chores, self._own_chores = chores, own_chores
        self._own_chores_at = 0.0
        self._window = 0
        self._asked_at = math.inf
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="afterword-dispatcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(10.0)

    def wake(self, delay_s: float = 0.0) -> None:
        """Tick again after `delay_s` at the latest: a row becomes due then."""
        with self._changed:
            self._asked_at = min(self._asked_at, time.monotonic() + delay_s)
            self._changed.notify()

    def _run(self) -> None:
        while not self._stopping:
            next_s = self._tick_s
            try:
                next_s = min(next_s, self._tick())
            except Exception as error:
                if isinstance(error, RedisError) or is_away(error) or is_busy(error):
                    log.warning("dispatch.postponed", error=type(error).__name__)
                else:
                    log.exception("dispatch.failed")
            self._sleep(next_s)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with self._changed:
            while not self._stopping and (left_s := min(until, self._asked_at) - time.monotonic()) > 0:
                self._changed.wait(left_s)
            if self._asked_at <= time.monotonic():
                self._asked_at = math.inf

    def _tick(self) -> float:
        """Do one round if we lead; return the seconds until the next row becomes due, or the tick."""
        if time.monotonic() >= self._own_chores_at:
            self._own_chores_at = time.monotonic() + self._tick_s
            for chore in self._own_chores:
                chore()
        with self._engine.begin() as connection:
            if not leases.lead(connection, self._lease.worker_id, name=LEADER, lease_s=LEADER_LEASE_S):
                return self._tick_s
        for chore in self._chores:
            chore()
        self._end_leases()
        self._expire()
        return self._fill()

    def _expire(self) -> None:
        ended = dispatch.EXPIRY_BATCH
        while ended == dispatch.EXPIRY_BATCH:
            with self._engine.begin() as connection:
                ended = len(dispatch.expire(connection))
            if ended:
                log.info("job.expired", jobs=ended)

    def _end_leases(self) -> None:
        # After an outage of the database all leases have run out at once. Whoever has beaten without a gap for a
        # whole lease knows that the others could have beaten too; before that, taking back buys running calls twice.
        if self._lease.unbroken_s() < self._lease_s:
            return
        with self._engine.begin() as connection:
            back = leases.take_back(connection)
        if back.workers or back.queued or back.failed:
            log.warning("lease.taken_back", workers=back.workers, queued=len(back.queued), failed=len(back.failed))

    def _fill(self) -> float:
        standing = read_window(self._redis, QUEUE)
        with self._engine.begin() as connection:
            lanes = dispatch.lanes(connection)
            room = self._room(connection, len(standing), backlog=bool(lanes))
            rows = [row for lane in lanes for row in dispatch.due(connection, lane, limit=room + len(standing))]
            waits = [wait for lane in lanes if (wait := dispatch.next_start_s(connection, lane)) is not None]
        rows.sort(key=lambda row: (row.priority, row.run_at))
        entries = [(row.priority, nudge(row.job_id, row.attempt)) for row in rows]
        missing = [entry for entry in entries if entry[1] not in standing][: max(room - len(standing), 0)]
        if missing:
            push_nudges(self._redis, QUEUE, missing, room=room)
        return max(SHORTEST_S, min(waits, default=self._tick_s))

    def _room(self, connection: Connection, standing: int, *, backlog: bool) -> int:
        """Size the window: doubled while it runs empty between two ticks, halved while it is hardly used."""
        least = SLOTS_AHEAD * sum(leases.living(connection).values())
        if backlog and standing == 0:
            self._window *= 2
        elif standing > self._window // 2:
            self._window //= 2
        self._window = min(max(self._window, least), LARGEST_WINDOW)
        return self._window
