"""Rules of the feed of finished jobs and of the cancel requests."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select

from worker.core.lifecycle import FINAL, Status
from worker.jobs.store.finished_feed import COUNTER
from worker.store.tables import aliases, cancellations, counters, finished, jobs
from worker.verify.rule import Offender, found

_is_final = jobs.c.status.in_(sorted(FINAL))


def feed_has_what_is_final(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job is in the feed of finished jobs exactly when it is final, unless its cancel request is still open."""
    # cancel_v1 cancels a queued job at once; the dispatcher later adds it to the feed and deletes the request.
    requested = exists().where(cancellations.c.id == jobs.c.id)
    wrong = or_(
        and_(_is_final, finished.c.cursor.is_(None), ~requested), and_(~_is_final, finished.c.cursor.is_not(None))
    )
    joined = select(jobs.c.id, jobs.c.status, finished.c.cursor).outerjoin(finished, finished.c.job_id == jobs.c.id)
    return found(connection, joined.where(within, wrong))


def cancellations_are_served(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """The cancel request of a job stays only while a worker runs the job and `cancel_requested_at` is set."""
    owner = func.coalesce(aliases.c.job_id, cancellations.c.id)
    known = and_(jobs.c.status == Status.in_progress, jobs.c.cancel_requested_at.is_not(None))
    columns = select(cancellations.c.id, jobs.c.id.label("job_id"), jobs.c.status, cancellations.c.created_at)
    requests = columns.select_from(
        cancellations.outerjoin(aliases, aliases.c.id == cancellations.c.id).join(jobs, jobs.c.id == owner)
    )
    return found(connection, requests.where(within, ~known))


def finished_jobs_exist(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every cursor of the feed belongs to a job."""
    job = exists().where(jobs.c.id == finished.c.job_id)
    return found(connection, select(finished.c.job_id, finished.c.cursor).where(within, ~job))


def counter_knows_every_number(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """No cursor of the feed is above the counter (it would be given twice), and only replays leave a gap below it."""

    def number(value: ColumnElement[Any], *where: ColumnElement[bool]) -> ColumnElement[Any]:
        return func.coalesce(select(value).where(*where).scalar_subquery(), 0)

    last, rows = number(func.max(finished.c.cursor)), number(func.count(finished.c.cursor))
    replays = number(func.sum(jobs.c.generation), jobs.c.generation > 0)
    wrong = or_(counters.c.value < last, counters.c.value - rows > replays)
    columns = (counters.c.name, counters.c.value, last.label("last"), rows.label("rows"), replays.label("replays"))
    return found(connection, select(*columns).where(within, counters.c.name == COUNTER, wrong))
