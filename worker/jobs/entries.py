"""Reads the entries of the Redis list and of the SQL inbox. Every entry becomes an `Entry` (a job, a visible refusal or
a dead letter), even if its bytes are garbage or our reading fails."""

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
    """Return the dead letter of an entry that may be good: we failed to read it or to store its job."""
    message = (
        "This entry could not be read, or its job's row could not be written; the worker's log has the error and its "
        "place in the code. The bytes are kept: fix the cause, then run dead-letters requeue."
    )
    return Entry(queue, raw, DeadLetter("not_accepted", message, id))


class EntryReader:
    """Reads entries for one worker process. `address_fault(url)` returns the fault of a job's webhook URL, or None."""

    def __init__(self, settings: Settings, address_fault: Callable[[str], str | None]) -> None:
        self._settings, self._address_fault = settings, address_fault
        self.longest = most_bytes(settings.max_request_bytes)

    def read_message(self, entry: ListEntry) -> Entry:
        """Read an entry of the Redis list. Never raises."""
        if not entry.is_whole or entry.size > self.longest:
            return Entry(INTAKE, entry.head, too_large(entry.size, max_request_bytes=self._settings.max_request_bytes))
        return _read_safely(INTAKE, entry.head, None, self._read_envelope)

    def read_row(self, row: Submitted) -> Entry:
        """Read a row of the SQL inbox. Never raises."""
        if row.size > self.longest:
            dead_letter = too_large(row.size, max_request_bytes=self._settings.max_request_bytes, id=row.id)
            return Entry(INBOX, row.job, dead_letter)
        return _read_safely(INBOX, row.job, row.id, lambda raw: self._read_text(raw, row.id))

    def plain(self) -> Entry:
        """Return a minimal job: if the database refuses it, it refuses every job."""
        return self._read_job(INTAKE, b"", PLAIN, str(uuid4()))

    def _read_envelope(self, raw: bytes) -> Entry:
        envelope = decode(raw, max_bytes=self.longest)
        if isinstance(envelope, DeadLetter):
            return Entry(INTAKE, raw, envelope)
        if envelope.task != TASK:
            message = f"The task is {shown(envelope.task)}; this queue takes {TASK} only."
            return Entry(INTAKE, raw, DeadLetter("unknown_task", message, envelope.id))
        return self._read_job(INTAKE, raw, envelope.arguments_text, envelope.id, envelope.ignored)

    def _read_text(self, raw: bytes, given_id: str) -> Entry:
        try:
            return self._read_job(INBOX, raw, raw.decode(), given_id)
        except UnicodeDecodeError as error:
            message = f"The job's text is not UTF-8 at byte {error.start}; insert JSON text."
            return Entry(INBOX, raw, DeadLetter("not_json", message, given_id))

    def _read_job(
        self, queue: str, raw: bytes, text: str, given_id: str | None, ignored: tuple[str, ...] = ()
    ) -> Entry:
        read = read_job(
            text,
            default_id=given_id,
            endpoints=self._settings.endpoints,
            max_request_bytes=self._settings.max_request_bytes,
            ignored=ignored,
            address_fault=self._address_fault,
        )
        return Entry(queue, raw, read, alias=read_uuid(given_id))


def _read_safely(queue: str, raw: bytes, id: str | None, read: Callable[[bytes], Entry]) -> Entry:
    try:
        return read(raw)
    except Exception as error:
        # A bug of ours, or too little memory for this entry. The other entries of the batch are still read.
        log.error("message.not_read", queue=queue, size=len(raw), **_type_and_place(error))
        return not_accepted(queue, raw, id)


def _type_and_place(error: BaseException) -> dict[str, Any]:
    """Describe an error for the log without its message: the message may quote the entry."""
    return {name: value for name, value in describe(error).items() if name != "message"}
