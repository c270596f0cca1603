"""CLAIM of deliveries: the same fence, lease and guarded moves as for jobs, and the limits of the receiver.

Claim and record lock the receiver's row, then read its health, rate and order, ask `core` and write the result: two
workers never decide on the same state. Lock order: receivers by id, then deliveries.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, func, insert, literal_column, select, update

from worker.core.lifecycle import CLAIM_DELIVERY, DeliveryStatus
from worker.store.clock import UNIX_S, now, seconds_until
from worker.store.tables import workers
from worker.store.transitions import ClaimRequest, hide_from_planner
from worker.store.types import Id
from worker.webhooks.core.fair_slots import FairSlots
from worker.webhooks.core.receiver_health import room
from worker.webhooks.store.health_column import health_of
from worker.webhooks.store.tables import deliveries, delivery_attempts, events, receivers

# The largest burst: a bucket holds the tokens of one second.
BURST_S = 1.0


class DeliveryClaim(NamedTuple):
    """A claimed delivery, with the data of its one request. `left_s`: seconds to the deadline.

    `body`: the frozen body of its variant, None if that is deleted. `now_s` and `event_at_s`: Unix time by the
    database's clock.
    """

    delivery_id: str
    attempt: int
    worker_id: str
    receiver_id: str
    event_id: str
    event_type: str
    job_id: str | None
    tenant: str
    attempts_used: int
    left_s: float
    variant: str
    sequence: int
    after_gap: bool
    ordering_key: str | None
    origin: str
    receiver: str
    url: str
    url_sealed: str | None
    keys_sealed: str | None
    headers_sealed: str | None
    timeout_s: float
    schedule: str | None
    body: bytes | None
    event_at_s: float
    first_sent_s: float | None
    now_s: float


# KEY SHARE: until our commit no one can delete the worker's row and take the deliveries back.
_ALIVE = (
    select(workers.c.id)
    .where(workers.c.id == bindparam("worker_id"), workers.c.lease_until > now())
    .with_for_update(read=True, key_share=True)
)
_DUE = (
    select(deliveries.c.id, deliveries.c.receiver_id)
    .where(
        deliveries.c.id.in_(bindparam("ids", expanding=True)),
        hide_from_planner(deliveries.c.status) == DeliveryStatus.queued,
        deliveries.c.run_at <= now(),
        deliveries.c.deadline > now(),
    )
    .order_by(deliveries.c.run_at, deliveries.c.id)
    .with_for_update(skip_locked=True)
)
_RECEIVERS = (
    select(receivers, UNIX_S.label("now_s"), seconds_until(receivers.c.tokens_at).label("tokens_in_s"))
    .where(
        receivers.c.id.in_(
            select(deliveries.c.receiver_id).where(deliveries.c.id.in_(bindparam("ids", expanding=True)))
        )
    )
    .order_by(receivers.c.id)
    .with_for_update()
)
_FLIGHT = (
    select(deliveries.c.receiver_id, func.count())
    .where(
        deliveries.c.status == DeliveryStatus.in_progress,
        deliveries.c.receiver_id.in_(bindparam("ids", expanding=True)),
    )
    .group_by(deliveries.c.receiver_id)
)
_PLACES = (
    select(deliveries.c.tenant, deliveries.c.receiver_id, func.count())
    .where(
        deliveries.c.worker_id == bindparam("worker_id", type_=Id),
        # A literal, for the partial index of what a worker holds.
        deliveries.c.status == literal_column("'in_progress'"),
    )
    .group_by(deliveries.c.tenant, deliveries.c.receiver_id)
)
_MOVE = (
    update(deliveries)
    .where(deliveries.c.id.in_(bindparam("ids", expanding=True)))
    .values(
        status=CLAIM_DELIVERY.target,
        worker_id=bindparam("holder", type_=Id),
        attempt=deliveries.c.attempt + 1,
        attempts_used=deliveries.c.attempts_used + 1,
        waiting_for=None,
    )
    .returning(deliveries, seconds_until(deliveries.c.deadline).label("left_s"))
)
_OPEN = insert(delivery_attempts).values(sent_at=now())
_first = select(func.min(delivery_attempts.c.sent_at)).where(delivery_attempts.c.delivery_id == deliveries.c.id)
_BODIES = (
    select(
        deliveries.c.id,
        events.c.thin,
        events.c.full,
        events.c.openai,
        (UNIX_S + seconds_until(events.c.created_at)).label("event_at_s"),
        (UNIX_S + seconds_until(_first.scalar_subquery())).label("first_sent_s"),
    )
    .join(events, events.c.id == deliveries.c.event_id)
    .where(deliveries.c.id.in_(bindparam("ids", expanding=True)))
)


def claim(connection: Connection, claim_requests: Sequence[ClaimRequest], *, slots: int) -> list[DeliveryClaim | None]:
    """Claim each requested delivery that is due, if its receiver has room and its tenant a free slot; else None.

    All requests must come from the same worker; `slots` is its number of slots.
    """
    worker_id = claim_requests[0].worker_id
    ids = sorted({each.row_id for each in claim_requests})
    if connection.execute(_ALIVE, {"worker_id": worker_id}).first() is None:
        return [None] * len(claim_requests)
    known = {row.id: row for row in connection.execute(_RECEIVERS, {"ids": ids})}
    places = places_of(connection, worker_id, slots)
    chosen = _with_room(connection, connection.execute(_DUE, {"ids": ids}).all(), known, places)
    if not chosen:
        return [None] * len(claim_requests)
    rows = {row.id: row for row in connection.execute(_MOVE, {"ids": chosen, "holder": worker_id})}
    _open(connection, rows.values())
    bodies = {row.id: row for row in connection.execute(_BODIES, {"ids": sorted(rows)})}
    claims = {row.id: _claim(row, bodies.get(row.id), known[row.receiver_id]) for row in rows.values()}
    # A delivery that is requested twice in one batch is returned once.
    return [claims.pop(each.row_id, None) for each in claim_requests]


def places_of(connection: Connection, worker_id: str, slots: int) -> FairSlots:
    """Return the slots that a worker's deliveries occupy by its rows; no other worker changes them."""
    return FairSlots(slots, {(row[0], row[1]): row[2] for row in connection.execute(_PLACES, {"worker_id": worker_id})})


def _with_room(
    connection: Connection, due: Sequence[Any], known: Mapping[str, Row[Any]], places: FairSlots
) -> list[str]:
    """Choose the deliveries that may start now; spend one token of the receiver for each."""
    wanted = sorted({row.receiver_id for row in due})
    if not wanted:
        return []
    flight: dict[str, int] = {row[0]: row[1] for row in connection.execute(_FLIGHT, {"ids": wanted})}
    tokens = {receiver_id: tokens_of(known[receiver_id]) for receiver_id in wanted}
    room = {receiver_id: room_of(known[receiver_id], flight.get(receiver_id, 0)) for receiver_id in wanted}
    room |= {receiver_id: min(room[receiver_id], int(left)) for receiver_id, left in tokens.items() if left is not None}
    chosen: dict[str, list[str]] = defaultdict(list)
    for row in due:
        taken = chosen[row.receiver_id]
        if len(taken) < room[row.receiver_id] and places.take(known[row.receiver_id].tenant, row.receiver_id):
            taken.append(row.id)
    for receiver_id, left in tokens.items():
        if left is not None and chosen[receiver_id]:
            spend = update(receivers).where(receivers.c.id == receiver_id)
            connection.execute(spend.values(tokens=left - len(chosen[receiver_id]), tokens_at=now()))
    return sorted(taken_id for taken in chosen.values() for taken_id in taken)


def room_of(receiver: Any, in_flight: int) -> int:
    """Return how many more deliveries to a receiver may start. `receiver`: its row, with `now_s`."""
    if receiver.status != "enabled":
        return 0
    return room(health_of(receiver.health), limit=receiver.in_flight, in_flight=in_flight, now_s=receiver.now_s)


def tokens_of(receiver: Any) -> float | None:
    """Return the tokens of a receiver, None if it has no rate. `receiver`: its row, with `tokens_in_s`."""
    rate = receiver.rate_per_s
    if rate is None:
        return None
    most = max(1.0, rate * BURST_S)
    # `tokens_at` in the future: the clock was set back, and the bucket would stay empty until that time.
    if receiver.tokens is None or receiver.tokens_in_s is None or receiver.tokens_in_s > BURST_S:
        return float(most)
    return float(min(most, receiver.tokens + rate * max(0.0, -receiver.tokens_in_s)))


def _open(connection: Connection, rows: Iterable[Row[Any]]) -> None:
    connection.execute(
        _OPEN,
        [
            {
                "delivery_id": row.id,
                "attempt": row.attempt,
                "receiver_id": row.receiver_id,
                "worker_id": row.worker_id,
                "origin": row.origin,
                "variant": row.variant,
            }
            for row in rows
        ],
    )


def _claim(row: Row[Any], event: Row[Any] | None, receiver: Row[Any]) -> DeliveryClaim:
    # A delivery without its event must not fail the other claims of the batch.
    body = None if event is None else getattr(event, row.variant)
    return DeliveryClaim(
        delivery_id=row.id,
        attempt=row.attempt,
        worker_id=row.worker_id,
        receiver_id=row.receiver_id,
        event_id=row.event_id,
        event_type=row.event_type,
        job_id=row.job_id,
        tenant=row.tenant,
        attempts_used=row.attempts_used,
        left_s=row.left_s,
        variant=row.variant,
        sequence=row.sequence,
        after_gap=row.after_gap,
        ordering_key=row.ordering_key,
        origin=row.origin,
        receiver=receiver.name,
        url=receiver.url,
        url_sealed=receiver.url_sealed,
        keys_sealed=receiver.keys_sealed,
        headers_sealed=receiver.headers_sealed,
        timeout_s=receiver.timeout_s,
        schedule=receiver.schedule,
        body=None if body is None else bytes(body),
        event_at_s=receiver.now_s if event is None else event.event_at_s,
        first_sent_s=None if event is None else event.first_sent_s,
        now_s=receiver.now_s,
    )
