"""Placeholder receivers: jobs have named them before their registration, and their deliveries are on hold.

    webhooks add ─▶ reserve ─▶ adopt, a batch in each transaction; the last batch registers ─▶ redeliver.resume

`adopt` changes the held deliveries to match the registration. Until its last transaction the row stays a placeholder:
deliveries of jobs that end in the meantime are put on hold and adopted too. A receiver without a URL is a placeholder;
its status and `disabled_reason` do not matter.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, literal, select, update

from worker.core.lifecycle import DROP_DELIVERY, DeliveryStatus
from worker.store import transitions
from worker.store.tables import finished, jobs
from worker.store.types import Id, Instant
from worker.webhooks.core.event import EventType
from worker.webhooks.core.payload import variant
from worker.webhooks.core.registration import Registration
from worker.webhooks.core.subscription import wants
from worker.webhooks.store import ordering, receivers, tables
from worker.webhooks.store.receivers import Sealed
from worker.webhooks.store.tables import deliveries, events

BATCH = 500

_IS_PLACEHOLDER = (tables.receivers.c.url == "", tables.receivers.c.status != "removed")
_ROWS = (
    select(
        *(deliveries.c[name] for name in ("id", "attempt", "event_type", "ordering_key", "sequence")),
        jobs.c.ordering_key.label("key"),
        jobs.c.generation,
        func.length(events.c.full).label("full_bytes"),
    )
    .join(events, events.c.id == deliveries.c.event_id)
    .outerjoin(jobs, jobs.c.id == deliveries.c.job_id)
    .outerjoin(finished, finished.c.job_id == deliveries.c.job_id)
    # Jobs that ended in one transaction have the same `created_at`; the feed's cursor orders them.
    .order_by(deliveries.c.created_at, func.coalesce(finished.c.cursor, 0), deliveries.c.id)
    # Skip the rows that the dispatcher drops at this moment because they are too old.
    .with_for_update(of=deliveries, skip_locked=True)
)
_ADOPT = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("of_delivery", type_=Id), deliveries.c.status == DeliveryStatus.held)
    .values(
        variant=bindparam("new_variant"), ordering_key=bindparam("new_key"), sequence=bindparam("new_sequence")
    )
)  # fmt: skip


@dataclass(slots=True)
class Adoption:
    """A registration in progress.

    `after`: deliveries created up to this instant are adopted. `places`: the last sequence number by ordering key.
    """

    receiver_id: str
    registration: Registration
    sealed: Sealed
    after: datetime | None = None
    places: Counter[str] = field(default_factory=Counter)


def find(connection: Connection, tenant: str, name: str) -> str | None:
    """Return the id of the placeholder with this name; lock it until our commit."""
    named = (tables.receivers.c.tenant == tenant, tables.receivers.c.name == name)
    return connection.execute(select(tables.receivers.c.id).where(*named, *_IS_PLACEHOLDER).with_for_update()).scalar()


def reserve(connection: Connection, adoption: Adoption) -> None:
    """Mark the placeholder as ours with the new public key. A later registration overwrites the mark and wins."""
    placeholder = update(tables.receivers).where(tables.receivers.c.id == adoption.receiver_id, *_IS_PLACEHOLDER)
    connection.execute(placeholder.values(public_key=adoption.sealed.public_key))


def adopt(connection: Connection, adoption: Adoption) -> bool | None:
    """Adopt the next batch of held deliveries, oldest first; register and enable the receiver with the last batch.

    Returns True when the receiver is registered, False when there is more to do, None when another registration has
    taken it over or it was removed. Deliveries of unwanted events are cancelled; the others get the body and the
    sequence number that they would have had.
    """
    ordering.lock(connection, [adoption.receiver_id])
    is_ours = (
        tables.receivers.c.id == adoption.receiver_id,
        tables.receivers.c.public_key == adoption.sealed.public_key,
    )
    if connection.execute(select(tables.receivers.c.id).where(*is_ours, *_IS_PLACEHOLDER)).first() is None:
        return None
    until = _adopt_batch(connection, adoption)
    if until is not None:
        adoption.after = until
        return False
    receivers.change(connection, adoption.receiver_id, adoption.registration, adoption.sealed)
    receivers.enable(connection, adoption.receiver_id)
    return True


def _adopt_batch(connection: Connection, adoption: Adoption) -> datetime | None:
    """Adopt a batch; return the instant up to which deliveries are adopted, or None after the last batch."""
    at = deliveries.c.created_at
    held = [deliveries.c.receiver_id == adoption.receiver_id, ordering.ON_HOLD]
    if adoption.after is not None:
        held.append(at > literal(adoption.after, Instant()))
    until = connection.execute(select(at).where(*held).order_by(at).offset(BATCH - 1).limit(1)).scalar()
    if until is not None:
        # All deliveries of the last instant: `_ROWS` sorts deliveries of the same instant among themselves.
        held.append(at <= literal(until, Instant()))
    rows = connection.execute(_ROWS.where(*held)).all()
    names = adoption.registration.subscription.events
    unwanted = {(row.id, row.attempt) for row in rows if not wants(names, EventType(row.event_type))}
    if rows:
        # The unwanted too: an operator may recover cancelled deliveries, and they must send no more than registered.
        connection.execute(
            _ADOPT, [_new_values(row, adoption, is_wanted=(row.id, row.attempt) not in unwanted) for row in rows]
        )
    transitions.apply(connection, DROP_DELIVERY, sorted(unwanted), table=deliveries)
    return until


def _new_values(row: Any, adoption: Adoption, *, is_wanted: bool) -> dict[str, Any]:
    subscription = adoption.registration.subscription
    key = row.key if is_wanted and adoption.registration.ordering == "per_key" else None
    if key is not None:
        adoption.places[key] += 1
        sequence = adoption.places[key]
    else:
        # If an interrupted registration has given the row a key, its sequence is of that key and must be replaced.
        sequence = row.sequence if row.ordering_key is None else (row.generation or 0) + 1
    return {
        "of_delivery": row.id,
        "new_variant": variant(subscription.payload, subscription.profile, full_bytes=row.full_bytes),
        "new_key": key,
        "new_sequence": sequence,
    }
