"""Ended jobs for the tests of events."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from worker.chat.usage import TOKENS
from worker.core.lifecycle import Status
from worker.webhooks.core.event import Finished

ID = "018f4a5e-7c1b-7d2e-9a53-0242ac120002"
EVENT = "evt_6f1d0c52a9d44c0f8f5be7f1f0a3c1d2"
AT = datetime(2026, 11, 23, 3, 14, 17, 250_000, tzinfo=UTC)

COMPLETED = Finished(
    id=ID,
    tenant="shop",
    status=Status.completed,
    batch=None,
    custom_id="order-7",
    idempotency_key=None,
    endpoint="default",
    model="DeepSeek-V3.2",
    attempts=1,
    created_at=datetime(2026, 11, 23, 3, 14, 15, tzinfo=UTC),
    started_at=datetime(2026, 11, 23, 3, 14, 15, 123_456, tzinfo=UTC),
    finished_at=AT,
    finish_reason="stop",
    response='{"choices":[{"message":{"content":"Hello!"}}]}',
    error_code=None,
    error_message=None,
    error=None,
    tokens=dict.fromkeys(TOKENS) | {"prompt_tokens": 5, "completion_tokens": 7},
    usage='{"prompt_tokens":5,"completion_tokens":7}',
    reported_cost=Decimal("0.000012"),
    metadata='{"order":"7"}',
    ordering_key=None,
)

_WITHOUT_ANSWER = replace(
    COMPLETED, response=None, finish_reason=None, usage=None, tokens=dict.fromkeys(TOKENS), reported_cost=None
)


def ended(status: Status) -> Finished:
    """Return a job with this final status."""
    if status is Status.completed:
        return COMPLETED
    message = f"The job is {status}."
    error = json.dumps({"code": status.value, "message": message})
    return replace(_WITHOUT_ANSWER, status=status, error_code=status.value, error_message=message, error=error)


def answering(characters: int, letter: str = "x") -> Finished:
    """Return a completed job whose response text has `characters` characters."""
    return replace(COMPLETED, response=f'"{letter * (characters - 2)}"')
