"""Build the record of an attempt from the reply and the decision: columns of the attempt, the job and the answer."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from worker.chat.answer import columns, has_output
from worker.chat.usage import Usage, normalise
from worker.core.endpoint import Endpoint
from worker.core.failure import ErrorCode, Failure, failure
from worker.core.lifecycle import EXPIRE
from worker.core.quote import sentence
from worker.core.storable_text import clean_json, clean_text
from worker.jobs.core.endpoint_health import ALONE
from worker.jobs.core.retry import FAILED, AttemptBudget, JobDecision, decide
from worker.jobs.net.progress import MAX_ERROR_BYTES, Reply
from worker.jobs.store.claim import Claim
from worker.jobs.store.record import AttemptRecord

# A header may have 64 KiB; no endpoint's request id is longer than this.
_LONGEST_REQUEST_ID = 512


def bare_reply(found: Failure, *, sent: bool) -> Reply:
    """Return a reply that holds a failure and nothing else."""
    return Reply(found, None, sent, None, None, None, None, 0.0, b"", "identity", {})


def budget_of(claim: Claim, reply: Reply, endpoint: Endpoint | None) -> AttemptBudget:
    """Return what the job may still spend after `reply`; `endpoint` None: its settings are unknown here."""
    return AttemptBudget(
        used=claim.attempts_used,
        max_attempts=claim.max_attempts,
        held=claim.attempt - claim.attempts_used,
        refusals=claim.refusals,
        left_s=claim.left_s - reply.elapsed_s,
        retry_partial=endpoint is None or endpoint.retry_partial,
        retry_ambiguous=endpoint is None or endpoint.retry_ambiguous,
    )


def build_record(claim: Claim, reply: Reply, decision: JobDecision, *, usage_requested: bool) -> AttemptRecord:
    """Build the record of an attempt. CPU-bound: call it in a thread for a large reply."""
    return AttemptRecord(
        job_id=claim.job_id,
        number=claim.attempt,
        worker_id=claim.worker_id,
        move=decision.move,
        outcome=decision.outcome,
        sent=reply.sent,
        counts=decision.counts,
        attempt=_attempt_columns(reply, _usage(claim, reply), usage_requested=usage_requested),
        answer=_answer_columns(reply),
        delay_s=decision.delay_s,
        waiting_for=decision.waiting_for,
        refusals=decision.refusals,
        elapsed_s=reply.elapsed_s,
        first_byte_ago_s=_ago(reply, reply.first_byte_s),
        first_token_ago_s=_ago(reply, reply.first_token_s),
        **_error_columns(failure(ErrorCode.expired) if decision.move is EXPIRE else reply.failure),
    )


def build_broken_record(
    claim: Claim, reply: Reply | None, endpoint: Endpoint | None, *, jitter: float
) -> AttemptRecord:
    """Build the record of an attempt that our own code failed on; the body that came is kept as it came.

    A complete answer that broke our code would break it again: the job fails, and the answer is not paid for twice.
    The job also fails if the endpoint's failure was permanent, or if the endpoint's settings forbid a second payment.
    Each such attempt spends one of `max_attempts`.
    """
    sent = reply is None or reply.sent
    broken = failure(ErrorCode.internal_error, sent=sent, produced=reply is not None and reply.answer is not None)
    if reply is not None and reply.failure is not None and reply.failure.trouble == "job":
        broken = replace(broken, retryable=broken.retryable and reply.failure.retryable)
    bare = bare_reply(broken, sent=sent)
    is_complete = reply is not None and reply.failure is None
    budget = budget_of(claim, bare, endpoint)
    decision = FAILED if is_complete else decide(broken, budget, verdict=ALONE, sent=sent, jitter=jitter)
    record = build_record(claim, bare, replace(decision, counts=True), usage_requested=False)
    if reply is None or not reply.raw:
        return record
    return replace(record, answer={"raw": reply.raw, "raw_encoding": reply.raw_encoding})


def plain_record(record: AttemptRecord) -> AttemptRecord:
    """Return the record without any data from outside: a database that refuses it refuses every record.

    It writes the same tables, the answer's included: the writer learns whether they refuse this data or all data.
    """
    attempt = {"billed": record.attempt["billed"], "usage_requested": False}
    return replace(record, attempt=attempt, answer={"raw": b"", "raw_encoding": "identity"})


def _usage(claim: Claim, reply: Reply) -> Usage:
    answer = reply.answer
    if answer is None:
        return normalise(None, has_text=False)
    return normalise(
        answer.usage,
        source=answer.usage_source,
        flags=answer.usage_flags,
        has_text=has_output(answer.completion),
        limit=claim.token_limit,
    )


def _attempt_columns(reply: Reply, usage: Usage, *, usage_requested: bool) -> dict[str, Any]:
    found = reply.failure
    return {
        "error_code": None if found is None else found.code,
        "error_message": None if found is None else sentence(found),
        "http_status": reply.http_status,
        "billed": "yes" if found is None else found.billed,
        "request_id": None if reply.request_id is None else clean_text(reply.request_id[:_LONGEST_REQUEST_ID]),
        "retry_after_s": None if found is None else found.retry_after_s,
        "trouble": None if found is None else found.trouble,
        "headers": clean_json(dict(reply.headers)) if reply.headers else None,
        "usage_requested": usage_requested,
        "usage_source": usage.source,
        "usage_flags": clean_json(list(usage.flags)),
        "reported_cost": usage.reported_cost,
        **usage.tokens,
    }


def _answer_columns(reply: Reply) -> Mapping[str, Any] | None:
    if not reply.raw:
        return None
    answer = reply.answer
    completion = None if answer is None else answer.completion
    return {
        "raw": reply.raw,
        "raw_encoding": reply.raw_encoding,
        "usage_raw": None if answer is None else answer.usage,
        "usage": None if answer is None or answer.usage is None else clean_json(answer.usage),
        "response": None if completion is None else clean_json(completion),
        **asdict(columns(completion)),
    }


def _error_columns(found: Failure | None) -> dict[str, str | None]:
    """Return the job's three error columns."""
    if found is None:
        return {"error_code": None, "error_message": None, "error": None}
    message = sentence(found)
    error = {
        "code": found.code,
        "message": message,
        "http_status": found.http_status,
        "provider": _shortened(found.provider),
    }
    return {"error_code": found.code, "error_message": message, "error": clean_json(error)}


def _shortened(provider: object) -> object:
    """Return an endpoint's error value, or the start of its text if it is huge: the answer's row keeps the bytes."""
    text = provider if isinstance(provider, str) else clean_json(provider)
    return provider if len(text) <= MAX_ERROR_BYTES else text[:MAX_ERROR_BYTES]


def _ago(reply: Reply, seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, reply.elapsed_s - seconds)
