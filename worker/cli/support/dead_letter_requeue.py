"""Puts one dead letter back: into the inbox of SQL, or into its Redis list."""

from typing import TYPE_CHECKING
from uuid import UUID

import click

from worker.cli.support.settings import need

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.jobs.store.dead_letters import StoredDeadLetter
    from worker.settings import Settings

INBOX = "submit_v1"
LISTS = ("chat.intake", "chat.run", "webhooks")


class CannotRequeue(ValueError):
    """The dead letter stays where it is; the text gives the reason."""


def put_back(engine: "Engine", settings: "Settings", seq: int, letter: "StoredDeadLetter", entry: bytes) -> int:
    """Put one dead letter back; return 1, or 0 if another process did it first. CannotRequeue gives the reason."""
    from worker.jobs.store import dead_letters as store

    _check_whole(letter)
    if letter.queue == INBOX:
        job = _text(entry)
        with engine.begin() as connection:
            return int(store.resubmit(connection, seq, job=job, job_id=_uuid(letter.job_id)))
    # Push first, then delete the row: a message that exists twice is recognised, a deleted one is lost.
    _push(settings, letter.queue, entry)
    with engine.begin() as connection:
        return store.forget(connection, [seq])


def _check_whole(letter: "StoredDeadLetter") -> None:
    """Raise CannotRequeue if the dead letter's queue is unknown or its end was cut off."""
    from worker.jobs.core.entry_size import is_cut
    from worker.queue.nudges import REJECTED_BYTES

    if letter.queue not in (INBOX, *LISTS):
        raise CannotRequeue(
            f"it was found in {letter.queue!r}, and nothing can be put back there; delete it with purge"
        )
    is_nudge = letter.queue not in (INBOX, "chat.intake")
    if is_cut(letter.reason, letter.size) or (is_nudge and letter.size >= REJECTED_BYTES):
        raise CannotRequeue(f"only its first {letter.size} bytes were kept; send it again, within the limit")


def _text(entry: bytes) -> str:
    try:
        text = entry.decode()
    except UnicodeDecodeError as error:
        raise CannotRequeue(
            f"its bytes are no UTF-8 at byte {error.start}; correct the job and submit it again"
        ) from error
    if "\0" in text:
        raise CannotRequeue("it holds a zero byte, but SQL text cannot; correct the job and submit it again")
    return text


def _push(settings: "Settings", queue: str, entry: bytes) -> None:
    from redis import RedisError

    from worker.queue.nudges import connect

    need(settings, "redis_url")
    assert settings.redis_url is not None
    with connect(settings.redis_url) as redis:
        try:
            redis.lpush(queue, entry)
        except RedisError as error:
            raise click.ClickException(f"Redis did not take it: {error}; the dead letter stays") from error


def _uuid(text: str | None) -> str | None:
    try:
        return None if text is None else str(UUID(text))
    except ValueError:
        return None
