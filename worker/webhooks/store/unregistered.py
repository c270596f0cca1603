"""Receivers that jobs have named and nobody has registered: what is on hold for one is fitted to its registration.

    webhooks add ─▶ reserve ─▶ fit, a batch a transaction; the last one registers ─▶ requeue.resume

Until that last transaction the receiver stands as jobs have made it: what ends meanwhile is put on hold as all before
it, and is fitted too. A receiver without an address is awaited, whatever its status and its reason say.
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
from worker.webhooks.store import ordering, receivers
from worker.webhooks.store.receivers import Sealed
from worker.webhooks.store.tables import deliveries, events
from worker.webhooks.store.tables import receivers as table

BATCH = 500

_AWAITED = (table.c.url == "", table.c.status != "removed")
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
    # One transaction ends many jobs at one instant; the feed has numbered them.
    .order_by(deliveries.c.created_at, func.coalesce(finished.c.cursor, 0), deliveries.c.id)
    # What the dispatcher is dropping, because it is too old, has no place.
    .with_for_update(of=deliveries, skip_locked=True)
)
_FIT = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("of_delivery", type_=Id), deliveries.c.status == DeliveryStatus.held)
    .values(
        variant=bindparam("new_variant"), ordering_key=bindparam("new_key"), sequence=bindparam("new_sequence")
    )
)  # fmt: skip


@dataclass(slots=True)
class Adoption:
    """A registration on its way. `after`: all that was made until then is fitted; `places`: the last of each key."""

    receiver_id: str
    registration: Registration
    sealed: Sealed
    after: datetime | None = None
    places: Counter[str] = field(default_factory=Counter)


def find(connection: Connection, tenant: str, name: str) -> str | None:
    """Return the id of the awaited receiver of a name; lock it until our commit."""
    wanted = select(table.c.id).where(table.c.tenant == tenant, table.c.name == name, *_AWAITED)
    return connection.execute(wanted.with_for_update()).scalar()


def reserve(connection: Connection, fitting: Adoption) -> None:
    """Leave the mark of who registers a receiver: the new public key. Whoever comes later takes it over."""
    mine = update(table).where(table.c.id == fitting.receiver_id, *_AWAITED)
    connection.execute(mine.values(public_key=fitting.sealed.public_key))


def adopt(connection: Connection, fitting: Adoption) -> bool | None:
    """Fit the next batch of what is on hold, oldest first; with the last of them register and enable the receiver.

    Return True when it is registered, False when there is more to do, None when somebody else has taken it over or has
    removed it. What the registration does not want is cancelled, the rest gets the body and the place in the order
    that it would have had.
    """
    ordering.lock(connection, [fitting.receiver_id])
    mark = (table.c.id == fitting.receiver_id, table.c.public_key == fitting.sealed.public_key)
    if connection.execute(select(table.c.id).where(*mark, *_AWAITED)).first() is None:
        return None
    until = _fit_batch(connection, fitting)
    if until is not None:
        fitting.after = until
        return False
    receivers.change(connection, fitting.receiver_id, fitting.registration, fitting.sealed)
    receivers.enable(connection, fitting.receiver_id)
    return True


def _fit_batch(connection: Connection, fitting: Adoption) -> datetime | None:
    """Return the instant up to which all is fitted, or None when that is all there is."""
    at = deliveries.c.created_at
    mine = [deliveries.c.receiver_id == fitting.receiver_id, ordering.ON_HOLD]
    if fitting.after is not None:
        mine.append(at > literal(fitting.after, Instant()))
    until = connection.execute(select(at).where(*mine).order_by(at).offset(BATCH - 1).limit(1)).scalar()
    if until is not None:
        # Never between two of one instant: their order is found among all of them.
        mine.append(at <= literal(until, Instant()))
    rows = connection.execute(_ROWS.where(*mine)).all()
    names = fitting.registration.subscription.events
    unwanted = {(row.id, row.attempt) for row in rows if not wants(names, EventType(row.event_type))}
    if rows:
        # The unwanted too: somebody may recover what was cancelled, and must not send more than was asked for.
        connection.execute(
            _FIT, [_fitted(row, fitting, is_wanted=(row.id, row.attempt) not in unwanted) for row in rows]
        )
    transitions.apply(connection, DROP_DELIVERY, sorted(unwanted), table=deliveries)
    return until


def _fitted(row: Any, fitting: Adoption, *, is_wanted: bool) -> dict[str, Any]:
    told = fitting.registration.subscription
    key = row.key if is_wanted and fitting.registration.ordering == "per_key" else None
    if key is not None:
        fitting.places[key] += 1
        sequence = fitting.places[key]
    else:
        # A place that a registration gave which was broken off is worth nothing.
        sequence = row.sequence if row.ordering_key is None else (row.generation or 0) + 1
    return {
        "of_delivery": row.id,
        "new_variant": variant(told.payload, told.profile, full_bytes=row.full_bytes),
        "new_key": key,
        "new_sequence": sequence,
    }
