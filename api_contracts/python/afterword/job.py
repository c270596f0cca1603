"""What a row of jobs_v1 says, as a frozen value. The columns are described in api_contracts/sql/README.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

FINAL = frozenset({"completed", "failed", "cancelled", "expired"})


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was read; every field is the column of the same name, `request` left out.

    `attempts` may be above `max_attempts`: attempts that the endpoint's trouble or its limit ended spend nothing. The
    column `attempts_used` says how many were spent; databases of older releases lack it, so it is no field here.

    Token counts are None when the endpoint did not report them, never 0. Times are aware, in UTC. While
    the job waits in the SQL inbox and no worker has read it, it is not `accepted`: of the message's fields it has
    `tenant`, `batch`, `custom_id` and `idempotency_key`, as `enqueue` was given them, or none; the others are None.
    """

    id: str
    tenant: str | None
    status: str
    batch: str | None
    custom_id: str | None
    idempotency_key: str | None
    endpoint: str | None
    model: str | None
    priority: int | None
    attempts: int
    max_attempts: int | None
    created_at: datetime
    not_before: datetime | None
    deadline: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    waiting_for: str | None
    waiting_until: datetime | None
    finish_reason: str | None
    content: str | None
    reasoning_content: str | None
    refusal: str | None
    tool_calls: list[dict[str, Any]] | None
    response: dict[str, Any] | None
    response_id: str | None
    response_model: str | None
    system_fingerprint: str | None
    error_code: str | None
    error_message: str | None
    error: dict[str, Any] | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    prompt_text_tokens: int | None
    prompt_audio_tokens: int | None
    prompt_image_tokens: int | None
    completion_text_tokens: int | None
    completion_audio_tokens: int | None
    completion_image_tokens: int | None
    reasoning_tokens: int | None
    accepted_prediction_tokens: int | None
    rejected_prediction_tokens: int | None
    usage: dict[str, Any] | None
    reported_cost: Decimal | None
    metadata: dict[str, str] | None
    cursor: int | None

    @staticmethod
    def of(rows: Sequence[Sequence[Any]]) -> Job | None:
        """Return the job in what was read by an id.

        A job that was sent twice is both a row and, for a moment, an inbox row.
        """
        jobs = [from_row(row) for row in rows]
        return next((job for job in jobs if job.accepted), jobs[0] if jobs else None)

    @property
    def accepted(self) -> bool:
        """Whether a worker has read it."""
        return self.deadline is not None

    @property
    def text(self) -> str | None:
        """The answer's text: the content of the first choice."""
        return self.content

    @property
    def done(self) -> bool:
        """Whether the job has ended, one way or another."""
        return self.status in FINAL


COLUMNS = tuple(field.name for field in fields(Job))
_JSON = ("tool_calls", "response", "error", "usage", "metadata")
# As text, because drivers disagree on what they make of jsonb.
SELECTED = ", ".join(f"CAST({name} AS text)" if name in _JSON else name for name in COLUMNS)
_INSTANTS = ("created_at", "not_before", "deadline", "started_at", "finished_at", "waiting_until")


def from_row(row: Sequence[Any]) -> Job:
    """Make a job of the values of SELECTED."""
    values = dict(zip(COLUMNS, row))
    values["id"] = str(values["id"])
    for name in _JSON:
        values[name] = None if values[name] is None else json.loads(values[name])
    for name in _INSTANTS:
        values[name] = _instant(values[name])
    cost = values["reported_cost"]
    values["reported_cost"] = None if cost is None else Decimal(cost)
    return Job(**values)


def _instant(value: datetime | str | None) -> datetime | None:
    if isinstance(value, str):
        # SQLite's texts end in Z, which Python reads from 3.11 on.
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    return None if value is None else value.astimezone(timezone.utc)
