"""The dispatcher: one among all workers tops the window in Redis up from SQL, and ends what time has ended.

Redis knows what is in Redis: each tick reads the window back and pushes the best due rows that are not in it, so that
a flushed Redis, an old snapshot or two dispatchers are all repaired by the next tick. SQL is the only truth: what needs
it alone (ended leases, deadlines) comes first, and no step's failure keeps another from its turn.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import structlog
from redis import Redis, RedisError
from sqlalchemy import Engine

from worker.core.pace import Pace
from worker.lease import Lease
from worker.nudge import nudge, push_nudges, read_window
from worker.store import dispatch, leases
from worker.store.dispatch import Due, Lane
from worker.store.engine import describe, is_away, is_busy

LEADER = "dispatch"
LEADER_LEASE_S = 5.0
# Renewed during a long tick too, and not by a commit at each of many short ones.
LEADER_BEAT_S = LEADER_LEASE_S / 3
QUEUE = "chat.run"
# On SQLite a transaction holds the one write lock: a few milliseconds at a time.
LANES_A_TRANSACTION = 20
# Shares that shallow lanes leave are handed to the deep ones this often; the next tick goes on.
PASSES = 3
TAKE_BACK_BATCH = 500

# However many rows become due one after another, and however often somebody wakes us.
SHORTEST_S = 0.02

log = structlog.get_logger()
T = TypeVar("T")


class Dispatcher:
    """A thread in every worker that takes its turn at dispatch.

    `chores` are called at each of its ticks as the leader, `own_chores` once a tick in any case. `window_s`: how many
    seconds of starts stand ready in Redis. `once_only`: endpoints whose lost requests are not made again.
    """

    def __init__(  # noqa: PLR0913  parts and settings; a bundle of them would be opened at once
        self,
        engine: Engine,
        redis: Redis,
        lease: Lease,
        *,
        tick_s: float,
        lease_s: float,
        window_s: float = 2.0,
        once_only: frozenset[str] = frozenset(),
        chores: tuple[Callable[[], None], ...] = (),
        own_chores: tuple[Callable[[], None], ...] = (),
    ) -> None:
        self._engine, self._redis, self._lease = engine, redis, lease
        self._tick_s, self._lease_s, self._once_only = tick_s, lease_s, once_only
        self._chores, self._own_chores = chores, own_chores
        self._own_chores_at = 0.0
        self._led_at = -math.inf
        self._after = dispatch.FIRST
        self._pace = Pace(window_s)
        self._asked_at = math.inf
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="afterword-dispatcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the ticks, and give the leadership up so that another worker dispatches at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(10.0)
        self._guarded(self._step_down)

    def wake(self, delay_s: float = 0.0) -> None:
        """Tick again after `delay_s` at the latest: a row becomes due then."""
        with self._changed:
            self._asked_at = min(self._asked_at, time.monotonic() + delay_s)
            self._changed.notify()

    def _run(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            next_s = self._guarded(self._tick)
            # As much rest as work: rows that become due one by one, in thousands of lanes, would else be all we do.
            rest_s = max(SHORTEST_S, min(time.monotonic() - began, self._tick_s))
            self._sleep(self._tick_s if next_s is None else next_s, rest_s=rest_s)

    def _sleep(self, seconds: float, *, rest_s: float) -> None:
        """Wait so long, or until somebody wants us; `rest_s` in any case."""
        began = time.monotonic()
        with self._changed:
            while not self._stopping:
                until = max(began + rest_s, min(began + seconds, self._asked_at))
                if (left_s := until - time.monotonic()) <= 0:
                    break
                self._changed.wait(left_s)
            if self._asked_at <= time.monotonic():
                self._asked_at = math.inf

    def _guarded(self, step: Callable[[], T]) -> T | None:
        """Do a step; whatever goes wrong in it is one log line and None, and the other steps have their turn."""
        name = getattr(step, "__name__", "chore").strip("_")
        try:
            return step()
        except Exception as error:
            if isinstance(error, RedisError) or is_away(error) or is_busy(error):
                log.warning("dispatch.postponed", step=name, error=type(error).__name__)
            else:
                log.error("dispatch.failed", step=name, **describe(error))
            return None

    def _tick(self) -> float:
        """Do one round if we lead; return the seconds until the next row becomes due, or the tick."""
        if time.monotonic() >= self._own_chores_at:
            self._own_chores_at = time.monotonic() + self._tick_s
            for chore in self._own_chores:
                self._guarded(chore)
        for step in (self._end_leases, self._expire, *self._chores):
            if not self._leads():
                return self._tick_s
            self._guarded(step)
        next_s = self._guarded(self._fill) if self._leads() else None
        return self._tick_s if next_s is None else min(next_s, self._tick_s)

    def _leads(self) -> bool:
        """Say whether this worker dispatches; asks the database when a good part of the lease has passed."""
        if self._stopping:
            return False
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
            dispatch.step_down(connection, self._lease.worker_id, name=LEADER)

    def _expire(self) -> None:
        ended = dispatch.EXPIRY_BATCH
        while ended == dispatch.EXPIRY_BATCH and self._leads():
            with self._engine.begin() as connection:
                ended = len(dispatch.expire(connection))
            if ended:
                log.info("job.expired", jobs=ended)

    def _end_leases(self) -> None:
        taken = TAKE_BACK_BATCH
        while taken >= TAKE_BACK_BATCH and self._leads():
            taken = self._take_back()

    def _take_back(self) -> int:
        """Take back one batch of jobs; return how many.

        After an outage of the database all leases have run out at once. Whoever has beaten without a gap for a whole
        lease knows that the others could have beaten too; before that, taking back buys running calls twice. Asked
        again before the commit: our own statement may be what waited the outage out.
        """
        if self._lease.unbroken_s() < self._lease_s:
            return 0
        with self._engine.connect() as connection:
            back = leases.take_back(connection, limit=TAKE_BACK_BATCH, once_only=self._once_only)
            if self._lease.unbroken_s() < self._lease_s:
                connection.rollback()
                return 0
            connection.commit()
        queued, failed, cancelled = len(back.queued), len(back.failed), len(back.cancelled)
        if back.workers or queued or failed or cancelled:
            log.warning("lease.taken_back", workers=back.workers, queued=queued, failed=failed, cancelled=cancelled)
        return queued + failed + cancelled

    def _fill(self) -> float | None:
        """Top the window up; return the seconds until the next row becomes due, None when none waits."""
        standing = read_window(self._redis, QUEUE)
        with self._engine.begin() as connection:
            # Before the due rows: what becomes due in between is among those.
            next_s = dispatch.next_start_s(connection)
            lanes, self._after = dispatch.lanes(connection, after=self._after, limit=dispatch.RANGES_A_TICK)
            slots = sum(leases.living(connection).values())
        room = self._pace.room(standing.keys(), slots=slots, at=time.monotonic())
        free = room - len(standing)
        if free <= 0:
            return next_s
        # Of `room` rows at most those that stand are known: the others are enough to fill it.
        entries = [(row.priority, nudge(row.job_id, row.attempt)) for row in self._best(lanes, room)]
        # Again where its priority is better by now than its place; the nudge left behind finds it claimed.
        missing = [entry for entry in entries if entry[0] < standing.get(entry[1], math.inf)][:free]
        if missing and self._leads():
            push_nudges(self._redis, QUEUE, missing, room=room)
            self._pace.filled({entry for _, entry in missing})
        return next_s

    def _best(self, lanes: Sequence[Lane], wanted: int) -> list[Due]:
        """Return about `wanted` due rows, best first: a like share of each lane, and what some leave to the others."""
        rows: dict[Lane, list[Due]] = {}
        deep, share = list(lanes), 0
        for _ in range(PASSES):
            left = wanted - sum(map(len, rows.values()))
            if left <= 0 or not deep:
                break
            share += math.ceil(left / len(deep))
            rows.update(self._read(deep, share))
            deep = [lane for lane in deep if len(rows.get(lane, ())) == share]
        return sorted((row for some in rows.values() for row in some), key=lambda row: (row.priority, -row.age_s))

    def _read(self, lanes: Sequence[Lane], limit: int) -> Iterator[tuple[Lane, list[Due]]]:
        for first in range(0, len(lanes), LANES_A_TRANSACTION):
            if not self._leads():
                return
            with self._engine.begin() as connection:
                some = [
                    (lane, dispatch.due(connection, lane, limit=limit)) for lane in lanes[first:][:LANES_A_TRANSACTION]
                ]
            yield from some
