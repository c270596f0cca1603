"""Builds the example events with the worker's own code.

`python -m tests.contracts.event_examples` writes them to api_contracts/examples/events. A test compares the files.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tests.contracts.schemas import CONTRACTS
from worker.chat.answer import columns, read_body
from worker.chat.usage import TOKENS, normalise
from worker.core.endpoint import Endpoint
from worker.core.failure import MEANINGS, ErrorCode
from worker.core.lifecycle import Status
from worker.core.storable_text import clean_json
from worker.jobs.core.message import Job, read_job
from worker.webhooks.core.event import FinishedJob, event_id_of, freeze, freeze_test
from worker.webhooks.core.payload import Variant, sent_body

FOLDER = CONTRACTS / "examples" / "events"
ENDPOINTS = {"default": Endpoint("default", url="https://one.example/v1/chat/completions")}
ID = "018f4a5e-7c1b-7d2e-9a53-0242ac120002"
EVENT = event_id_of(UUID("6f1d0c52-a9d4-4c0f-8f5b-e7f1f0a3c1d2"))
ACCEPTED_AT = datetime(2026, 11, 23, 3, 14, 15, 123_456, tzinfo=UTC)
ENDED_AT = ACCEPTED_AT + timedelta(seconds=2, milliseconds=250)


def _completed() -> FinishedJob:
    """Return the job of requests/full_job.json, answered by responses/plain.json."""
    text = (CONTRACTS / "examples" / "requests" / "full_job.json").read_text()
    job = read_job(text, default_id=ID, endpoints=ENDPOINTS, max_request_bytes=1_000_000)
    answer = read_body((CONTRACTS / "examples" / "responses" / "plain.json").read_bytes())
    assert isinstance(job, Job) and answer.usage is not None
    usage = normalise(answer.usage, has_text=True)
    return FinishedJob(
        id=job.id,
        tenant=job.tenant,
        status=Status.completed,
        batch=job.batch,
        custom_id=job.custom_id,
        idempotency_key=job.idempotency_key,
        endpoint=job.endpoint,
        model=job.model,
        attempts=1,
        created_at=ACCEPTED_AT,
        started_at=ACCEPTED_AT + timedelta(milliseconds=8),
        finished_at=ENDED_AT,
        finish_reason=columns(answer.completion).finish_reason,
        response=clean_json(answer.completion),
        error_code=None,
        error_message=None,
        error=None,
        tokens=usage.tokens,
        usage=clean_json(answer.usage),
        reported_cost=usage.reported_cost,
        metadata=clean_json(job.metadata),
        ordering_key=job.ordering_key,
    )


COMPLETED = _completed()


def _without_answer(status: Status, code: ErrorCode, *, attempts: int) -> FinishedJob:
    message = MEANINGS[code].sentence
    return replace(
        COMPLETED,
        status=status,
        attempts=attempts,
        started_at=COMPLETED.started_at if attempts else None,
        finish_reason=None,
        response=None,
        error_code=code.value,
        error_message=message,
        error=clean_json({"code": code.value, "message": message}),
        tokens=dict.fromkeys(TOKENS),
        usage=None,
        reported_cost=None,
    )


FAILED = _without_answer(Status.failed, ErrorCode.context_too_long, attempts=1)
CANCELLED = _without_answer(Status.cancelled, ErrorCode.cancelled, attempts=1)
EXPIRED = _without_answer(Status.expired, ErrorCode.expired, attempts=0)


def _thin(job: FinishedJob) -> bytes:
    return sent_body(Variant.thin, freeze(EVENT, job).thin, sequence=1)


def _full(job: FinishedJob, *, gap: bool = False) -> bytes:
    body = freeze(EVENT, job).full
    assert body is not None
    return sent_body(Variant.full, body, sequence=2 if gap else 1, previous_undelivered=gap)


def _openai(job: FinishedJob) -> bytes:
    return sent_body(Variant.openai, freeze(EVENT, job).openai, sequence=1)


EXAMPLES = {
    "job_completed": _full(COMPLETED),
    "job_completed_thin": _thin(COMPLETED),
    "job_failed": _full(FAILED),
    "job_failed_after_a_gap": _full(FAILED, gap=True),
    "job_cancelled": _full(CANCELLED),
    "job_expired": _full(EXPIRED),
    "job_expired_thin": _thin(EXPIRED),
    "receiver_test": sent_body(Variant.thin, freeze_test(EVENT, receiver="orders", at=ENDED_AT).thin, sequence=1),
    "openai_completed": _openai(COMPLETED),
    "openai_incomplete": _openai(replace(COMPLETED, finish_reason="length")),
    "openai_failed": _openai(FAILED),
    "openai_cancelled": _openai(CANCELLED),
    "openai_expired": _openai(EXPIRED),
    "openai_receiver_test": freeze_test(EVENT, receiver="orders", at=ENDED_AT).openai,
}
"""The bytes of each example, as the worker sends them to a receiver."""


def pretty(body: bytes) -> str:
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, body in EXAMPLES.items():
        (FOLDER / f"{name}.json").write_text(pretty(body))
