"""Turns what came of a call into what is written of it: the attempt's end, the job's move, the answer's columns."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from worker.chat.answer import columns, has_output
from worker.chat.usage import Usage, normalise
from worker.core.endpoint import Endpoint
from worker.core.failure import ErrorCode, Failure, failure, under_policy
from worker.core.lifecycle import CANCEL, COMPLETE, EXPIRE, FAIL, HOLD, RELEASE, RETRY, Move, Outcome
from worker.core.quote import sentence
from worker.core.storable_text import clean_json, clean_text
from worker.jobs.core.endpoint_health import ALONE, Verdict
from worker.jobs.core.retry import AttemptBudget, Give_up, Hold, Retry, decide
from worker.jobs.net.progress import MAX_ERROR_BYTES, Reply
from worker.jobs.store.claim import Claim
from worker.jobs.store.record import AttemptRecord

# A header may have 64 KiB; no endpoint's id of a request is longer.
_LONGEST_REQUEST_ID = 512


@dataclass(frozen=True, slots=True)
class End:
    """What happens to the job. `counts`: the request is one of the budget's."""

    move: Move | None
    outcome: Outcome
    counts: bool = True
    delay_s: float = 0.0
    waiting_for: str | None = None
    refusals: int = 0


COMPLETED = End(COMPLETE, Outcome.completed)
CANCELLED = End(CANCEL, Outcome.cancelled)
# The lease is another's: the job is not ours to move, what we know of the attempt is ours to keep.
LOST = End(None, Outcome.unknown)


def released(got: Claim, reply: Reply) -> End:
    """Return the end of a call that a stopping worker gives back; a request it sent is one of the budget's."""
    if not reply.sent:
        return End(RELEASE, Outcome.released, counts=False)
    barred = reply.failure is not None and not reply.failure.retryable
    return End(FAIL if barred or got.attempts_used >= got.max_attempts else RELEASE, Outcome.unknown)


def follows(got: Claim, found: Failure, reply: Reply, *, verdict: Verdict, jitter: float) -> End:
    """Return what follows a failed attempt: another, a wait for the endpoint, or the end."""
    left_s = got.left_s - reply.elapsed_s
    budget = AttemptBudget(
        used=got.attempts_used,
        max_attempts=got.max_attempts,
        held=got.attempt - got.attempts_used,
        refusals=got.refusals,
        left_s=left_s,
    )
    step = decide(found, budget, verdict=verdict, sent=reply.sent, jitter=jitter)
    match step:
        case Retry(delay_s):
            return End(RETRY, Outcome.failed, reply.sent, delay_s, "retry")
        case Hold(delay_s, waits_for, counts, refusals):
            return End(HOLD, Outcome.failed, counts, delay_s, waits_for, refusals)
        case Give_up():
            return End(FAIL, Outcome.failed) if left_s > 0 else End(EXPIRE, Outcome.expired)


def close(got: Claim, reply: Reply, end: End, *, usage_requested: bool) -> AttemptRecord:
    """Build the record of an attempt from its reply and the end decided on."""
    return AttemptRecord(
        job_id=got.job_id,
        number=got.attempt,
        worker_id=got.worker_id,
        move=end.move,
        outcome=end.outcome,
        sent=reply.sent,
        counts=end.counts,
        attempt=_attempt(reply, _usage(got, reply), usage_requested=usage_requested),
        answer=_answer(reply),
        delay_s=end.delay_s,
        waiting_for=end.waiting_for,
        refusals=end.refusals,
        elapsed_s=reply.elapsed_s,
        first_byte_ago_s=_ago(reply, reply.first_byte_s),
        first_token_ago_s=_ago(reply, reply.first_token_s),
        **_error(failure(ErrorCode.expired) if end.move is EXPIRE else reply.failure),
    )


def close_broken(got: Claim, reply: Reply | None, endpoint: Endpoint | None, *, jitter: float) -> AttemptRecord:
    """Build the record of an attempt that we could not put into columns: what came is kept as it came.

    A whole answer that breaks us would break us again: the job fails rather than being bought once more. Nor is it
    bought again where the failure was permanent, or where `endpoint`'s settings forbid it. Each try spends an attempt.
    """
    sent = reply is None or reply.sent
    broken = failure(ErrorCode.internal_error, sent=sent, produced=reply is not None and reply.answer is not None)
    if endpoint is not None:
        broken = under_policy(broken, retry_partial=endpoint.retry_partial, retry_ambiguous=endpoint.retry_ambiguous)
    if reply is not None and reply.failure is not None and reply.failure.trouble == "job":
        broken = replace(broken, retryable=broken.retryable and reply.failure.retryable)
    nothing = (None, None, None, None, 0.0, b"", "identity", dict[str, str]())
    bare = Reply(broken, None, sent, *nothing)
    whole = reply is not None and reply.failure is None
    end = End(FAIL, Outcome.failed) if whole else follows(got, broken, bare, verdict=ALONE, jitter=jitter)
    closing = close(got, bare, replace(end, counts=True), usage_requested=False)
    if reply is None or not reply.raw:
        return closing
    return replace(closing, answer={"raw": reply.raw, "raw_encoding": reply.raw_encoding})


def plain(closing: AttemptRecord) -> AttemptRecord:
    """Return the same end of the same attempt without anything that came from outside: the database takes it, or none.

    It writes the same tables, an answer included, so that the writer learns whether they refuse the answer or us.
    """
    attempt = {"billed": closing.attempt["billed"], "usage_requested": False}
    return replace(closing, attempt=attempt, answer={"raw": b"", "raw_encoding": "identity"})


def _usage(got: Claim, reply: Reply) -> Usage:
    answer = reply.answer
    if answer is None:
        return normalise(None, has_text=False)
    return normalise(
        answer.usage,
        source=answer.usage_source,
        flags=answer.usage_flags,
        has_text=has_output(answer.completion),
        limit=got.token_limit,
    )


def _attempt(reply: Reply, usage: Usage, *, usage_requested: bool) -> dict[str, Any]:
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


def _answer(reply: Reply) -> Mapping[str, Any] | None:
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


def _error(found: Failure | None) -> dict[str, str | None]:
    """Return the job's three error columns."""
    if found is None:
        return {"error_code": None, "error_message": None, "error": None}
    message = sentence(found)
    told = {
        "code": found.code,
        "message": message,
        "http_status": found.http_status,
        "provider": _told(found.provider),
    }
    return {"error_code": found.code, "error_message": message, "error": clean_json(told)}


def _told(provider: object) -> object:
    """Return an endpoint's error value, as the beginning of its text where it is huge: the answer's bytes are kept."""
    text = provider if isinstance(provider, str) else clean_json(provider)
    return provider if len(text) <= MAX_ERROR_BYTES else text[:MAX_ERROR_BYTES]


def _ago(reply: Reply, seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, reply.elapsed_s - seconds)
