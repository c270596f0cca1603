"""DISPATCH of deliveries: finds the receivers with queued deliveries, their free slots, and their due deliveries."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, literal_column, select, union_all

from worker.store.clock import UNIX_S, present, seconds_until
from worker.store.transitions import Due
from worker.store.types import Id
from worker.webhooks.store.claim import room_of, tokens_of
from worker.webhooks.store.tables import deliveries, receivers

FIRST: Final = "00000000-0000-0000-0000-000000000000"
# Receivers read at one tick; each costs one step over an index.
RECEIVERS_A_TICK: Final = 500
# Receivers in one statement; each costs one index range. On SQLite a transaction holds the only write lock, so it must
# end after a few milliseconds.
LANES_A_STATEMENT: Final = 20


class ReceiverLane(NamedTuple):
    """A receiver with queued deliveries. `free`: how many may start now, None if the receiver is not enabled."""

    receiver_id: str
    free: int | None
    tenant: str = ""
    in_flight: int = 0
    is_due: bool = True


def queued(*columns: Any) -> Select[Any]:
    """Select columns of the queued deliveries."""
    # A literal: with a bound parameter the planner could not use the partial index.
    return select(*columns).where(deliveries.c.status == literal_column("'queued'"))


def _next_receiver(receiver_id: ColumnElement[str]) -> ColumnElement[str]:
    found = queued(deliveries.c.receiver_id).where(deliveries.c.receiver_id > receiver_id)
    return found.order_by(deliveries.c.receiver_id).limit(1).scalar_subquery()


def _walk() -> Select[Any]:
    """Select the receivers after `after` that have queued deliveries, with one index step for each receiver.

    The recursive query jumps from one receiver id to the next, so the number of rows does not matter. DISTINCT would
    read all rows: the databases do not skip duplicates in every version that we support.
    """
    first = _next_receiver(bindparam("after", type_=Id))
    steps = select(first.label("id"), literal_column("1").label("n")).cte("steps", recursive=True)
    following = select(_next_receiver(steps.c.id), steps.c.n + 1)
    steps = steps.union_all(following.where(steps.c.id.is_not(None), steps.c.n < bindparam("most")))
    return select(steps.c.id).where(steps.c.id.is_not(None))


def _due(of: str, most: str) -> Select[Any]:
    """Select a receiver's oldest due deliveries; `of` and `most` name the parameters for its id and the limit."""
    columns = (deliveries.c.receiver_id, deliveries.c.id, (deliveries.c.attempt + 1).label("next"))
    return (
        queued(*columns, (-seconds_until(deliveries.c.run_at)).label("age_s"))
        .where(deliveries.c.receiver_id == bindparam(of, type_=Id), deliveries.c.run_at <= present())
        .order_by(deliveries.c.run_at)
        .limit(bindparam(most))
    )


_WALK = _walk()
# A union, because SQLite has no LATERAL; always of the same size, because it is then prepared only once.
_DUE = union_all(*(select(_due(f"of_{n}", f"most_{n}").subquery()) for n in range(LANES_A_STATEMENT)))
_first = queued(deliveries.c.run_at).where(deliveries.c.receiver_id == receivers.c.id).order_by(deliveries.c.run_at)
_RECEIVERS = select(
    receivers,
    UNIX_S.label("now_s"),
    seconds_until(receivers.c.tokens_at).label("tokens_in_s"),
    seconds_until(_first.limit(1).correlate(receivers).scalar_subquery()).label("first_in_s"),
).where(receivers.c.id.in_(bindparam("ids", expanding=True)))
_FLIGHT = (
    select(deliveries.c.receiver_id, func.count())
    .where(
        deliveries.c.status == literal_column("'in_progress'"),
        deliveries.c.receiver_id.in_(bindparam("ids", expanding=True)),
    )
    .group_by(deliveries.c.receiver_id)
)


def lanes(
    connection: Connection, *, after: str = FIRST, most: int = RECEIVERS_A_TICK
) -> tuple[list[ReceiverLane], str]:
    """Return at most `most` receivers after `after` that have queued deliveries, and the `after` of the next call."""
    found = sorted(connection.scalars(_WALK, {"after": after, "most": most}))
    next_after = found[-1] if len(found) == most else FIRST
    if not found:
        return [], next_after
    flight = {row[0]: row[1] for row in connection.execute(_FLIGHT, {"ids": found})}
    rows = connection.execute(_RECEIVERS.order_by(receivers.c.id), {"ids": found}).all()
    return [_lane(row, flight.get(row.id, 0)) for row in rows], next_after


def _lane(receiver: Any, in_flight: int) -> ReceiverLane:
    is_due = receiver.first_in_s is not None and receiver.first_in_s <= 0
    if receiver.status != "enabled":
        return ReceiverLane(receiver.id, None, receiver.tenant, in_flight, is_due)
    free, tokens = room_of(receiver, in_flight), tokens_of(receiver)
    return ReceiverLane(
        receiver.id, free if tokens is None else min(free, int(tokens)), receiver.tenant, in_flight, is_due=is_due
    )


def due(connection: Connection, most: Mapping[str, int]) -> dict[str, list[Due]]:
    """Return the oldest due deliveries by receiver id; `most` has the receivers and how many deliveries of each."""
    found: dict[str, list[Due]] = defaultdict(list)
    wanted = sorted(most.items())
    for first in range(0, len(wanted), LANES_A_STATEMENT):
        batch = wanted[first:][:LANES_A_STATEMENT]
        for row in connection.execute(_DUE, _parameters(batch)):
            found[row.receiver_id].append(Due(row.id, row.next, 0, row.age_s))
    return found


def _parameters(wanted: Sequence[tuple[str, int]]) -> dict[str, str | int]:
    parameters: dict[str, str | int] = {}
    for n, (receiver_id, rows) in enumerate([*wanted, *[(FIRST, 0)] * (LANES_A_STATEMENT - len(wanted))]):
        parameters |= {f"of_{n}": receiver_id, f"most_{n}": rows}
    return parameters
