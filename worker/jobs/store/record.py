"""RECORD: the end of an attempt. The job's move, the attempt's columns and the answer commit together."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Boolean, Connection, Executable, Float, bindparam, case, cast, null, or_, update

from worker.chat.usage import TOKENS
from worker.core.lifecycle import Move, Outcome
from worker.jobs.store import finished_feed
from worker.jobs.store.cancel import cancel_requeued
from worker.store import transitions
from worker.store.bulk_params import upsert
from worker.store.clock import from_now, now, shifted
from worker.store.tables import answers, attempts, jobs

CLOSED = (
    "error_code", "error_message", "http_status", "billed", "request_id", "retry_after_s", "trouble", "headers",
    "usage_requested", "usage_source", "usage_flags", "reported_cost", *TOKENS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """The end of one attempt.

    `move` None: the lease is lost; the job's row stays as it is, and the attempt's row is closed. `sent`: the
    connection was made, so the endpoint may have seen the request. Instants are seconds before now. `attempt` holds the
    columns of CLOSED; `answer` those of the answers table, or None if no body came. `refusals`: refusals in a row, this
    attempt included.
    """

    job_id: str
    number: int
    worker_id: str
    move: Move | None
    outcome: Outcome
    sent: bool
    counts: bool
    attempt: Mapping[str, Any]
    answer: Mapping[str, Any] | None = None
    delay_s: float = 0.0
    waiting_for: str | None = None
    refusals: int = 0
    error_code: str | None = None
    error_message: str | None = None
    error: str | None = None
    elapsed_s: float = 0.0
    first_byte_ago_s: float | None = None
    first_token_ago_s: float | None = None

    @property
    def key(self) -> transitions.Key:
        return self.job_id, self.number


class RecordedAttempt(NamedTuple):
    """The result of one record. `moved` False: another worker has the job. `deliveries`: those that may go at once."""

    moved: bool
    deliveries: tuple[str, ...] = ()


def record(connection: Connection, records: Sequence[AttemptRecord]) -> list[RecordedAttempt]:
    """Write the ends of attempts, and the events of the jobs that ended with them.

    The attempt is closed and its answer stored even if the job did not move: spent tokens are a fact.
    """
    moved = _move_jobs(connection, records)
    _close_attempts(connection, records)
    rows = [_answer_row(each) for each in records if each.answer is not None]
    if rows:
        connection.execute(upsert(connection.dialect.name, answers).on_conflict_do_nothing(), rows)
    requeued = [each.key for each in records if each.move is not None and not each.move.final]
    cancelled = cancel_requeued(connection, [key for key in requeued if key in moved])
    ended = {each.job_id for each in records if each.move is not None and each.move.final and each.key in moved}
    deliveries = finished_feed.append_to_feed(connection, cancelled | ended)
    return [
        RecordedAttempt(True, tuple(deliveries.get(each.job_id, ()))) if each.key in moved else RecordedAttempt(False)
        for each in records
    ]


def _move_jobs(connection: Connection, records: Sequence[AttemptRecord]) -> set[transitions.Key]:
    """Move the jobs: one statement for all moves with the same values, in the order of the ids."""
    groups: dict[tuple[Any, ...], list[AttemptRecord]] = defaultdict(list)
    for each in records:
        if each.move is not None:
            groups[_values_key(each)].append(each)
    moved: set[transitions.Key] = set()
    for group in groups.values():
        first = group[0]
        assert first.move is not None
        moved |= transitions.apply(
            connection,
            first.move,
            [each.key for each in group],
            worker_id=first.worker_id,
            changes=_changes(first),
        )
    return moved


def _values_key(attempt: AttemptRecord) -> tuple[Any, ...]:
    failure = (attempt.error_code, attempt.error_message, attempt.error)
    waits = (attempt.delay_s, attempt.waiting_for, attempt.refusals)
    return (attempt.move, attempt.worker_id, attempt.counts, waits, failure)


def _changes(attempt: AttemptRecord) -> dict[str, Any]:
    assert attempt.move is not None
    changes: dict[str, Any] = {
        "error_code": attempt.error_code,
        "error_message": attempt.error_message,
        "error": attempt.error,
    }
    if not attempt.counts:
        changes["attempts_used"] = jobs.c.attempts_used - 1
    if attempt.outcome is Outcome.completed:
        changes["answer_attempt"] = jobs.c.attempt
    if not attempt.move.final:
        changes |= {"run_at": from_now(attempt.delay_s), "waiting_for": attempt.waiting_for}
        changes["refusals"] = attempt.refusals
    return changes


@cache
def _close_statement() -> Executable:
    """Return the UPDATE that closes an attempt; cached, because building it costs more than running it."""
    # Take-back closed a row as unknown; a late worker may still write the facts.
    open_states = [attempts.c.outcome.is_(None), attempts.c.outcome == Outcome.unknown]
    return (
        update(attempts)
        .where(
            attempts.c.job_id == bindparam("of_job"),
            attempts.c.attempt == bindparam("of_attempt"),
            or_(*open_states),
        )
        .values(
            outcome=bindparam("ended"),
            finished_at=now(),
            sent_at=case((bindparam("was_sent", type_=Boolean()), attempts.c.sent_at), else_=null()),
            first_byte_at=_ago("byte_ago"),
            first_token_at=_ago("token_ago"),
            **{name: bindparam(f"new_{name}", type_=attempts.c[name].type) for name in CLOSED},
        )
    )


def _close_attempts(connection: Connection, records: Sequence[AttemptRecord]) -> None:
    parameters = [_close_parameters(each) for each in sorted(records, key=lambda each: each.key)]
    connection.execute(_close_statement(), parameters)


def _ago(name: str) -> Any:
    """Return the instant that lies the parameter's seconds before now; NULL for NULL."""
    return shifted(now(), cast(bindparam(name), Float))


def _close_parameters(attempt: AttemptRecord) -> dict[str, Any]:
    return {
        "of_job": attempt.job_id,
        "of_attempt": attempt.number,
        "ended": attempt.outcome,
        "was_sent": attempt.sent,
        "byte_ago": _negative(attempt.first_byte_ago_s),
        "token_ago": _negative(attempt.first_token_ago_s),
        **{f"new_{name}": attempt.attempt.get(name) for name in CLOSED},
    }


def _negative(seconds: float | None) -> float | None:
    return None if seconds is None else -seconds


def _answer_row(attempt: AttemptRecord) -> dict[str, Any]:
    """Return a row with every column: the first row of a statement decides the columns of all rows."""
    assert attempt.answer is not None
    row = {column.name: attempt.answer.get(column.name) for column in answers.columns}
    return row | {"job_id": attempt.job_id, "attempt": attempt.number}
