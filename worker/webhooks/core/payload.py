"""One delivery of an event: its id on the wire, which of the frozen bodies it sends, and the headers nobody signs.

A body is frozen once an event and says nothing of receivers. What differs between them, `sequence` and
`previous_undelivered`, is spliced in front of `data` when a delivery is sent, from columns of the delivery's row that
do not change after its first attempt: retries are byte-identical without a copy of the body for each receiver.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from worker.webhooks.core.event import AUTO_BYTES, FULL_BYTES, SPLICED_BYTES, EventType, Payload, instant_text

_DATA = b',"data":'


class Profile(StrEnum):
    """Whose events a receiver reads: ours, or those of OpenAI's SDKs."""

    afterword = "afterword"
    openai = "openai"


class Variant(StrEnum):
    """Which frozen body an attempt sends; its row says so."""

    thin = "thin"
    full = "full"
    openai = "openai"


def webhook_id(event_id: str, receiver_id: str) -> str:
    """Return the `webhook-id` of one event at one receiver, the same for every attempt: `msg_` and 32 hex digits.

    No dot, because what is signed is `id.timestamp.body` (Standard Webhooks 1.0.0); a digest, so that nobody who
    chooses ids of jobs or names of receivers chooses it.
    """
    both = f"{event_id} {receiver_id}"
    return f"msg_{sha256(both.encode()).hexdigest()[:32]}"


def variant(
    payload: Payload, profile: Profile, *, full_bytes: int | None, refused_as_too_large: bool = False
) -> Variant:
    """Choose what an attempt sends; `full_bytes` is the size of the frozen full body, None if there is none.

    `refused_as_too_large`: an earlier attempt of the delivery met a 413. From then on it sends the thin body under the
    same ids, the one exception to byte-identical retries.
    """
    if profile is Profile.openai:
        return Variant.openai
    if payload is Payload.thin or full_bytes is None or refused_as_too_large:
        return Variant.thin
    limit = AUTO_BYTES if payload is Payload.auto else FULL_BYTES
    return Variant.full if full_bytes + SPLICED_BYTES <= limit else Variant.thin


def sent_body(chosen: Variant, frozen: bytes, *, sequence: int, previous_undelivered: bool = False) -> bytes:
    """Return the bytes of the request, to be signed as they are.

    `sequence` counts from 1 the deliveries to one receiver under one ordering key (without one: of one job), given
    when the delivery is created. `previous_undelivered`: the one before it was given up, known at the first attempt.
    The openai profile has no place for them.
    """
    if chosen is Variant.openai:
        return frozen
    # The first match is ours: before it stand an id, a type and a time, which hold no quotes.
    at = frozen.index(_DATA)
    gap = b',"previous_undelivered":true' if previous_undelivered else b""
    return b'%b,"sequence":%d%b%b' % (frozen[:at], sequence, gap, frozen[at:])


def convenience_headers(
    event_type: EventType, *, delivery_id: str, attempt: int, first_attempt_at: datetime
) -> Mapping[str, str]:
    """Return what a receiver's log may want to show. Not signed: what matters stands in the body."""
    return {
        "x-afterword-event-type": event_type.value,
        "x-afterword-delivery-id": delivery_id,
        "x-afterword-attempt": str(attempt),
        "x-afterword-first-attempt-at": instant_text(first_attempt_at),
    }
