"""The profile `openai`: events for `client.webhooks.unwrap()` of OpenAI's unchanged SDKs.

The shape is that of `openai.types.webhooks`: `{"id", "object": "event", "created_at", "type", "data": {"id"}}`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from worker.core.lenient_json import compact

# OpenAI has no event for an expired response. `response.failed` says that there is no answer; `batch.expired` would
# name a batch.
_TYPES: Final[Mapping[str, str]] = {
    "job.completed": "response.completed",
    "job.failed": "response.failed",
    "job.cancelled": "response.cancelled",
    "job.expired": "response.failed",
}

# The finish reasons of chat completions for an incomplete response (`incomplete_details.reason` of OpenAI's Responses).
_INCOMPLETE = frozenset({"length", "content_filter"})


def openai_type(event_type: str, finish_reason: str | None) -> str:
    """Return OpenAI's name for a job's event; an event without an OpenAI name keeps ours."""
    if event_type == "job.completed" and finish_reason in _INCOMPLETE:
        return "response.incomplete"
    return _TYPES.get(event_type, event_type)


def openai_body(event_id: str, event_type: str, at: datetime, subject: str, finish_reason: str | None) -> bytes:
    """Build the body. `subject` becomes `data.id`: the job's id, or a test's receiver. `at`: when the job ended."""
    event = {
        "id": event_id,
        "object": "event",
        "created_at": int(at.timestamp()),
        "type": openai_type(event_type, finish_reason),
        "data": {"id": subject},
    }
    return compact(event).encode("utf-8", "replace")
