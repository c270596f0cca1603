"""The dispatcher's part for webhooks: due deliveries into Redis, and the end of those that time or receivers ended."""

import math
import random
import time
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence

import structlog
from redis import Redis
from sqlalchemy import Engine

from worker.queue.nudges import nudge, push_nudges, read_window
from worker.queue.window_size import WindowSize
from worker.store import leases
from worker.webhooks.core.fair_slots import round_robin
from worker.webhooks.store import due as webhook_lanes
from worker.webhooks.store import expire, recover
from worker.webhooks.store.due import LANES_A_STATEMENT, ReceiverLane

QUEUE = "webhooks"
# Deliveries have no priorities: by turns, of each receiver the oldest first.
PRIORITY = 0
OLD_EVERY_S = 600.0
# Of a receiver more than its share is read: some stand already, and others have less than their share.
SPARE = 8

log = structlog.get_logger()


class DeliveryDispatcher:
    """Called at the ticks of the dispatcher that leads. `slots`: deliveries in flight at most, of one worker."""

    def __init__(self, engine: Engine, redis: Redis, *, window_s: float, slots: int) -> None:
        self._engine, self._redis, self._slots = engine, redis, slots
        self._pace = WindowSize(window_s)
        self._after = webhook_lanes.FIRST
        self._old_at = -math.inf

    def fill(self) -> float | None:
        """Top the window up; return the seconds until the next delivery becomes due, None when none waits."""
        standing = read_window(self._redis, QUEUE)
        with self._engine.begin() as connection:
            # Before the due rows: what becomes due in between is among those.
            next_s = expire.next_start_s(connection)
            lanes, self._after = webhook_lanes.lanes(connection, after=self._after)
            slots = self._slots * max(1, len(leases.living(connection))) if lanes else 0
        self._settle([lane for lane in lanes if lane.free is None])
        room = self._pace.room(standing.keys(), slots=slots, at=time.monotonic())
        left = room - len(standing)
        open_lanes = [lane for lane in lanes if lane.free and lane.is_due]
        if left > 0 and open_lanes:
            missing = self._missing(open_lanes, standing, left)
            push_nudges(self._redis, QUEUE, missing, room=room)
            self._pace.filled({entry for _, entry in missing})
        return next_s

    def look_after(self) -> None:
        """Fail what passed its deadline, take recoveries a step on; now and then, drop what was on hold too long."""
        ended = expire.BATCH
        while ended >= expire.BATCH:
            with self._engine.begin() as connection:
                ended = expire.give_up(connection)
            if ended:
                log.warning("delivery.given_up", reason="deadline", deliveries=ended)
        with self._engine.begin() as connection:
            recover.step(connection)
        if time.monotonic() - self._old_at > OLD_EVERY_S:
            self._old_at = time.monotonic()
            self._drop_old()

    def _missing(self, lanes: Sequence[ReceiverLane], standing: Container[bytes], left: int) -> list[tuple[int, bytes]]:
        """Return entries that are due and do not stand yet, `left` at most: by turns of the tenants and receivers.

        No more receivers are read than have a place in the window; who has least in flight comes first.
        """
        tenants = _tenants(lanes)
        most = {one: math.ceil(left / len(tenants) / len(some)) + SPARE for some in tenants for one in some}
        found: dict[ReceiverLane, list[bytes]] = {}
        waiting = _in_turn(lanes)
        for first in range(0, len(waiting), LANES_A_STATEMENT):
            some = waiting[first:][:LANES_A_STATEMENT]
            with self._engine.begin() as connection:
                due = webhook_lanes.due(connection, {one.receiver_id: min(one.free or 0, most[one]) for one in some})
            for lane in some:
                entries = (nudge(row.row_id, row.attempt) for row in due.get(lane.receiver_id, ()))
                found[lane] = [entry for entry in entries if entry not in standing]
            if sum(map(bool, found.values())) >= left:
                break
        by_tenant = [round_robin(found[lane] for lane in some) for some in _tenants(found)]
        return [(PRIORITY, entry) for entry in round_robin(by_tenant)][:left]

    def _drop_old(self) -> None:
        """Drop all that was on hold for too long, a batch a transaction."""
        with self._engine.begin() as connection:
            disabled = expire.disabled(connection)
        for receiver_id in disabled:
            dropped = expire.BATCH
            while dropped >= expire.BATCH:
                with self._engine.begin() as connection:
                    dropped = expire.drop_old(connection, receiver_id)
                if dropped:
                    log.warning("delivery.dropped", reason="on_hold", receiver_id=receiver_id, deliveries=dropped)

    def _settle(self, lanes: list[ReceiverLane]) -> None:
        """Hold or drop what waits for receivers that take nothing any more, a batch each."""
        for lane in lanes:
            with self._engine.begin() as connection:
                settled = expire.settle(connection, lane)
            if settled:
                log.info("delivery.held", receiver_id=lane.receiver_id, deliveries=settled)


def _in_turn(lanes: Sequence[ReceiverLane]) -> list[ReceiverLane]:
    """Return receivers with those first that have least in flight, by turns of their tenants."""
    # By chance among equals: no name is the first at every tick.
    mixed = random.sample(lanes, len(lanes))
    return round_robin(_tenants(sorted(mixed, key=lambda lane: lane.in_flight)))


def _tenants(lanes: Iterable[ReceiverLane]) -> list[list[ReceiverLane]]:
    """Return receivers by tenant, in the order they have."""
    found: dict[str, list[ReceiverLane]] = defaultdict(list)
    for lane in lanes:
        found[lane.tenant].append(lane)
    return list(found.values())
