"""Turns what came of a call into what is written of it: the attempt's end, the job's move, the answer's columns."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from worker.core.answer import columns, has_output
from worker.core.clean import clean_json, clean_text
from worker.core.failure import Failure
from worker.core.lifecycle import CANCEL, COMPLETE, EXPIRE, FAIL, HOLD, RELEASE, RETRY, Move, Outcome
from worker.core.retry import Give_up, Hold, Retry, decide
from worker.core.usage import Usage, normalise
from worker.net.progress import Reply
from worker.store.claim import Claim
from worker.store.record import Closing


@dataclass(frozen=True, slots=True)
class End:
    """What happens to the job. `counts`: the request is one of the budget's."""

    move: Move | None
    outcome: Outcome
    counts: bool = True
    delay_s: float = 0.0
    waiting_for: str | None = None


COMPLETED = End(COMPLETE, Outcome.completed)
CANCELLED = End(CANCEL, Outcome.cancelled)
# The lease is another's: the job is not ours to move, what we know of the attempt is ours to keep.
LOST = End(None, Outcome.unknown)


def released(reply: Reply) -> End:
    """The end of a call that a stopping worker gives back."""
    return End(RELEASE, Outcome.unknown if reply.sent else Outcome.released, counts=reply.sent)


def follows(got: Claim, failure: Failure, reply: Reply, *, jitter: float) -> End:
    """Return what follows a failed attempt: another, a pause of the endpoint, or the end."""
    left_s = got.left_s - reply.elapsed_s
    step = decide(failure, used=got.attempts_used, max_attempts=got.max_attempts, left_s=left_s, jitter=jitter)
    match step:
        case Retry(delay_s):
            return End(RETRY, Outcome.failed, reply.sent, delay_s, "retry")
        case Hold(pause_s):
            return End(HOLD, Outcome.failed, False, pause_s, "endpoint_paused")
        case Give_up():
            return End(FAIL, Outcome.failed) if left_s > 0 else End(EXPIRE, Outcome.expired)


def close(got: Claim, reply: Reply, end: End, *, usage_requested: bool) -> Closing:
    """Build the record of an attempt from its reply and the end decided on."""
    failure = reply.failure
    usage = _usage(got, reply)
    message = None if failure is None else clean_text(failure.message)
    return Closing(
        job_id=got.job_id,
        number=got.attempt,
        worker_id=got.worker_id,
        move=end.move,
        outcome=end.outcome,
        sent=reply.sent,
        counts=end.counts,
        attempt=_attempt(reply, usage, usage_requested=usage_requested),
        answer=_answer(reply),
        delay_s=end.delay_s,
        waiting_for=end.waiting_for,
        error_code=None if failure is None else failure.code,
        error_message=message,
        error=None if failure is None else _error(failure),
        elapsed_s=reply.elapsed_s,
        first_byte_ago_s=_ago(reply, reply.first_byte_s),
        first_token_ago_s=_ago(reply, reply.first_token_s),
    )


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
    failure = reply.failure
    return {
        "error_code": None if failure is None else failure.code,
        "error_message": None if failure is None else clean_text(failure.message),
        "http_status": reply.http_status,
        "billed": "yes" if failure is None else failure.billed,
        "request_id": None if reply.request_id is None else clean_text(reply.request_id),
        "retry_after_s": None if failure is None else failure.retry_after_s,
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


def _error(failure: Failure) -> str:
    return clean_json(
        {
            "code": failure.code,
            "message": failure.message,
            "http_status": failure.http_status,
            "provider": failure.provider,
        }
    )


def _ago(reply: Reply, seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, reply.elapsed_s - seconds)
