"""ORDERS: what an INSERT into cancel_v1 leaves to be done: the job's end is numbered and told, its mark goes.

The door does in the caller's transaction what cannot wait, and leaves the id as a mark. A mark stays while its job
runs, so that nobody between two holders can lose the wish, and while no message of that id has come.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, select, update

from worker.core.failure import ErrorCode
from worker.core.lifecycle import CANCEL_QUEUED, FINAL, Status
from worker.jobs.store import finished_feed
from worker.store import transitions
from worker.store.clock import from_now, now
from worker.store.tables import aliases, cancellations, finished, jobs
from worker.store.transitions import error_columns
from worker.store.types import Id

FIRST = ""
BATCH = 500

_owner = func.coalesce(aliases.c.job_id, cancellations.c.id)
_MARKED = (
    select(cancellations.c.id, _owner.label("owner"), jobs.c.id.is_(None).label("unknown"))
    .select_from(
        cancellations.outerjoin(aliases, aliases.c.id == cancellations.c.id).outerjoin(jobs, jobs.c.id == _owner)
    )
    .order_by(cancellations.c.id)
)
_LOWEST = _MARKED.limit(BATCH)
_NEXT = _LOWEST.where(cancellations.c.id > bindparam("after", type_=Id))
_ANY = select(cancellations.c.id).limit(1)


class Served(NamedTuple):
    """Jobs whose end was numbered, marks that went unused, and where the next look goes on (FIRST: from the start)."""

    cancelled: set[str]
    forgotten: int
    after: str


def serve(connection: Connection, *, after: str = FIRST, keep_s: float) -> Served:
    """Deal with the next marks in the order of their ids, BATCH at most.

    A mark of an id that nobody has accepted is kept for `keep_s` seconds: its message may still come.
    """
    marked = connection.execute(_NEXT, {"after": after}).all() if after else connection.execute(_LOWEST).all()
    cancelled = _serve(connection, {row.id: row.owner for row in marked if not row.unknown})
    unknown = [row.id for row in marked if row.unknown]
    forgotten = 0
    if unknown:
        old = delete(cancellations).where(
            cancellations.c.id.in_(unknown), cancellations.c.created_at < from_now(-keep_s)
        )
        forgotten = connection.execute(old).rowcount
    return Served(cancelled, forgotten, marked[-1].id if len(marked) == BATCH else FIRST)


def honour(connection: Connection, ids: Collection[str]) -> set[str]:
    """Cancel what was just accepted under ids that somebody had cancelled before; return the jobs that ended.

    The last step of the transaction: it numbers what it ends.
    """
    # Nearly always there is no mark at all, and this is all it costs.
    if not ids or connection.execute(_ANY).first() is None:
        return set()
    marked = connection.execute(_MARKED.where(cancellations.c.id.in_(sorted(ids)))).all()
    return _serve(connection, {row.id: row.owner for row in marked if not row.unknown})


def _serve(connection: Connection, owners: dict[str, str]) -> set[str]:
    """Bring the jobs of these marks on (`owners`: the job of each mark); return those whose end was numbered."""
    if not owners:
        return set()
    # Whoever holds one of the rows moves it; its mark has its turn at the next look.
    locked = select(jobs.c.id, jobs.c.attempt, jobs.c.status, jobs.c.cancel_requested_at)
    locked = locked.where(jobs.c.id.in_(sorted(set(owners.values())))).order_by(jobs.c.id)
    rows = connection.execute(locked.with_for_update(skip_locked=True)).all()
    # Read again under the locks: a replay takes the mark away together with the cancellation.
    standing = set(connection.scalars(select(cancellations.c.id).where(cancellations.c.id.in_(sorted(owners)))))
    meant = {owners[mark] for mark in standing}
    rows = [row for row in rows if row.id in meant]
    waiting = [(row.id, row.attempt) for row in rows if row.status == Status.queued]
    transitions.apply(connection, CANCEL_QUEUED, waiting, changes=error_columns(ErrorCode.cancelled))
    _ask(connection, [row.id for row in rows if row.status == Status.in_progress and row.cancel_requested_at is None])
    ended = {row.id for row in rows if row.status in FINAL or row.status == Status.queued}
    served = [mark for mark in standing if owners[mark] in ended]
    if served:
        connection.execute(delete(cancellations).where(cancellations.c.id.in_(sorted(served))))
    return _number(connection, ended)


def _ask(connection: Connection, job_ids: Sequence[str]) -> None:
    """Ask the holders to end these jobs: claimed between the door's look and its commit."""
    if job_ids:
        asked = update(jobs).where(jobs.c.id.in_(job_ids), jobs.c.status == Status.in_progress)
        connection.execute(asked.values(cancel_requested_at=now()))


def _number(connection: Connection, ended: set[str]) -> set[str]:
    """Number the ends that have no number: those the door made. Every other way to an end numbers it itself."""
    if not ended:
        return set()
    numbered = connection.scalars(select(finished.c.job_id).where(finished.c.job_id.in_(sorted(ended))))
    fresh = ended - set(numbered)
    finished_feed.append_to_feed(connection, fresh)
    return fresh
