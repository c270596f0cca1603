"""BULK: applies one action (cancel, replay, update) to all jobs that match a filter, in transactions of limited size.

The status guards every write. `cancel` also reaches jobs that are still in the inbox: it matches them by the inbox
columns that their producer filled, and inserts a cancel request for each id. Other actions do not reach them.
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

_views = MetaData()
_cancel_view = Table("cancel_v1", _views, Column("id", Id))
_replay_view = Table("replay_v1", _views, Column("id", Id))


class BulkAction(StrEnum):
    """The action for each job. `update` changes columns of queued jobs."""

    cancel = "cancel"
    replay = "replay"
    update = "update"


_ALLOWED: Mapping[BulkAction, ColumnElement[bool]] = {
    BulkAction.cancel: and_(
        jobs.c.status.in_([Status.queued, Status.in_progress]), jobs.c.cancel_requested_at.is_(None)
    ),
    # The view replay_v1 lists the jobs that may be replayed.
    BulkAction.replay: exists().where(_replay_view.c.id == jobs.c.id),
    BulkAction.update: jobs.c.status == Status.queued,
}


def count(connection: Connection, action: BulkAction, conditions: Sequence[Condition]) -> int:
    """Return the number of jobs that the action would reach now."""
    statement = select(func.count()).where(*_job_conditions(action, conditions))
    read = int(connection.execute(statement).scalar_one())
    return read + (count_unread(connection, conditions) if action is BulkAction.cancel else 0)


def count_unread(connection: Connection, conditions: Sequence[Condition]) -> int:
    """Return the number of matching jobs that are still in the inbox and have no cancel request."""
    statement = select(func.count()).select_from(inbox).where(*_inbox_conditions(conditions))
    return int(connection.execute(statement).scalar_one())


def apply(
    engine: Engine, action: BulkAction, conditions: Sequence[Condition], *, changes: Mapping[str, Any] | None = None
) -> Iterator[int]:
    """Apply the action to every matching job; yield the number of jobs after each transaction.

    Each job gets the action once: a replayed job that fails again before the end is not replayed a second time.
    `changes`: the new column values for `update`.
    """
    if action is BulkAction.cancel:
        # The inbox first: a job that is accepted in between is found among the jobs.
        yield from _walk(engine, partial(_mark_unread, conditions=conditions))
    yield from _walk(engine, partial(_apply_to_batch, action=action, conditions=conditions, changes=changes))


def _walk(engine: Engine, step: Callable[..., Sequence[Any]]) -> Iterator[int]:
    """Call `step` until it returns no keys, each time with the last key so far; yield the number of keys."""
    keys = _with_retries(engine, partial(step, after=None))
    while keys:
        yield len(keys)
        keys = _with_retries(engine, partial(step, after=keys[-1]))


def _with_retries(engine: Engine, step: Callable[[Connection], Sequence[Any]]) -> Sequence[Any]:
    """Run `step` in a transaction; try again if another transaction was in the way."""
    for tries in range(TRIES):
        try:
            with engine.begin() as connection:
                return step(connection)
        except Exception as error:
            if not is_busy(error) or tries == TRIES - 1:
                raise
        time.sleep(PAUSE_S)
    raise AssertionError("the last try neither returned nor raised")


def _mark_unread(connection: Connection, *, conditions: Sequence[Condition], after: int | None) -> list[int]:
    """Cancel the next jobs of the inbox by their ids, oldest first; return their `seq`."""
    chosen = select(inbox.c.seq, inbox.c.id).where(*_inbox_conditions(conditions)).order_by(inbox.c.seq).limit(BATCH)
    if after is not None:
        chosen = chosen.where(inbox.c.seq > after)
    rows = connection.execute(chosen).all()
    if rows:
        connection.execute(insert(_cancel_view), [{"id": row.id} for row in rows])
    return [row.seq for row in rows]


def _apply_to_batch(
    connection: Connection,
    *,
    action: BulkAction,
    conditions: Sequence[Condition],
    after: str | None,
    changes: Mapping[str, Any] | None,
) -> list[str]:
    """Lock the next matching jobs in the order of their ids and apply the action to them; return their ids."""
    chosen = select(jobs.c.id).where(*_job_conditions(action, conditions)).order_by(jobs.c.id).limit(BATCH)
    if after is not None:
        chosen = chosen.where(jobs.c.id > after)
    ids = list(connection.scalars(chosen.with_for_update(of=jobs)))
    if not ids:
        return []
    locked = select(jobs.c.id).where(jobs.c.id.in_(ids))
    if action is BulkAction.update:
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(dict(changes or {})))
    else:
        view = _cancel_view if action is BulkAction.cancel else _replay_view
        connection.execute(insert(view).from_select(["id"], locked))
    return ids


def _job_conditions(action: BulkAction, conditions: Sequence[Condition]) -> list[ColumnElement[bool]]:
    return [_ALLOWED[action], *(_clause(condition, jobs.c[condition.column]) for condition in conditions)]


def _inbox_conditions(conditions: Sequence[Condition]) -> list[ColumnElement[bool]]:
    """Match inbox rows as jobs_v1 shows them: queued, with only the columns that their producer filled."""
    columns: dict[str, ColumnElement[Any]] = {"status": literal(str(Status.queued)), "created_at": inbox.c.created_at}
    columns |= {name: inbox.c[name] for name in ("tenant", "batch", "custom_id")}
    unmarked = ~exists().where(cancellations.c.id == inbox.c.id)
    return [unmarked, *(_clause(condition, columns.get(condition.column)) for condition in conditions)]


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
