"""The order of deliveries with the same ordering key: a delivery waits until the earlier ones of its key have ended.

The `run_at` of a waiting row is its deadline, so dispatch never reads it: ten thousand waiting rows cost a tick
nothing. Redeliveries on a person's request (`origin` manual) ignore the order.

`on_exhausted=skip`: later deliveries go out after an earlier one has failed for good. `block`: they wait until it is
redelivered. A cancelled delivery blocks neither.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, bindparam, literal_column, or_, select, update

from worker.core.lifecycle import DeliveryStatus
from worker.store.clock import now
from worker.webhooks.store.tables import deliveries, receivers

WAITS = "order"
MANUAL = "manual"
UNFINISHED = (DeliveryStatus.queued, DeliveryStatus.in_progress, DeliveryStatus.held)

Lane = tuple[str, str]  # a receiver's id and an ordering key


class SequencePosition(NamedTuple):
    """The next free sequence number of a lane.

    `gap`: the previous delivery has failed or was cancelled. `waits`: an earlier delivery must end first.
    """

    sequence: int
    waits: bool
    gap: bool


# Literals, because planners cannot use the partial indexes otherwise: a lane may have a million ended deliveries.
OPEN = deliveries.c.status.in_([literal_column(f"'{status}'") for status in UNFINISHED])
ON_HOLD = deliveries.c.status == literal_column(f"'{DeliveryStatus.held}'")
_FAILED = deliveries.c.status == literal_column(f"'{DeliveryStatus.failed}'")
_BEFORE = deliveries.c.sequence < bindparam("sequence", type_=BigInteger)
_GIVEN_UP = (DeliveryStatus.failed, DeliveryStatus.cancelled)


def _in_lane(*columns: ColumnElement[Any]) -> Select[Any]:
    return (
        select(*columns)
        .where(deliveries.c.receiver_id == bindparam("receiver"), deliveries.c.ordering_key == bindparam("key"))
        .limit(1)
    )


_LAST = _in_lane(deliveries.c.sequence, deliveries.c.status).order_by(deliveries.c.sequence.desc())
_HEAD = (
    _in_lane(deliveries.c.id, deliveries.c.sequence, deliveries.c.waiting_for)
    .where(OPEN, deliveries.c.origin != MANUAL)
    .order_by(deliveries.c.sequence)
)
_PREVIOUS = _in_lane(deliveries.c.status).where(_BEFORE).order_by(deliveries.c.sequence.desc())
# Ordered, because PostgreSQL would otherwise scan the whole table: it expects to find the one row soon.
_OPEN_BEFORE = _in_lane(deliveries.c.id).where(OPEN, _BEFORE).order_by(deliveries.c.sequence)
_FAILED_BEFORE = _in_lane(deliveries.c.id).where(_FAILED, _BEFORE).order_by(deliveries.c.sequence)
_STRICT = select(receivers.c.id).where(receivers.c.id == bindparam("receiver"), receivers.c.on_exhausted == "block")


def lock(connection: Connection, receiver_ids: Iterable[str]) -> dict[str, str]:
    """Lock the rows of receivers by id; return their statuses.

    Until our commit no other transaction begins or ends a delivery to them.
    """
    ids = sorted(set(receiver_ids))
    if not ids:
        return {}
    rows = select(receivers.c.id, receivers.c.status).where(receivers.c.id.in_(ids)).order_by(receivers.c.id)
    return {row.id: row.status for row in connection.execute(rows.with_for_update())}


def next_position(connection: Connection, lane: Lane) -> SequencePosition:
    """Return the next position of a lane; the caller holds the receiver's lock until it has inserted the delivery."""
    values = {"receiver": lane[0], "key": lane[1]}
    last = connection.execute(_LAST, values).first()
    if last is None:
        return SequencePosition(1, waits=False, gap=False)
    sequence = last.sequence + 1
    waits = connection.execute(_HEAD, values).first() is not None or _is_blocked(connection, lane, sequence)
    # For a waiting delivery `release` sets `after_gap`.
    return SequencePosition(sequence, waits=waits, gap=not waits and last.status in _GIVEN_UP)


def release(connection: Connection, lanes: Iterable[Lane]) -> list[tuple[str, str]]:
    """Make the first delivery of each lane due if nothing blocks it; return (receiver's id, delivery's id) of each.

    The caller has locked the receivers.
    """
    released: list[tuple[str, str]] = []
    for lane in sorted(set(lanes)):
        values = {"receiver": lane[0], "key": lane[1]}
        head = connection.execute(_HEAD, values).first()
        if head is None or head.waiting_for != WAITS or _is_blocked(connection, lane, head.sequence):
            continue
        changes: dict[str, Any] = {"run_at": now(), "waiting_for": None}
        previous = connection.execute(_PREVIOUS, values | {"sequence": head.sequence}).scalar()
        if previous in _GIVEN_UP:
            # A delivery with an earlier attempt keeps its body, so its `after_gap` does not change.
            changes["after_gap"] = or_(deliveries.c.after_gap, deliveries.c.attempt == 0)
        connection.execute(update(deliveries).where(deliveries.c.id == head.id).values(changes))
        released.append((lane[0], head.id))
    return released


def release_next(connection: Connection, rows: Sequence[Any]) -> None:
    """Release the deliveries behind failed ones; the caller has locked their receivers."""
    release(connection, {(row.receiver_id, row.ordering_key) for row in rows if row.ordering_key is not None})


def lock_rows(connection: Connection, chosen: Select[Any]) -> Sequence[Any]:
    """Lock and return the chosen rows; skip rows that another transaction holds.

    Lock order: receivers of deliveries with an ordering key first, then deliveries.
    """
    found = connection.execute(chosen).all()
    if not found:
        return found
    lock(connection, [row.receiver_id for row in found if row.ordering_key is not None])
    again = chosen.where(deliveries.c.id.in_([row.id for row in found]))
    return connection.execute(again.with_for_update(skip_locked=True)).all()


def _is_blocked(connection: Connection, lane: Lane, sequence: int) -> bool:
    """Say whether the receiver has `on_exhausted=block` and an earlier delivery has failed or is sent again."""
    values = {"receiver": lane[0], "key": lane[1], "sequence": sequence}
    if connection.execute(_STRICT, values).first() is None:
        return False
    return any(connection.execute(query, values).first() is not None for query in (_FAILED_BEFORE, _OPEN_BEFORE))
