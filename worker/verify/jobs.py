"""What must be true of jobs and their attempts, one small function a rule; `verify.verify` asks each of them.

A rule's name is its function's, its text the first line of its docstring. It is given a connection and the condition
that holds for the rows to look at, a span of its walk's key, and yields each offender: an id and what is wrong with it.
A new rule is one more function and its place in `verify.rules`. Uniqueness is not among them: the indexes hold it.
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
    """A job stands at one of the six statuses."""
    strange = jobs.c.status.not_in(sorted(Status))
    return found(connection, select(jobs.c.id, jobs.c.status).where(within, strange))


def only_running_jobs_are_held(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job has a worker while it is in progress, and only then."""
    differs = (jobs.c.status == Status.in_progress) != jobs.c.worker_id.is_not(None)
    return found(connection, select(jobs.c.id, jobs.c.status, jobs.c.worker_id).where(within, differs))


def holder_lives(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job in progress is held by a worker whose lease stands."""
    alive = exists().where(workers.c.id == jobs.c.worker_id, workers.c.lease_until > now())
    running = jobs.c.status == Status.in_progress
    return found(connection, select(jobs.c.id, jobs.c.worker_id, jobs.c.attempt).where(within, running, ~alive))


def deadline_is_kept(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job whose deadline has passed is over."""
    overdue = (jobs.c.status.in_(_OPEN), jobs.c.deadline < now())
    return found(connection, select(jobs.c.id, jobs.c.status, jobs.c.deadline).where(within, *overdue))


def cancellation_is_heard(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """No job waits that somebody asked to cancel: nobody would ever claim it."""
    waits = (jobs.c.status == Status.queued, jobs.c.cancel_requested_at.is_not(None))
    return found(connection, select(jobs.c.id, jobs.c.cancel_requested_at).where(within, *waits))


def finish_is_dated(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job has the time of its end when it is final, and only then."""
    differs = _is_final != jobs.c.finished_at.is_not(None)
    return found(connection, select(jobs.c.id, jobs.c.status, jobs.c.finished_at).where(within, differs))


def request_is_kept(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every job has its request."""
    kept = exists().where(requests.c.job_id == jobs.c.id)
    return found(connection, select(jobs.c.id, jobs.c.status).where(within, ~kept))


def attempts_are_numbered(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job's attempts are numbered 1 to n without a gap, and n is the job's own number."""

    def of(value: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.coalesce(select(value).where(_of_job).scalar_subquery(), 0)

    rows, last = of(func.count()), of(func.max(attempts.c.attempt))
    least = of(func.min(attempts.c.attempt))
    wrong = or_(jobs.c.attempt != rows, last != rows, and_(rows > 0, least != 1))
    columns = (jobs.c.id, jobs.c.attempt, rows.label("rows"), last.label("last"))
    return found(connection, select(*columns).where(within, wrong))


def running_jobs_have_an_open_attempt(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job in progress has an open attempt of its number and its worker."""
    held = exists().where(_current, attempts.c.outcome.is_(None), attempts.c.worker_id == jobs.c.worker_id)
    running = jobs.c.status == Status.in_progress
    return found(connection, select(jobs.c.id, jobs.c.attempt, jobs.c.worker_id).where(within, running, ~held))


def budget_is_kept(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A job used what surely counts, at most what it made and was allowed, and waits only with a request left."""
    # What was never sent is free, and so are the endpoint's trouble and limits where nothing can have been billed. An
    # answer and a lost worker always count. Releases before wrote no `trouble`, and let it pass unspent.
    billed = and_(attempts.c.trouble == "endpoint", attempts.c.billed != "no")
    counts = or_(attempts.c.outcome.in_([Outcome.completed, Outcome.unknown]), billed)
    sure = select(func.count()).where(_of_job, attempts.c.sent_at.is_not(None), counts).scalar_subquery()
    used = jobs.c.attempts_used
    wrong = or_(
        # A replay begins the count anew, and no attempt says whether it was made before it.
        and_(jobs.c.generation == 0, used < sure),
        used > jobs.c.attempt,
        used > jobs.c.max_attempts,
        and_(jobs.c.status == Status.queued, used >= jobs.c.max_attempts),
    )
    columns = (jobs.c.id, jobs.c.status, used, jobs.c.max_attempts, jobs.c.attempt, sure.label("surely"))
    return found(connection, select(*columns).where(within, wrong))


def answer_is_kept(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """A completed job has its answering attempt, sent and completed, with a body; no other job has one."""
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
    """No job that is not over has an answer to its current attempt: it would be bought again, and nobody asked."""
    bought = exists().where(_current, attempts.c.outcome == Outcome.completed)
    # An answer that came after the job's end is kept with its attempt; whoever replays the job wants another.
    unasked = (jobs.c.status.in_(_OPEN), jobs.c.generation == 0)
    return found(connection, select(jobs.c.id, jobs.c.attempt).where(within, *unasked, bought))


def open_attempts_are_held(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """An open attempt is the current one of a job in progress, by the same worker."""
    held = exists().where(_current, jobs.c.status == Status.in_progress, jobs.c.worker_id == attempts.c.worker_id)
    columns = (attempts.c.job_id, attempts.c.attempt, attempts.c.worker_id)
    return found(connection, select(*columns).where(within, attempts.c.outcome.is_(None), ~held))


def attempts_have_a_job(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every attempt belongs to a job."""
    job = exists().where(_of_job)
    return found(connection, select(attempts.c.job_id, attempts.c.attempt).where(within, ~job))


def answers_have_an_attempt(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every answer belongs to an attempt that is closed."""
    asked = exists().where(
        attempts.c.job_id == answers.c.job_id,
        attempts.c.attempt == answers.c.attempt,
        attempts.c.outcome.is_not(None),
    )
    return found(connection, select(answers.c.job_id, answers.c.attempt).where(within, ~asked))


def requests_have_a_job(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every request belongs to a job."""
    job = exists().where(jobs.c.id == requests.c.job_id)
    return found(connection, select(requests.c.job_id).where(within, ~job))


def aliases_lead_to_a_job(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """Every other id of a job that was accepted leads to it, in one step."""
    # Marks of ids that were not accepted yet stand in the same table.
    accepted = aliases.c.outcome.in_(["accepted", "duplicate"])
    job = exists().where(jobs.c.id == aliases.c.job_id)
    return found(connection, select(aliases.c.id, aliases.c.job_id).where(within, accepted, ~job))


def ended_leases_are_struck(connection: Connection, within: ColumnElement[bool]) -> Iterable[Offender]:
    """No worker is listed whose lease has ended."""
    columns = (workers.c.id, workers.c.name, workers.c.lease_until)
    return found(connection, select(*columns).where(within, workers.c.lease_until < now()))
