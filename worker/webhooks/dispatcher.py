"""DISPATCH of deliveries: puts due ones into Redis, and fails, holds or drops those that can no longer be sent."""

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
from worker.webhooks.store import due, expire, recover
from worker.webhooks.store.due import LANES_A_STATEMENT, ReceiverLane

QUEUE = "webhooks"
# Deliveries have no priorities. Receivers take turns; each receiver's oldest delivery goes first.
PRIORITY = 0
OLD_EVERY_S = 600.0
# Rows read for each receiver beyond its share: some are in Redis already, and other receivers may not fill their share.
SPARE = 8

log = structlog.get_logger()


class DeliveryDispatcher:
    """The leading dispatcher calls it at every tick. `slots`: the most deliveries in flight for one worker."""

    def __init__(self, engine: Engine, redis: Redis, *, window_s: float, slots: int) -> None:
        self._engine, self._redis, self._slots = engine, redis, slots
        self._pace = WindowSize(window_s)
        self._after = due.FIRST
        self._old_at = -math.inf

    def fill(self) -> float | None:
        """Top up the window; return the seconds until the next delivery becomes due, None when none waits."""
        in_window = read_window(self._redis, QUEUE)
        with self._engine.begin() as connection:
            # Read before the due rows: a delivery that becomes due in between is found there.
            next_s = expire.next_start_s(connection)
            lanes, self._after = due.lanes(connection, after=self._after)
            slots = self._slots * max(1, len(leases.living(connection))) if lanes else 0
        self._hold_or_drop([lane for lane in lanes if lane.free is None])
        room = self._pace.room(in_window.keys(), slots=slots, at=time.monotonic())
        left = room - len(in_window)
        open_lanes = [lane for lane in lanes if lane.free and lane.is_due]
        if left > 0 and open_lanes:
            entries = self._due_entries(open_lanes, in_window, left)
            push_nudges(self._redis, QUEUE, entries, room=room)
            self._pace.filled({entry for _, entry in entries})
        return next_s

    def look_after(self) -> None:
        """Fail deliveries past their deadline and advance recoveries; every OLD_EVERY_S drop those held too long."""
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

    def _due_entries(
        self, lanes: Sequence[ReceiverLane], in_window: Container[bytes], left: int
    ) -> list[tuple[int, bytes]]:
        """Return at most `left` due entries that are not in Redis yet; tenants take turns, then their receivers.

        Receivers with the fewest deliveries in flight are read first, and reading ends when `left` of them have an
        entry.
        """
        tenants = _by_tenant(lanes)
        most = {lane: math.ceil(left / len(tenants) / len(group)) + SPARE for group in tenants for lane in group}
        found: dict[ReceiverLane, list[bytes]] = {}
        waiting = _least_in_flight_first(lanes)
        for first in range(0, len(waiting), LANES_A_STATEMENT):
            batch = waiting[first:][:LANES_A_STATEMENT]
            with self._engine.begin() as connection:
                rows = due.due(connection, {lane.receiver_id: min(lane.free or 0, most[lane]) for lane in batch})
            for lane in batch:
                entries = (nudge(row.row_id, row.attempt) for row in rows.get(lane.receiver_id, ()))
                found[lane] = [entry for entry in entries if entry not in in_window]
            if sum(map(bool, found.values())) >= left:
                break
        by_tenant = [round_robin(found[lane] for lane in group) for group in _by_tenant(found)]
        return [(PRIORITY, entry) for entry in round_robin(by_tenant)][:left]

    def _drop_old(self) -> None:
        """Drop deliveries that were on hold for too long, one batch in each transaction."""
        with self._engine.begin() as connection:
            disabled = expire.disabled(connection)
        for receiver_id in disabled:
            dropped = expire.BATCH
            while dropped >= expire.BATCH:
                with self._engine.begin() as connection:
                    dropped = expire.drop_old(connection, receiver_id)
                if dropped:
                    log.warning("delivery.dropped", reason="on_hold", receiver_id=receiver_id, deliveries=dropped)

    def _hold_or_drop(self, lanes: list[ReceiverLane]) -> None:
        """Hold the queued deliveries of disabled receivers, drop those of removed ones; one batch for each receiver."""
        for lane in lanes:
            with self._engine.begin() as connection:
                count = expire.hold_or_drop(connection, lane)
            if count:
                log.info("delivery.held", receiver_id=lane.receiver_id, deliveries=count)


def _least_in_flight_first(lanes: Sequence[ReceiverLane]) -> list[ReceiverLane]:
    """Sort receivers by their deliveries in flight, then let their tenants take turns."""
    # Shuffled first: among equals, no receiver comes first at every tick.
    mixed = random.sample(lanes, len(lanes))
    return round_robin(_by_tenant(sorted(mixed, key=lambda lane: lane.in_flight)))


def _by_tenant(lanes: Iterable[ReceiverLane]) -> list[list[ReceiverLane]]:
    """Group receivers by tenant and keep their order."""
    found: dict[str, list[ReceiverLane]] = defaultdict(list)
    for lane in lanes:
        found[lane.tenant].append(lane)
    return list(found.values())
