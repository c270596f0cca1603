"""The dispatcher's part for webhooks: due deliveries into Redis, and the end of those that time or receivers ended."""

import math
import time
from collections.abc import Container

import structlog
from redis import Redis
from sqlalchemy import Engine

from worker.core.pace import Pace
from worker.nudge import nudge, push_nudges, read_window
from worker.store import leases, recoveries, webhook_dispatch
from worker.store.webhook_dispatch import Lane

QUEUE = "webhooks"
# Deliveries have no priorities: the oldest first, receiver by receiver.
PRIORITY = 0
OLD_EVERY_S = 600.0
LANES_A_TRANSACTION = 20

log = structlog.get_logger()


class Delivering:
    """Called at the ticks of the dispatcher that leads. `slots`: deliveries in flight at most, of one worker."""

    def __init__(self, engine: Engine, redis: Redis, *, window_s: float, slots: int) -> None:
        self._engine, self._redis, self._slots = engine, redis, slots
        self._pace = Pace(window_s)
        self._after = webhook_dispatch.FIRST
        self._old_at = -math.inf

    def fill(self) -> float | None:
        """Top the window up; return the seconds until the next delivery becomes due, None when none waits."""
        standing = read_window(self._redis, QUEUE)
        with self._engine.begin() as connection:
            # Before the due rows: what becomes due in between is among those.
            next_s = webhook_dispatch.next_start_s(connection)
            lanes, self._after = webhook_dispatch.lanes(connection, after=self._after)
            slots = self._slots * max(1, len(leases.living(connection))) if lanes else 0
        self._settle([lane for lane in lanes if lane.free is None])
        room = self._pace.room(standing.keys(), slots=slots, at=time.monotonic())
        left = room - len(standing)
        open_lanes = [lane for lane in lanes if lane.free]
        if left > 0 and open_lanes:
            missing = self._missing(open_lanes, standing, left)
            push_nudges(self._redis, QUEUE, missing, room=room)
            self._pace.filled({entry for _, entry in missing})
        return next_s

    def look_after(self) -> None:
        """Fail what passed its deadline, take recoveries a step on; now and then, drop what was on hold too long."""
        ended = webhook_dispatch.BATCH
        while ended >= webhook_dispatch.BATCH:
            with self._engine.begin() as connection:
                ended = webhook_dispatch.give_up(connection)
            if ended:
                log.warning("delivery.given_up", reason="deadline", deliveries=ended)
        with self._engine.begin() as connection:
            recoveries.step(connection)
        if time.monotonic() - self._old_at > OLD_EVERY_S:
            self._old_at = time.monotonic()
            self._drop_old()

    def _missing(self, lanes: list[Lane], standing: Container[bytes], left: int) -> list[tuple[int, bytes]]:
        """Return entries that are due and do not stand yet: of each receiver what it has room for, the oldest first."""
        found: list[tuple[float, bytes]] = []
        for first in range(0, len(lanes), LANES_A_TRANSACTION):
            with self._engine.begin() as connection:
                for lane in lanes[first:][:LANES_A_TRANSACTION]:
                    rows = webhook_dispatch.due(connection, lane.receiver_id, limit=min(lane.free or 0, left))
                    found += [(-row.age_s, nudge(row.job_id, row.attempt)) for row in rows]
        return [(PRIORITY, entry) for _, entry in sorted(found) if entry not in standing][:left]

    def _drop_old(self) -> None:
        """Drop all that was on hold for too long, a batch a transaction."""
        with self._engine.begin() as connection:
            disabled = webhook_dispatch.disabled(connection)
        for receiver_id in disabled:
            dropped = webhook_dispatch.BATCH
            while dropped >= webhook_dispatch.BATCH:
                with self._engine.begin() as connection:
                    dropped = webhook_dispatch.drop_old(connection, receiver_id)
                if dropped:
                    log.warning("delivery.dropped", reason="on_hold", receiver_id=receiver_id, deliveries=dropped)

    def _settle(self, lanes: list[Lane]) -> None:
        """Hold or drop what waits for receivers that take nothing any more, a batch each."""
        for lane in lanes:
            with self._engine.begin() as connection:
                settled = webhook_dispatch.settle(connection, lane)
            if settled:
                log.info("delivery.held", receiver_id=lane.receiver_id, deliveries=settled)
