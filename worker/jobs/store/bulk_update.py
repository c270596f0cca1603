"""BULK: one order for all jobs that a filter means, in transactions of a bounded size, each guarded by the status.

Jobs that no worker has read are meant by what their producer says beside the text. A cancellation marks their ids for
ACCEPT; other orders do not reach them.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    Table,
    and_,
    exists,
    false,
    func,
    insert,
    literal,
    select,
    update,
)

from worker.core.lifecycle import Status
from worker.jobs.core.filter import Condition
from worker.store.engine import is_busy
from worker.store.tables import cancellations, inbox, jobs
from worker.store.types import Id

BATCH = 1000
TRIES = 5
PAUSE_S = 0.2

_doors = MetaData()
_cancel = Table("cancel_v1", _doors, Column("id", Id))
_replay = Table("replay_v1", _doors, Column("id", Id))


class BulkOrder(StrEnum):
    """What is done to each job; `update` changes columns of jobs that wait."""

    cancel = "cancel"
    replay = "replay"
    update = "update"


_MAY: Mapping[BulkOrder, ColumnElement[bool]] = {
    BulkOrder.cancel: and_(
        jobs.c.status.in_([Status.queued, Status.in_progress]), jobs.c.cancel_requested_at.is_(None)
    ),
    # The view says which may.
    BulkOrder.replay: exists().where(_replay.c.id == jobs.c.id),
    BulkOrder.update: jobs.c.status == Status.queued,
}


def count(connection: Connection, order: BulkOrder, conditions: Sequence[Condition]) -> int:
    """Return how many jobs the order would reach now."""
    read = int(connection.execute(select(func.count()).where(*_meant(order, conditions))).scalar_one())
    return read + (count_unread(connection, conditions) if order is BulkOrder.cancel else 0)


def count_unread(connection: Connection, conditions: Sequence[Condition]) -> int:
    """Return how many jobs are meant that no worker has read and no mark cancels."""
    return int(connection.execute(select(func.count()).select_from(inbox).where(*_unread(conditions))).scalar_one())


def apply(
    engine: Engine, order: BulkOrder, conditions: Sequence[Condition], *, changes: Mapping[str, Any] | None = None
) -> Iterator[int]:
    """Give the order to every job that is meant; yield after each transaction how many it reached.

    Each job once: one that fails again while this goes on is not replayed twice. `changes` are columns for `update`.
    """
    if order is BulkOrder.cancel:
        # Before the jobs: what is read in between is found among those.
        yield from _walk(engine, partial(_mark, conditions=conditions))
    yield from _walk(engine, partial(_step, order=order, conditions=conditions, changes=changes))


def _walk(engine: Engine, step: Callable[..., Sequence[Any]]) -> Iterator[int]:
    """Take steps, each behind the last key that the one before returned; yield how many each reached."""
    keys = _patiently(engine, partial(step, after=None))
    while keys:
        yield len(keys)
        keys = _patiently(engine, partial(step, after=keys[-1]))


def _patiently(engine: Engine, step: Callable[[Connection], Sequence[Any]]) -> Sequence[Any]:
    """Do one transaction, again when another one was in the way."""
    for tries in range(TRIES):
        try:
            with engine.begin() as connection:
                return step(connection)
        except Exception as error:
            if not is_busy(error) or tries == TRIES - 1:
                raise
        time.sleep(PAUSE_S)
    raise AssertionError("the last try neither returned nor raised")


def _mark(connection: Connection, *, conditions: Sequence[Condition], after: int | None) -> list[int]:
    """Cancel the next unread jobs by their ids, in the order in which they came; return their places."""
    chosen = select(inbox.c.seq, inbox.c.id).where(*_unread(conditions)).order_by(inbox.c.seq).limit(BATCH)
    if after is not None:
        chosen = chosen.where(inbox.c.seq > after)
    rows = connection.execute(chosen).all()
    if rows:
        connection.execute(insert(_cancel), [{"id": row.id} for row in rows])
    return [row.seq for row in rows]


def _step(
    connection: Connection,
    *,
    order: BulkOrder,
    conditions: Sequence[Condition],
    after: str | None,
    changes: Mapping[str, Any] | None,
) -> list[str]:
    """Lock the next jobs that are meant, in the order of their ids, and give them the order; return their ids."""
    chosen = select(jobs.c.id).where(*_meant(order, conditions)).order_by(jobs.c.id).limit(BATCH)
    if after is not None:
        chosen = chosen.where(jobs.c.id > after)
    ids = list(connection.scalars(chosen.with_for_update(of=jobs)))
    if not ids:
        return []
    locked = select(jobs.c.id).where(jobs.c.id.in_(ids))
    if order is BulkOrder.update:
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(dict(changes or {})))
    else:
        door = _cancel if order is BulkOrder.cancel else _replay
        connection.execute(insert(door).from_select(["id"], locked))
    return ids


def _meant(order: BulkOrder, conditions: Sequence[Condition]) -> list[ColumnElement[bool]]:
    return [_MAY[order], *(_clause(condition, jobs.c[condition.column]) for condition in conditions)]


def _unread(conditions: Sequence[Condition]) -> list[ColumnElement[bool]]:
    """Choose rows of the inbox as jobs_v1 shows them: queued, with the names that their producer gives, and no more."""
    shown: dict[str, ColumnElement[Any]] = {"status": literal(str(Status.queued)), "created_at": inbox.c.created_at}
    shown |= {name: inbox.c[name] for name in ("tenant", "batch", "custom_id")}
    unmarked = ~exists().where(cancellations.c.id == inbox.c.id)
    return [unmarked, *(_clause(condition, shown.get(condition.column)) for condition in conditions)]


def _clause(condition: Condition, column: ColumnElement[Any] | None) -> ColumnElement[bool]:
    if column is None:
        return false()
    match condition.compare:
        case "is":
            return column.in_(condition.values)
        case "before":
            return column < condition.values[0]
        case "after":
            return column > condition.values[0]
