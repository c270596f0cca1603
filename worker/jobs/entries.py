"""Reads the entries of both doors. Whatever the bytes are, and whatever reading them raises, each becomes an `Entry`:
a job, a visible refusal or a dead letter."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import structlog

from worker.core.dead_letter import DeadLetter, read_uuid
from worker.core.faults import shown
from worker.jobs.core.entry_size import too_large
from worker.jobs.core.message import most_bytes, read_job
from worker.jobs.store.accept import Entry
from worker.jobs.store.inbox import Submitted
from worker.queue.envelope import decode
from worker.queue.keys import INTAKE
from worker.queue.list_heads import ListEntry
from worker.settings import Settings
from worker.store.engine import describe

TASK = "chat.submit"
INBOX = "submit_v1"
PLAIN = '{"request": {"model": "m", "messages": [{"role": "user", "content": "m"}]}}'

log = structlog.get_logger()


def not_accepted(queue: str, raw: bytes, id: str | None = None) -> Entry:
    """Return the dead letter of an entry that we failed on, though it may be good."""
    said = (
        "We failed to read it or to make the job's row, or the database refused the row; the log has the error and its "
        "place. The bytes are kept: put it back with dead-letters requeue once the cause is mended."
    )
    return Entry(queue, raw, DeadLetter("not_accepted", said, id))


class EntryReader:
    """Reads for one worker process. `address_fault` says what is wrong with a webhook's address that a job has."""

    def __init__(self, settings: Settings, address_fault: Callable[[str], str | None]) -> None:
        self._settings, self._address_fault = settings, address_fault
        self.longest = most_bytes(settings.max_request_bytes)

    def read_message(self, held: ListEntry) -> Entry:
        """Read an entry of the Redis list. Never raises."""
        if not held.is_whole or held.size > self.longest:
            return Entry(INTAKE, held.head, too_large(held.size, max_request_bytes=self._settings.max_request_bytes))
        return _or_dead(INTAKE, held.head, None, self._message)

    def read_row(self, row: Submitted) -> Entry:
        """Read a row of the SQL inbox. Never raises."""
        if row.size > self.longest:
            letter = too_large(row.size, max_request_bytes=self._settings.max_request_bytes, id=row.id)
            return Entry(INBOX, row.job, letter)
        return _or_dead(INBOX, row.job, row.id, lambda raw: self._row(raw, row.id))

    def plain(self) -> Entry:
        """Return a job that the database takes whenever it takes any."""
        return self._entry(INTAKE, b"", PLAIN, str(uuid4()))

    def _message(self, raw: bytes) -> Entry:
        envelope = decode(raw, max_bytes=self.longest)
        if isinstance(envelope, DeadLetter):
            return Entry(INTAKE, raw, envelope)
        if envelope.task != TASK:
            reason = f"The task is {shown(envelope.task)}; this queue takes {TASK} only."
            return Entry(INTAKE, raw, DeadLetter("unknown_task", reason, envelope.id))
        return self._entry(INTAKE, raw, envelope.arguments_text, envelope.id, envelope.ignored)

    def _row(self, raw: bytes, given_id: str) -> Entry:
        try:
            return self._entry(INBOX, raw, raw.decode(), given_id)
        except UnicodeDecodeError as error:
            reason = f"The job's text is not UTF-8 at byte {error.start}; insert JSON text."
            return Entry(INBOX, raw, DeadLetter("not_json", reason, given_id))

    def _entry(self, queue: str, raw: bytes, text: str, given_id: str | None, ignored: tuple[str, ...] = ()) -> Entry:
        read = read_job(
            text,
            default_id=given_id,
            endpoints=self._settings.endpoints,
            max_request_bytes=self._settings.max_request_bytes,
            ignored=ignored,
            address_fault=self._address_fault,
        )
        return Entry(queue, raw, read, alias=read_uuid(given_id))


def _or_dead(queue: str, raw: bytes, id: str | None, read: Callable[[bytes], Entry]) -> Entry:
    try:
        return read(raw)
    except Exception as error:
        # A defect of ours, or too little memory for this one entry. Its neighbours are read all the same.
        log.error("message.not_read", queue=queue, size=len(raw), **place_of(error))
        return not_accepted(queue, raw, id)


def place_of(error: BaseException) -> dict[str, Any]:
    """Return what a log line may say of an error in reading: its text may quote the entry, and is left out."""
    return {name: value for name, value in describe(error).items() if name != "message"}
