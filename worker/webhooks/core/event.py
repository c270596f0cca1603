"""Builds the event bodies of a finished job, in the transaction that ends the job.

    Finished ── freeze ──▶ Bodies ── core.payload: variant, sent_body ──▶ the bytes of one delivery

`data` has the column names of the view `jobs_v1`. Response, usage, error and metadata are JSON texts that were cleaned
when they were stored. They are inserted without parsing, because one transaction may freeze a hundred bodies of
hundreds of KiB.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

from worker.chat.usage import TOKENS
from worker.core.lenient_json import compact
from worker.core.lifecycle import FINAL, Status
from worker.webhooks.core.openai_event import openai_body

AUTO_BYTES: Final = 64 * 1024
"""A receiver with payload `auto` gets the result if the body has at most this many bytes."""

FULL_BYTES: Final = 256 * 1024
"""The largest body for any receiver."""

SPLICED_BYTES: Final = 64
"""The most that `webhooks.core.payload.sent_body` adds to a frozen body; both limits above apply to the sent body."""

USAGE_CHARACTERS: Final = 4 * 1024
"""A longer usage object is left out and stays in `jobs_v1`, because some receivers take only small bodies."""

# Longer than any honest endpoint's names and sentences; a hostile endpoint could send more.
_MAX_NAME_CHARS = 255
_MAX_SENTENCE_CHARS = 2_000


class EventType(StrEnum):
    """All event types. A contract with the receivers: it only grows."""

    completed = "job.completed"
    failed = "job.failed"
    cancelled = "job.cancelled"
    expired = "job.expired"
    test = "receiver.test"


class Payload(StrEnum):
    """When a receiver gets the result: `thin` never, `full` up to 256 KiB, `auto` up to 64 KiB."""

    thin = "thin"
    full = "full"
    auto = "auto"


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that has ended, in the columns of `jobs_v1`. Instants are aware.

    `response`, `usage`, `error` and `metadata` are JSON texts cleaned by `storable_text`; `tokens` has names of TOKENS.
    `cursor` is None if the job has no number in the feed yet; the body then has no member `cursor`.
    """

    id: str
    tenant: str
    status: Status
    batch: str | None
    custom_id: str | None
    idempotency_key: str | None
    endpoint: str
    model: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime
    finish_reason: str | None
    response: str | None
    error_code: str | None
    error_message: str | None
    error: str | None
    tokens: Mapping[str, int | None]
    usage: str | None
    reported_cost: Decimal | None
    metadata: str | None
    ordering_key: str | None
    cursor: int | None = None


@dataclass(frozen=True, slots=True)
class Bodies:
    """The bodies of one event, each a whole JSON object in UTF-8 without `sequence`.

    `full` is None if no receiver wants it or if it is too large.
    """

    type: EventType
    thin: bytes
    full: bytes | None
    openai: bytes


def event_id_of(unique: UUID) -> str:
    """Return an event's id, `evt_` and 32 hex digits. `unique` is random, not the job's id, which callers choose."""
    return f"evt_{unique.hex}"


def event_type(status: Status) -> EventType:
    """Return the event of a final status."""
    assert status in FINAL, f"{status} is not final, so it has no event"
    return EventType(f"job.{status}")


def freeze(event_id: str, job: Finished, payloads: Collection[Payload] = frozenset(Payload)) -> Bodies:
    """Build the bodies of a job's event; `payloads` are those of its receivers.

    Never raises for values that SQL can store: an error here would roll back the job's result, too.
    """
    kind = event_type(job.status)
    shared = f"{_envelope(event_id, kind, job.finished_at)}{_shared_members(job)}"
    return Bodies(
        type=kind,
        thin=_utf8(f'{shared},"result_omitted":true}}}}'),
        full=_full_body(shared, job, _full_body_limit(payloads)),
        openai=openai_body(event_id, kind, job.finished_at, job.id, job.finish_reason),
    )


def freeze_test(event_id: str, *, receiver: str, at: datetime) -> Bodies:
    """Build the bodies of `receiver.test`, the event of `afterword webhooks test`."""
    data = {"receiver": receiver, "message": "This is a test. No job has ended."}
    body = _utf8(f"{_envelope(event_id, EventType.test, at)}{compact(data)}}}")
    return Bodies(EventType.test, body, None, openai_body(event_id, EventType.test, at, receiver, None))


def instant_text(instant: datetime) -> str:
    """Format an aware datetime as the views do: `2026-11-23T03:14:15.123456Z`."""
    return f"{instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _envelope(event_id: str, kind: EventType, at: datetime) -> str:
    return f'{{"id":"{event_id}","type":"{kind}","timestamp":"{instant_text(at)}","data":'


def _shared_members(job: Finished) -> str:
    """Return the members that all bodies share, as the start of a JSON object without its closing brace."""
    columns = {
        "id": job.id,
        "tenant": job.tenant,
        "status": job.status,
        "batch": job.batch,
        "custom_id": job.custom_id,
        "idempotency_key": job.idempotency_key,
        "ordering_key": job.ordering_key,
        "endpoint": job.endpoint,
        "model": _truncate(job.model, _MAX_NAME_CHARS),
        "attempts": job.attempts,
        "created_at": instant_text(job.created_at),
        "started_at": None if job.started_at is None else instant_text(job.started_at),
        "finished_at": instant_text(job.finished_at),
        "finish_reason": _truncate(job.finish_reason, _MAX_NAME_CHARS),
        "error_code": job.error_code,
        "error_message": _truncate(job.error_message, _MAX_SENTENCE_CHARS),
        **{column: job.tokens.get(column) for column in TOKENS},
        # A string, because a double would round it; without an exponent, as in SQL.
        "reported_cost": None if job.reported_cost is None else f"{job.reported_cost:f}",
    }
    if job.cursor is not None:
        columns["cursor"] = job.cursor
    usage = job.usage if job.usage is not None and len(job.usage) <= USAGE_CHARACTERS else "null"
    return f'{compact(columns)[:-1]},"usage":{usage},"metadata":{_or_null(job.metadata)}'


def _full_body_limit(payloads: Collection[Payload]) -> int:
    """Return the largest frozen full body that some receiver accepts, in bytes; 0 if all want thin bodies."""
    if Payload.full in payloads:
        return FULL_BYTES - SPLICED_BYTES
    return AUTO_BYTES - SPLICED_BYTES if Payload.auto in payloads else 0


def _full_body(shared: str, job: Finished, largest: int) -> bytes | None:
    response, error = _or_null(job.response), _or_null(job.error)
    # UTF-8 has at least one byte for each character, so an answer of 16 MiB is refused without copying it.
    if len(shared) + len(response) + len(error) > largest:
        return None
    body = _utf8(f'{shared},"result_omitted":false,"response":{response},"error":{error}}}}}')
    return body if len(body) <= largest else None


def _or_null(json_text: str | None) -> str:
    return "null" if json_text is None else json_text


def _truncate(text: str | None, longest: int) -> str | None:
    return text if text is None or len(text) <= longest else f"{text[: longest - 1]}…"


def _utf8(text: str) -> bytes:
    # SQL stores no lone surrogate, but a text that was never in SQL may have one. An error would lose the job's result.
    return text.encode("utf-8", "replace")
