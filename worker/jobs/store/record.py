"""RECORD: how an attempt ended. The job's move, the attempt's close and the answer commit together."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Boolean, Connection, Executable, Float, bindparam, case, cast, null, or_, update

from worker.chat.usage import TOKENS
from worker.core.lifecycle import Move, Outcome
from worker.jobs.store import finished_feed
from worker.jobs.store.cancel import settle
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

    `move` is None when the lease was lost: nothing of the job changes, but what is known of the attempt is kept.
    `sent`: the connection opened, so the endpoint may have seen the request. Instants are given as seconds before now.
    `attempt` holds the columns of CLOSED; `answer` those of the answers table, or None when no body came. `refusals`:
    how many attempts in a row were refused for the moment, this one included.
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


class RecordedAttempt(NamedTuple):
    """What came of one closing: whether the job moved, or another worker has it; the deliveries that tell its end."""

    moved: bool
    deliveries: tuple[str, ...] = ()


def record(connection: Connection, closings: Sequence[AttemptRecord]) -> list[RecordedAttempt]:
    """Write each end, and the events of jobs that are over with it.

    An answer is kept, and its attempt closed, in either case: tokens that were spent are a fact.
    """
    moved = _move(connection, closings)
    _close(connection, closings)
    kept = [_answer(closing) for closing in closings if closing.answer is not None]
    if kept:
        connection.execute(upsert(connection.dialect.name, answers).on_conflict_do_nothing(), kept)
    again = [_place(closing) for closing in closings if closing.move is not None and not closing.move.final]
    cancelled = settle(connection, [place for place in again if place in moved])
    ended = (closing for closing in closings if closing.move is not None and closing.move.final)
    told = finished_feed.append_to_feed(
        connection, cancelled | {closing.job_id for closing in ended if _place(closing) in moved}
    )
    return [
        RecordedAttempt(True, tuple(told.get(closing.job_id, ())))
        if _place(closing) in moved
        else RecordedAttempt(False)
        for closing in closings
    ]


def _move(connection: Connection, closings: Sequence[AttemptRecord]) -> set[transitions.Key]:
    """Apply the moves, those with the same values in one statement, in the order of the ids."""
    groups: dict[tuple[Any, ...], list[AttemptRecord]] = defaultdict(list)
    for closing in closings:
        if closing.move is not None:
            groups[_values_key(closing)].append(closing)
    moved: set[transitions.Key] = set()
    for group in groups.values():
        first = group[0]
        assert first.move is not None
        moved |= transitions.apply(
            connection,
            first.move,
            [_place(closing) for closing in group],
            worker_id=first.worker_id,
            changes=_changes(first),
        )
    return moved


def _values_key(closing: AttemptRecord) -> tuple[Any, ...]:
    failure = (closing.error_code, closing.error_message, closing.error)
    waits = (closing.delay_s, closing.waiting_for, closing.refusals)
    return (closing.move, closing.worker_id, closing.counts, waits, failure)


def _changes(closing: AttemptRecord) -> dict[str, Any]:
    assert closing.move is not None
    changes: dict[str, Any] = {
        "error_code": closing.error_code,
        "error_message": closing.error_message,
        "error": closing.error,
    }
    if not closing.counts:
        changes["attempts_used"] = jobs.c.attempts_used - 1
    if closing.outcome is Outcome.completed:
        changes["answer_attempt"] = jobs.c.attempt
    if not closing.move.final:
        changes |= {"run_at": from_now(closing.delay_s), "waiting_for": closing.waiting_for}
        changes["refusals"] = closing.refusals
    return changes


@cache
def _closing_statement() -> Executable:
    """Return the UPDATE that closes an attempt; built once, because building costs more than running it."""
    ended = [attempts.c.outcome.is_(None), attempts.c.outcome == Outcome.unknown]
    return (
        update(attempts)
        .where(
            attempts.c.job_id == bindparam("of_job"),
            attempts.c.attempt == bindparam("of_attempt"),
            or_(*ended),
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


def _close(connection: Connection, closings: Sequence[AttemptRecord]) -> None:
    """Close the attempt rows, each once: a row that take-back closed as unknown still learns what is known."""
    connection.execute(_closing_statement(), [_closed(closing) for closing in sorted(closings, key=_place)])


def _ago(name: str) -> Any:
    """The instant so many seconds before now; NULL for NULL."""
    return shifted(now(), cast(bindparam(name), Float))


def _place(closing: AttemptRecord) -> transitions.Key:
    return closing.job_id, closing.number


def _closed(closing: AttemptRecord) -> dict[str, Any]:
    return {
        "of_job": closing.job_id,
        "of_attempt": closing.number,
        "ended": closing.outcome,
        "was_sent": closing.sent,
        "byte_ago": _negative(closing.first_byte_ago_s),
        "token_ago": _negative(closing.first_token_ago_s),
        **{f"new_{name}": closing.attempt.get(name) for name in CLOSED},
    }


def _negative(seconds: float | None) -> float | None:
    return None if seconds is None else -seconds


def _answer(closing: AttemptRecord) -> dict[str, Any]:
    """Return a row with every column: the first row of a statement decides which columns it writes of all rows."""
    assert closing.answer is not None
    row = {column.name: closing.answer.get(column.name) for column in answers.columns}
    return row | {"job_id": closing.job_id, "attempt": closing.number}
