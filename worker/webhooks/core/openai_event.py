"""The profile `openai`: events that `client.webhooks.unwrap()` of OpenAI's SDKs takes and types, unchanged.

The shape is that of `openai.types.webhooks`: `{"id", "object": "event", "created_at", "type", "data": {"id"}}`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from worker.core.lenient_json import compact

# OpenAI has no expired response: `response.failed`, because there is no answer. `batch.expired` would name a batch.
_TYPES: Final[Mapping[str, str]] = {
    "job.completed": "response.completed",
    "job.failed": "response.failed",
    "job.cancelled": "response.cancelled",
    "job.expired": "response.failed",
}

# What OpenAI's Responses call incomplete (`incomplete_details.reason`), in the words of chat completions.
_INCOMPLETE = frozenset({"length", "content_filter"})


def openai_type(event_type: str, finish_reason: str | None) -> str:
    """Return OpenAI's name for an event of a job; an event they do not have keeps its own."""
    if event_type == "job.completed" and finish_reason in _INCOMPLETE:
        return "response.incomplete"
    return _TYPES.get(event_type, event_type)


def openai_body(event_id: str, event_type: str, at: datetime, subject: str, finish_reason: str | None) -> bytes:
    """Make the body; `subject`, a job's id, is the `data.id` a receiver looks up, `at` the instant it ended."""
    told = {
        "id": event_id,
        "object": "event",
        "created_at": int(at.timestamp()),
        "type": openai_type(event_type, finish_reason),
        "data": {"id": subject},
    }
    return compact(told).encode("utf-8", "replace")
