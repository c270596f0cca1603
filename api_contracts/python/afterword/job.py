"""Job: one row of jobs_v1 as a frozen value. api_contracts/sql/README.md describes the columns."""

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
    """A job at the moment it was read. Each field is the column of the same name; `request` is left out.

    Token counts are None, never 0, if the endpoint did not report them. Times are aware datetimes in UTC.

    `attempts` may be above `max_attempts`, because an attempt that trouble or a limit of the endpoint ended is not
    counted against it. The column `attempts_used` has the counted ones; databases of older releases lack it, so it is
    no field here.

    Until a worker has read a job from `enqueue`, `accepted` is False. Of the message's fields only `tenant`, `batch`,
    `custom_id` and `idempotency_key` can be set then: if `enqueue` got them and the database has columns for them.
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
        """Return the job in the rows that were read for one id; None if there are none.

        A job that was sent twice has, for a moment, an inbox row beside its own. Its own row wins.
        """
        jobs = [from_row(row) for row in rows]
        return next((job for job in jobs if job.accepted), jobs[0] if jobs else None)

    @property
    def accepted(self) -> bool:
        """True once a worker has read the job."""
        return self.deadline is not None

    @property
    def text(self) -> str | None:
        """The answer's text: the content of the first choice."""
        return self.content

    @property
    def done(self) -> bool:
        """True once the job is completed, failed, cancelled or expired."""
        return self.status in FINAL


COLUMNS = tuple(field.name for field in fields(Job))
_JSON = ("tool_calls", "response", "error", "usage", "metadata")
# JSON columns are read as text, because drivers decode jsonb in different ways.
SELECTED = ", ".join(f"CAST({name} AS text)" if name in _JSON else name for name in COLUMNS)
_INSTANTS = ("created_at", "not_before", "deadline", "started_at", "finished_at", "waiting_until")


def from_row(row: Sequence[Any]) -> Job:
    """Build a Job from a row of the columns SELECTED."""
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
        # SQLite's texts end in Z; fromisoformat reads Z only from Python 3.11 on.
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    return None if value is None else value.astimezone(timezone.utc)
