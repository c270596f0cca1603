"""The work done for each tenant at each endpoint: calls in progress, and the tokens of finished jobs.

The dispatcher shares slots by these figures. It reads rows only, so two leaders and a new leader count alike.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, and_, bindparam, case, cast, func, literal_column, select

from worker.store.tables import attempts, finished, jobs, workers

# With many more, PostgreSQL would read the whole table of jobs instead of these.
FINISHED_BATCH = 500


class CallsInProgress(NamedTuple):
    """The calls of one worker for one tenant at one endpoint; both are None if the worker has no calls."""

    worker_id: str
    slots: int
    endpoint: str | None
    tenant: str | None
    calls: int


class SlotsInUse(NamedTuple):
    """The slots of all workers: free, in use, and whether a worker has none free."""

    free: int
    in_use: int
    is_any_full: bool


class FinishedJobs(NamedTuple):
    """Jobs of a tenant at an endpoint that finished, the tokens of their attempts, and the jobs with unknown tokens."""

    endpoint: str
    tenant: str
    jobs: int
    tokens: int
    unknown: int


# Rows are counted, because a counter would keep the calls of a dead worker. Grouped before the join, so that the index
# of rows in progress is read once and not for each worker.
_RUNNING = (
    select(jobs.c.worker_id, jobs.c.endpoint, jobs.c.tenant, func.count().label("calls"))
    .where(jobs.c.status == literal_column("'in_progress'"))
    .group_by(jobs.c.worker_id, jobs.c.endpoint, jobs.c.tenant)
    .subquery()
)
_IN_PROGRESS = select(
    workers.c.id, workers.c.slots, _RUNNING.c.endpoint, _RUNNING.c.tenant, func.coalesce(_RUNNING.c.calls, 0)
).join_from(workers, _RUNNING, _RUNNING.c.worker_id == workers.c.id, isouter=True)
_LAST_CURSOR = select(func.max(finished.c.cursor))
_NEWS = (
    select(finished.c.cursor, finished.c.job_id)
    .where(finished.c.cursor > bindparam("after", type_=BigInteger))
    .order_by(finished.c.cursor)
    .limit(FINISHED_BATCH)
    .cte("news")
)
_TOKENS = func.sum(func.coalesce(attempts.c.total_tokens, attempts.c.prompt_tokens + attempts.c.completion_tokens))
# Outer joins, because the cursor must also pass jobs that made no request: cancelled, expired or refused.
_USED = (
    select(
        _NEWS.c.cursor,
        jobs.c.endpoint,
        jobs.c.tenant,
        func.count(attempts.c.job_id).label("requests"),
        _TOKENS.label("tokens"),
    )
    .join_from(_NEWS, jobs, jobs.c.id == _NEWS.c.job_id, isouter=True)
    .join(attempts, attempts.c.job_id == jobs.c.id, isouter=True)
    .group_by(_NEWS.c.cursor, jobs.c.endpoint, jobs.c.tenant)
    .subquery()
)
_FINISHED = select(
    func.max(_USED.c.cursor),
    _USED.c.endpoint,
    _USED.c.tenant,
    func.count(case((_USED.c.requests > 0, 1))),
    cast(func.coalesce(func.sum(_USED.c.tokens), 0), BigInteger),
    func.count(case((and_(_USED.c.requests > 0, _USED.c.tokens.is_(None)), 1))),
).group_by(_USED.c.endpoint, _USED.c.tenant)


def in_progress(connection: Connection) -> list[CallsInProgress]:
    """Return the calls of all registered workers, including leases not yet taken back."""
    return [CallsInProgress(*row) for row in connection.execute(_IN_PROGRESS)]


def slots_in_use(calls: Iterable[CallsInProgress]) -> SlotsInUse:
    """Return the sums over all workers; a worker with 0 slots makes no calls."""
    slots: dict[str, int] = {}
    running: Counter[str] = Counter()
    for row in calls:
        slots[row.worker_id] = row.slots
        running[row.worker_id] += row.calls
    free = sum(max(0, number - running[worker_id]) for worker_id, number in slots.items())
    is_any_full = any(running[worker_id] >= number > 0 for worker_id, number in slots.items())
    return SlotsInUse(free, running.total(), is_any_full)


def finished_jobs(connection: Connection, *, after: int | None) -> tuple[list[FinishedJobs], int]:
    """Return the jobs that finished after this cursor, and the cursor to continue from; None: only the cursor.

    A job that made no request does not count.
    """
    if after is None:
        return [], connection.execute(_LAST_CURSOR).scalar() or 0
    rows = connection.execute(_FINISHED, {"after": after}).all()
    return [FinishedJobs(*row[1:]) for row in rows if row[3]], max([after, *(row[0] for row in rows)])
