"""Queues deliveries again on an operator's request (redeliver, resume, recover), or drops them.

A delivery starts again with all attempts of the schedule and a new deadline; its id, webhook-id and bytes stay. A
delivery with an ordering key keeps its place in the order, except after `redeliver`, which sends it at once.

To avoid deadlocks, these functions lock the receiver first and then only rows that no claim locks.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, literal, select, update

from worker.core.lifecycle import DROP_DELIVERY, REDELIVER, RESUME_DELIVERY, DeliveryStatus, Move
from worker.store import transitions
from worker.store.clock import from_now, now
from worker.store.types import Instant
from worker.webhooks.core.event import event_id_of, freeze_test
from worker.webhooks.core.payload import Profile, Variant
from worker.webhooks.store import ordering
from worker.webhooks.store.emit import DEADLINE_S
from worker.webhooks.store.receivers import Receiver, present
from worker.webhooks.store.tables import deliveries, events, receivers

BATCH = 500
TEST = "test"

_KEY = tuple(deliveries.c[name] for name in ("id", "attempt", "receiver_id", "ordering_key", "origin"))


def new_test(connection: Connection, receiver: Receiver) -> str:
    """Write an event `receiver.test` with one delivery to an enabled receiver; return the delivery's id."""
    event, delivery = uuid.uuid4(), str(uuid.uuid4())
    at = present(connection)
    bodies = freeze_test(event_id_of(event), receiver=receiver.name, at=at)
    openai = receiver.registration.subscription.profile is Profile.openai
    shared = {"tenant": receiver.registration.tenant, "created_at": at}
    connection.execute(
        insert(events).values(
            id=str(event), type=bodies.type, thin=bodies.thin, openai=bodies.openai if openai else None, **shared
        )
    )
    connection.execute(
        insert(deliveries).values(
            id=delivery,
            event_id=str(event),
            receiver_id=receiver.id,
            event_type=bodies.type,
            status=DeliveryStatus.queued,
            run_at=now(),
            deadline=from_now(DEADLINE_S),
            variant=Variant.openai if openai else Variant.thin,
            sequence=1,
            origin=TEST,
            **shared,
        )
    )
    return delivery


def redeliver(connection: Connection, delivery_id: str) -> str | None:
    """Send a delivery again at once, ignoring its order; return None, or a sentence why it cannot be sent."""
    row = connection.execute(
        select(deliveries.c.receiver_id, receivers.c.name, receivers.c.status, receivers.c.url)
        .join(receivers, receivers.c.id == deliveries.c.receiver_id)
        .where(deliveries.c.id == delivery_id)
        # The receiver's row is the lock of all its deliveries.
        .with_for_update(of=receivers)
    ).first()
    if row is None:
        return f"no delivery {delivery_id} is known; list them with: afterword webhooks deliveries list"
    if row.status == "removed":
        return f"the receiver {row.name} of delivery {delivery_id} was removed; nothing can be sent to it"
    if not row.url:
        return f"the receiver {row.name} is not registered yet; register it with: afterword webhooks add {row.name} URL"
    if row.status == "disabled":
        return f"the receiver {row.name} is disabled; enable it with: afterword webhooks enable {row.name}"
    # Skip a locked row: the dispatcher may fail or drop it at this moment without a lock on the receiver.
    locked = select(*_KEY, deliveries.c.status).where(deliveries.c.id == delivery_id)
    found = connection.execute(locked.with_for_update(skip_locked=True)).first()
    if found is None or found.status == DeliveryStatus.in_progress:
        return f"delivery {delivery_id} is in flight; try again when it has ended"
    if found.status == DeliveryStatus.queued:
        # It is queued already, so no transition: only its columns are reset.
        connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(_reset(ordering.MANUAL)))
    else:
        queue(connection, REDELIVER, [found], origin=ordering.MANUAL)
    return None


def resume(connection: Connection, receiver_id: str, *, since: datetime | None = None) -> int:
    """Queue a batch of an enabled receiver's held deliveries, created at or after `since`; return how many."""
    ordering.lock(connection, [receiver_id])
    held = select(*_KEY).where(deliveries.c.receiver_id == receiver_id, ordering.ON_HOLD)
    if since is not None:
        held = held.where(deliveries.c.created_at >= literal(since, Instant()))
    rows = connection.execute(held.order_by(deliveries.c.created_at, deliveries.c.id).limit(BATCH)).all()
    return len(queue(connection, RESUME_DELIVERY, rows))


def drop(
    connection: Connection,
    receiver_id: str,
    *,
    statuses: Sequence[DeliveryStatus] = (DeliveryStatus.queued, DeliveryStatus.held),
    before: datetime | None = None,
) -> int:
    """Cancel a batch of queued or held deliveries, created before `before`; return how many.

    Rows that another transaction locks are skipped: a claimed one ends in flight, and the dispatcher finds the others.
    """
    chosen = select(deliveries.c.id, deliveries.c.attempt).where(
        deliveries.c.receiver_id == receiver_id, deliveries.c.status.in_([str(status) for status in statuses])
    )
    if before is not None:
        chosen = chosen.where(deliveries.c.created_at < literal(before, Instant()))
    rows = connection.execute(chosen.limit(BATCH).with_for_update(skip_locked=True))
    return len(transitions.apply(connection, DROP_DELIVERY, [(row.id, row.attempt) for row in rows], table=deliveries))


def queue(
    connection: Connection, move: Move, rows: Sequence[Any], *, origin: str | None = None
) -> set[transitions.Key]:
    """Move rows of a locked receiver to `queued`; return those that moved. `origin` None: keep the row's origin."""
    moved: set[transitions.Key] = set()
    for keyed in (False, True):
        chosen = [(row.id, row.attempt) for row in rows if _in_order(row, origin) is keyed]
        moved |= transitions.apply(connection, move, chosen, table=deliveries, changes=_reset(origin, waits=keyed))
    lanes = {(row.receiver_id, row.ordering_key) for row in rows if _in_order(row, origin)}
    # A row that was held or ended when the delivery before it ended was not released then.
    ordering.release(connection, lanes)
    return moved


def advance_all(connection: Connection, receiver_id: str, *, after: str = "") -> str | None:
    """Release deliveries that wait in a receiver's lanes, for a batch of ordering keys after `after`.

    Returns the last key, or None when there are no more keys.
    """
    ordering.lock(connection, [receiver_id])
    waiting = select(deliveries.c.ordering_key).where(
        deliveries.c.receiver_id == receiver_id,
        deliveries.c.ordering_key > after,
        deliveries.c.waiting_for == ordering.WAITS,
        deliveries.c.status == DeliveryStatus.queued,
        ordering.OPEN,
    )
    keys = connection.scalars(waiting.distinct().order_by(deliveries.c.ordering_key).limit(BATCH)).all()
    ordering.release(connection, {(receiver_id, key) for key in keys if key is not None})
    return keys[-1] if keys else None


def _in_order(row: Any, origin: str | None) -> bool:
    return row.ordering_key is not None and (origin or row.origin) != ordering.MANUAL


def _reset(origin: str | None, *, waits: bool = False) -> dict[str, Any]:
    """Return the columns of a delivery that starts again; while it `waits`, its `run_at` is its deadline."""
    changes = {
        "run_at": from_now(DEADLINE_S) if waits else now(),
        "deadline": from_now(DEADLINE_S),
        "attempts_used": 0,
        "finished_at": None,
        "waiting_for": ordering.WAITS if waits else None,
    }
    return changes | ({} if origin is None else {"origin": origin})
