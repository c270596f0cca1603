"""Builds the request of one delivery: its `webhook-id`, its variant of the frozen body, and the unsigned headers.

The body is frozen once for each event and has no data about receivers. `sequence` and `previous_undelivered` differ
between receivers, so they are inserted before `data` when a delivery is sent. They come from columns of the delivery
that do not change after the first attempt: all retries have the same bytes, without a copy for each receiver.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from worker.webhooks.core.event import AUTO_BYTES, FULL_BYTES, SPLICED_BYTES, EventType, Payload, instant_text

_DATA = b',"data":'


class Profile(StrEnum):
    """The event format of a receiver: ours, or that of OpenAI's SDKs."""

    afterword = "afterword"
    openai = "openai"


class Variant(StrEnum):
    """The frozen body that an attempt sends; a column of its row."""

    thin = "thin"
    full = "full"
    openai = "openai"


def webhook_id(event_id: str, receiver_id: str) -> str:
    """Return the `webhook-id` of an event for a receiver, the same for every attempt: `msg_` and 32 hex digits.

    It has no dot, because dots separate the signed content `id.timestamp.body` (Standard Webhooks 1.0.0). It is a
    digest, so that callers who choose job ids or receiver names cannot choose it.
    """
    both = f"{event_id} {receiver_id}"
    return f"msg_{sha256(both.encode()).hexdigest()[:32]}"


def variant(
    payload: Payload, profile: Profile, *, full_bytes: int | None, refused_as_too_large: bool = False
) -> Variant:
    """Choose the body of an attempt; `full_bytes` is the size of the frozen full body, None if there is none.

    `refused_as_too_large`: an earlier attempt of the delivery got a 413. From then on the delivery sends the thin body
    under the same ids: the only exception to byte-identical retries.
    """
    if profile is Profile.openai:
        return Variant.openai
    if payload is Payload.thin or full_bytes is None or refused_as_too_large:
        return Variant.thin
    limit = AUTO_BYTES if payload is Payload.auto else FULL_BYTES
    return Variant.full if full_bytes + SPLICED_BYTES <= limit else Variant.thin


def sent_body(chosen: Variant, frozen: bytes, *, sequence: int, previous_undelivered: bool = False) -> bytes:
    """Return the bytes of the request body, ready to be signed.

    `sequence` numbers the deliveries to a receiver with the same ordering key (without a key: of the same job) from 1;
    it is set when the delivery is created. `previous_undelivered`: the delivery before it has failed or was cancelled;
    known at the first attempt. Bodies of the profile openai have neither.
    """
    if chosen is Variant.openai:
        return frozen
    # The first match is ours, because the id, type and time before it contain no quotes.
    at = frozen.index(_DATA)
    gap = b',"previous_undelivered":true' if previous_undelivered else b""
    return b'%b,"sequence":%d%b%b' % (frozen[:at], sequence, gap, frozen[at:])


def convenience_headers(
    event_type: EventType, *, delivery_id: str, attempt: int, first_attempt_at: datetime
) -> Mapping[str, str]:
    """Return headers for a receiver's log. They are not signed, because everything important is in the body."""
    return {
        "x-afterword-event-type": event_type.value,
        "x-afterword-delivery-id": delivery_id,
        "x-afterword-attempt": str(attempt),
        "x-afterword-first-attempt-at": instant_text(first_attempt_at),
    }
