"""CANCEL: ends a queued job; sets `cancel_requested_at` of a running job, and its worker ends it with a partial answer.

A row in the table behind `cancel_v1` is a *cancel request*. The trigger of that view cancels a queued job in the
caller's transaction, but gives its end no number and no webhook: `apply_cancel_requests` does both, then deletes the
request. A request is kept while its job runs, so it survives a change of worker, and while no message of its id has
arrived.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, delete, func, select, tuple_, update

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
_REQUESTS = (
    select(cancellations.c.id, _owner.label("owner"), jobs.c.id.is_(None).label("unknown"))
    .select_from(
        cancellations.outerjoin(aliases, aliases.c.id == cancellations.c.id).outerjoin(jobs, jobs.c.id == _owner)
    )
    .order_by(cancellations.c.id)
)
_LOWEST = _REQUESTS.limit(BATCH)
_NEXT = _LOWEST.where(cancellations.c.id > bindparam("after", type_=Id))
_ANY = select(cancellations.c.id).limit(1)


def cancel(connection: Connection, job_ids: Sequence[str]) -> list[str | None]:
    """Cancel jobs; return the status that each had: queued (cancelled now), in_progress (requested), final, or None.

    An answer that is recorded first wins: a final job stays as it is.
    """
    columns = select(jobs.c.id, jobs.c.attempt, jobs.c.status).where(jobs.c.id.in_(sorted(set(job_ids))))
    rows = {row.id: row for row in connection.execute(columns.order_by(jobs.c.id).with_for_update())}
    ended = _cancel_queued(connection, [(row.id, row.attempt) for row in rows.values() if row.status == Status.queued])
    running = [row.id for row in rows.values() if row.status == Status.in_progress]
    if running:
        request = update(jobs).where(jobs.c.id.in_(running), jobs.c.cancel_requested_at.is_(None))
        connection.execute(request.values(cancel_requested_at=now()))
    finished_feed.append_to_feed(connection, ended)
    return [rows[job_id].status if job_id in rows else None for job_id in job_ids]


def cancel_requeued(connection: Connection, keys: Iterable[transitions.Key]) -> set[str]:
    """Cancel the jobs among `keys`, just queued again, that have `cancel_requested_at`; return their ids.

    Their worker is gone, or gave the job back before it read the request. The caller appends the ids to the feed.
    """
    requeued = sorted(keys)
    if not requeued:
        return set()
    requested = select(jobs.c.id, jobs.c.attempt).where(
        tuple_(jobs.c.id, jobs.c.attempt).in_(requeued),
        transitions.hide_from_planner(jobs.c.status) == Status.queued,
        jobs.c.cancel_requested_at.is_not(None),
    )
    return _cancel_queued(connection, [(row.id, row.attempt) for row in connection.execute(requested)])


class AppliedRequests(NamedTuple):
    """The jobs whose end was appended to the feed, the number of requests that expired, the id to go on after."""

    cancelled: set[str]
    forgotten: int
    after: str


def apply_cancel_requests(
    connection: Connection, *, ids: Collection[str] | None = None, after: str = FIRST, keep_s: float | None = None
) -> AppliedRequests:
    """Apply the cancel requests of `ids`, or the next BATCH of all requests, by id, after the id `after`.

    A request of an id without a job is deleted `keep_s` seconds after its INSERT (None: never): until then its message
    may still arrive. The returned `after` is FIRST at the end of the table. Call it last in a transaction, because it
    appends to the feed.
    """
    requests = _next_requests(connection, after) if ids is None else _requests_of(connection, ids)
    cancelled = _apply(connection, {row.id: row.owner for row in requests if not row.unknown})
    forgotten, unknown = 0, [row.id for row in requests if row.unknown]
    if unknown and keep_s is not None:
        expired = delete(cancellations).where(
            cancellations.c.id.in_(unknown), cancellations.c.created_at < from_now(-keep_s)
        )
        forgotten = connection.execute(expired).rowcount
    return AppliedRequests(cancelled, forgotten, requests[-1].id if len(requests) == BATCH else FIRST)


def _next_requests(connection: Connection, after: str) -> Sequence[Row[Any]]:
    return connection.execute(_NEXT, {"after": after}).all() if after else connection.execute(_LOWEST).all()


def _requests_of(connection: Connection, ids: Collection[str]) -> Sequence[Row[Any]]:
    # The table is nearly always empty; then this cheap query is the whole cost.
    if not ids or connection.execute(_ANY).first() is None:
        return []
    return connection.execute(_REQUESTS.where(cancellations.c.id.in_(sorted(ids)))).all()


def _apply(connection: Connection, owners: dict[str, str]) -> set[str]:
    """Apply each request to its job (`owners`: job id by request id); return the ends new in the feed."""
    if not owners:
        return set()
    # A locked row is about to move; its request is applied on the next round.
    locked = select(jobs.c.id, jobs.c.attempt, jobs.c.status, jobs.c.cancel_requested_at)
    locked = locked.where(jobs.c.id.in_(sorted(set(owners.values())))).order_by(jobs.c.id)
    rows = connection.execute(locked.with_for_update(skip_locked=True)).all()
    # Read again under the locks: a replay deletes the request and clears `cancel_requested_at`.
    present = set(connection.scalars(select(cancellations.c.id).where(cancellations.c.id.in_(sorted(owners)))))
    requested = {owners[request] for request in present}
    rows = [row for row in rows if row.id in requested]
    _cancel_queued(connection, [(row.id, row.attempt) for row in rows if row.status == Status.queued])
    _set_requested(
        connection, [row.id for row in rows if row.status == Status.in_progress and row.cancel_requested_at is None]
    )
    ended = {row.id for row in rows if row.status in FINAL or row.status == Status.queued}
    done = [request for request in present if owners[request] in ended]
    if done:
        connection.execute(delete(cancellations).where(cancellations.c.id.in_(sorted(done))))
    return _append_missing(connection, ended)


def _cancel_queued(connection: Connection, keys: Sequence[transitions.Key]) -> set[str]:
    ended = transitions.apply(connection, CANCEL_QUEUED, keys, changes=error_columns(ErrorCode.cancelled))
    return {job_id for job_id, _ in ended}


def _set_requested(connection: Connection, job_ids: Sequence[str]) -> None:
    """Set `cancel_requested_at` of jobs that were claimed after the trigger read them and before it committed."""
    if job_ids:
        request = update(jobs).where(jobs.c.id.in_(job_ids), jobs.c.status == Status.in_progress)
        connection.execute(request.values(cancel_requested_at=now()))


def _append_missing(connection: Connection, ended: set[str]) -> set[str]:
    """Append to the feed the ends that the trigger made; every other way to an end appends its own."""
    if not ended:
        return set()
    known = connection.scalars(select(finished.c.job_id).where(finished.c.job_id.in_(sorted(ended))))
    missing = ended - set(known)
    finished_feed.append_to_feed(connection, missing)
    return missing
