"""BULK: one order for all jobs that a filter means, in transactions of a bounded size, each guarded by the status."""

import time
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
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
    func,
    insert,
    select,
    update,
)

from worker.core.lifecycle import Status
from worker.core.where import Condition
from worker.store.engine import is_busy
from worker.store.tables import jobs
from worker.store.types import Id

BATCH = 1000
TRIES = 5
PAUSE_S = 0.2

_doors = MetaData()
_cancel = Table("cancel_v1", _doors, Column("id", Id))
_replay = Table("replay_v1", _doors, Column("id", Id))


class Order(StrEnum):
    """What is done to each job; `update` changes columns of jobs that wait."""

    cancel = "cancel"
    replay = "replay"
    update = "update"


_MAY: Mapping[Order, ColumnElement[bool]] = {
    Order.cancel: and_(jobs.c.status.in_([Status.queued, Status.in_progress]), jobs.c.cancel_requested_at.is_(None)),
    # The view says which may.
    Order.replay: exists().where(_replay.c.id == jobs.c.id),
    Order.update: jobs.c.status == Status.queued,
}


def count(connection: Connection, order: Order, conditions: Sequence[Condition]) -> int:
    """Return how many jobs the order would reach now."""
    return int(connection.execute(select(func.count()).where(*_meant(order, conditions))).scalar_one())


def apply(
    engine: Engine, order: Order, conditions: Sequence[Condition], *, changes: Mapping[str, Any] | None = None
) -> Iterator[int]:
    """Give the order to every job that is meant; yield after each transaction how many it reached.

    Each job once: one that fails again while this goes on is not replayed twice. `changes` are columns for `update`.
    """
    after: str | None = None
    while True:
        ids = _patiently(engine, order, conditions, after, changes)
        if not ids:
            return
        yield len(ids)
        after = ids[-1]


def _patiently(
    engine: Engine, order: Order, conditions: Sequence[Condition], after: str | None, changes: Mapping[str, Any] | None
) -> list[str]:
    """Do one transaction, again when another one was in the way."""
    for tries in range(TRIES):
        try:
            with engine.begin() as connection:
                return _step(connection, order, conditions, after, changes)
        except Exception as error:
            if not is_busy(error) or tries == TRIES - 1:
                raise
        time.sleep(PAUSE_S)
    raise AssertionError("the last try neither returned nor raised")


def _step(
    connection: Connection,
    order: Order,
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
    if order is Order.update:
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(dict(changes or {})))
    else:
        door = _cancel if order is Order.cancel else _replay
        connection.execute(insert(door).from_select(["id"], locked))
    return ids


def _meant(order: Order, conditions: Sequence[Condition]) -> list[ColumnElement[bool]]:
    return [_MAY[order], *map(_clause, conditions)]


def _clause(condition: Condition) -> ColumnElement[bool]:
    column = jobs.c[condition.column]
    match condition.compare:
        case "is":
            return column.in_(condition.values)
        case "before":
            return column < condition.values[0]
        case "after":
            return column > condition.values[0]
