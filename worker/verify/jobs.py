"""Rules of jobs and their attempts. `verify.verify` calls each function with a span of rows.

`afterword verify` prints the function's name and the first line of its docstring. A rule gets a connection and a
condition on the key of its table, and yields an offender for each row that breaks it: the row's id and the fault.
No rule checks uniqueness, because unique indexes already ensure it.
"""

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select

from worker.core.lifecycle import FINAL, Outcome, Status
from worker.store.clock import now
from worker.store.tables import aliases, answers, attempts, jobs, requests, workers
from worker.verify.rule import Offender, found

_OPEN: Final = sorted(set(Status) - FINAL)

_of_job = attempts.c.job_id == jobs.c.id
_current = and_(_of_job, attempts.c.attempt == jobs.c.attempt)
_is_final = jobs.c.status.in_(sorted(FINAL))


def status_is_known(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every job has one of the six statuses."""
    is_unknown = jobs.c.status.not_in(sorted(Status))
    return found(connection, select(jobs.c.id, jobs.c.status).where(within, is_unknown))


def only_running_jobs_are_held(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job has a worker exactly while it is in progress."""
    differs = (jobs.c.status == Status.in_progress) != jobs.c.worker_id.is_not(None)
    return found(connection, select(jobs.c.id, jobs.c.status, jobs.c.worker_id).where(within, differs))


def holder_lives(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """The worker of a job in progress has a valid lease."""
    alive = exists().where(workers.c.id == jobs.c.worker_id, workers.c.lease_until > now())
    running = jobs.c.status == Status.in_progress
    return found(connection, select(jobs.c.id, jobs.c.worker_id, jobs.c.attempt).where(within, running, ~alive))


def deadline_is_kept(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job has ended when its deadline has passed."""
    overdue = (jobs.c.status.in_(_OPEN), jobs.c.deadline < now())
    return found(connection, select(jobs.c.id, jobs.c.status, jobs.c.deadline).where(within, *overdue))


def cancellation_is_heard(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """No queued job has a cancel request: no worker would ever claim it."""
    waits = (jobs.c.status == Status.queued, jobs.c.cancel_requested_at.is_not(None))
    return found(connection, select(jobs.c.id, jobs.c.cancel_requested_at).where(within, *waits))


def finish_is_dated(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job has `finished_at` exactly when its status is final."""
    differs = _is_final != jobs.c.finished_at.is_not(None)
    return found(connection, select(jobs.c.id, jobs.c.status, jobs.c.finished_at).where(within, differs))


def request_is_kept(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every job has its request."""
    kept = exists().where(requests.c.job_id == jobs.c.id)
    return found(connection, select(jobs.c.id, jobs.c.status).where(within, ~kept))


def attempts_are_numbered(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job's attempts are numbered 1 to n without a gap, and n is the job's `attempt`."""

    def over_attempts(value: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.coalesce(select(value).where(_of_job).scalar_subquery(), 0)

    rows, last = over_attempts(func.count()), over_attempts(func.max(attempts.c.attempt))
    first = over_attempts(func.min(attempts.c.attempt))
    wrong = or_(jobs.c.attempt != rows, last != rows, and_(rows > 0, first != 1))
    columns = (jobs.c.id, jobs.c.attempt, rows.label("rows"), last.label("last"))
    return found(connection, select(*columns).where(within, wrong))


def running_jobs_have_an_open_attempt(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job in progress has an open attempt with its attempt number and its worker."""
    held = exists().where(_current, attempts.c.outcome.is_(None), attempts.c.worker_id == jobs.c.worker_id)
    running = jobs.c.status == Status.in_progress
    return found(connection, select(jobs.c.id, jobs.c.attempt, jobs.c.worker_id).where(within, running, ~held))


def budget_is_kept(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """`attempts_used` is at least the attempts that must count, at most the limit; a queued job has an attempt left."""
    # Attempts without a request are free, and so are the endpoint's trouble and limits if nothing can be billed. An
    # answer and a lost worker always count. Earlier releases wrote no `trouble` and did not count it.
    billed = and_(attempts.c.trouble == "endpoint", attempts.c.billed != "no")
    counts = or_(attempts.c.outcome.in_([Outcome.completed, Outcome.unknown]), billed)
    least = select(func.count()).where(_of_job, attempts.c.sent_at.is_not(None), counts).scalar_subquery()
    used = jobs.c.attempts_used
    wrong = or_(
        # A replay resets the count, and attempts do not record whether they were made before it.
        and_(jobs.c.generation == 0, used < least),
        used > jobs.c.attempt,
        used > jobs.c.max_attempts,
        and_(jobs.c.status == Status.queued, used >= jobs.c.max_attempts),
    )
    columns = (jobs.c.id, jobs.c.status, used, jobs.c.max_attempts, jobs.c.attempt, least.label("must_count"))
    return found(connection, select(*columns).where(within, wrong))


def answer_is_kept(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A completed job has an answering attempt that was sent and completed, with a body; other jobs have none."""
    kept = exists().where(
        _of_job,
        attempts.c.attempt == jobs.c.answer_attempt,
        attempts.c.outcome == Outcome.completed,
        attempts.c.sent_at.is_not(None),
        answers.c.job_id == attempts.c.job_id,
        answers.c.attempt == attempts.c.attempt,
        func.length(answers.c.raw) > 0,
    )
    completed = jobs.c.status == Status.completed
    wrong = or_(and_(completed, ~kept), and_(~completed, jobs.c.answer_attempt.is_not(None)))
    return found(connection, select(jobs.c.id, jobs.c.status, jobs.c.answer_attempt).where(within, wrong))


def answer_is_used(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job with an answer to its current attempt has ended: otherwise the answer would be bought twice."""
    is_answered = exists().where(_current, attempts.c.outcome == Outcome.completed)
    # Not for replayed jobs: an answer that came after the job's end stays on its attempt, and a replay wants a new one.
    not_replayed = (jobs.c.status.in_(_OPEN), jobs.c.generation == 0)
    return found(connection, select(jobs.c.id, jobs.c.attempt).where(within, *not_replayed, is_answered))


def open_attempts_are_held(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """An open attempt is the current attempt of a job in progress, with the same worker."""
    held = exists().where(_current, jobs.c.status == Status.in_progress, jobs.c.worker_id == attempts.c.worker_id)
    columns = (attempts.c.job_id, attempts.c.attempt, attempts.c.worker_id)
    return found(connection, select(*columns).where(within, attempts.c.outcome.is_(None), ~held))


def attempts_have_a_job(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every attempt belongs to a job."""
    job = exists().where(_of_job)
    return found(connection, select(attempts.c.job_id, attempts.c.attempt).where(within, ~job))


def answers_have_an_attempt(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every answer belongs to a closed attempt."""
    closed = exists().where(
        attempts.c.job_id == answers.c.job_id,
        attempts.c.attempt == answers.c.attempt,
        attempts.c.outcome.is_not(None),
    )
    return found(connection, select(answers.c.job_id, answers.c.attempt).where(within, ~closed))


def requests_have_a_job(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every request belongs to a job."""
    job = exists().where(jobs.c.id == requests.c.job_id)
    return found(connection, select(requests.c.job_id).where(within, ~job))


def aliases_lead_to_a_job(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """The `job_id` of every accepted alias is the id of a job."""
    accepted = aliases.c.outcome.in_(["accepted", "duplicate"])
    job = exists().where(jobs.c.id == aliases.c.job_id)
    return found(connection, select(aliases.c.id, aliases.c.job_id).where(within, accepted, ~job))


def ended_leases_are_struck(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """No worker with an ended lease is in the table of workers."""
    columns = (workers.c.id, workers.c.name, workers.c.lease_until)
    return found(connection, select(*columns).where(within, workers.c.lease_until < now()))
