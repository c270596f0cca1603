"""The story of one attempt: claim the job, call its endpoint, decide what follows, record it. Reads top to bottom."""

import asyncio
import random
from dataclasses import replace

import structlog
from structlog.contextvars import bound_contextvars

from worker.chat.error_response import refuses_our_usage
from worker.chat.request import wire_body
from worker.core.endpoint import Endpoint
from worker.core.failure import ErrorCode, failure
from worker.core.lifecycle import FAIL, HOLD, RETRY, Outcome
from worker.jobs.core.endpoint_health import ALONE, Verdict
from worker.jobs.core.retry import may_repeat
from worker.jobs.net import call as wire
from worker.jobs.net.call import WireRequest
from worker.jobs.net.progress import LARGE_BYTES, Progress, Reply
from worker.jobs.outcome import CANCELLED, COMPLETED, LOST, End, close, close_broken, follows, plain, released
from worker.jobs.store.claim import Claim, claim
from worker.jobs.store.record import AttemptRecord, RecordedAttempt, record
from worker.pool import running_task
from worker.pool.running_task import Reason, absorb_cancellation
from worker.process.worker_process import WorkerProcess
from worker.store.engine import describe
from worker.store.group_commit import undisturbed
from worker.store.transitions import ClaimRequest

# What a claim may bring into memory is not known before; a transaction takes at most some of them.
CLAIM_BYTES = 128 * 1024
# What the line of an attempt tells of it.
REPORTED = (
    "error_code", "http_status", "billed", "request_id", "retry_after_s", "prompt_tokens", "completion_tokens",
    "cached_tokens", "reasoning_tokens",
)  # fmt: skip

log = structlog.get_logger()


# Another worker's configuration names the endpoint and ours does not: somebody is deploying.
UNKNOWN = Reply(
    failure(ErrorCode.unknown_endpoint, sent=False), None, False, None, None, None, None, 0.0, b"", "identity", {}
)
# Somebody deleted its request: nothing can be sent, now or later.
MISSING = Reply(
    failure(ErrorCode.internal_error, sent=False), None, False, None, None, None, None, 0.0, b"", "identity", {}
)
MISSING_END = End(FAIL, Outcome.failed, counts=False)
UNKNOWN_END = End(HOLD, Outcome.released, counts=False, delay_s=30.0, waiting_for="endpoint_paused")


async def attempt(host: WorkerProcess, job_id: str) -> None:
    """Make one attempt at a job, if it is due and nobody else has it."""
    with host.holds(job_id):
        got = await host.batcher.submit(claim, ClaimRequest(job_id, host.worker_id), size=CLAIM_BYTES)
        if got is None:
            log.debug("claim.lost", job_id=job_id)
            return
        with bound_contextvars(job_id=got.job_id, attempt=got.attempt):
            closing, recorded = await _bought(host, got)
            _report(got, closing, moved=recorded.moved)
    host.webhooks.announce(recorded.deliveries)
    if recorded.moved and closing.move is not None and not closing.move.final:
        host.dispatcher.wake(closing.delay_s)


async def _bought(host: WorkerProcess, got: Claim) -> tuple[AttemptRecord, RecordedAttempt]:
    """Make the request and record what came of it, whatever breaks; say whether the job moved."""
    reply = None
    try:
        reply, end, usage_requested = await _make_request(host, got)
        closing = await _put_into_columns(got, reply, end, usage_requested=usage_requested)
        return closing, await _written(host, closing)
    except Exception as error:
        # Ours, not the endpoint's: the job must not stay with a process that has forgotten it, nor a paid answer go.
        log.error("attempt.broken", **describe(error))
    closing = close_broken(got, reply, host.settings.endpoints.get(got.endpoint), jitter=_chance())
    try:
        return closing, await _written(host, closing)
    except Exception as error:
        log.error("answer.lost", bytes=len(closing.answer["raw"]) if closing.answer else 0, **describe(error))
    closing = replace(closing, answer=None)
    return closing, await _written(host, closing)


async def _written(host: WorkerProcess, closing: AttemptRecord) -> RecordedAttempt:
    """Record a closing; raises only when the database refuses this closing and no plain one."""
    return await host.batcher.submit(record, closing, size=_size(closing), plain=lambda: plain(closing))


async def _make_request(host: WorkerProcess, got: Claim) -> tuple[Reply, End, bool]:
    """Make the one request of this attempt; say what came of it, what follows, and whether usage was asked for."""
    if got.body is None:
        log.error("request.missing")
        return MISSING, MISSING_END, False
    endpoint = host.settings.endpoints.get(got.endpoint)
    if endpoint is None:
        log.error("endpoint.unknown", endpoint=got.endpoint)
        return UNKNOWN, UNKNOWN_END, False
    streamed = got.streamed or endpoint.upstream == "stream"
    body, usage_requested = wire_body(got.body, streamed=streamed, asks_usage=got.endpoint not in host.usage_refused)
    request = WireRequest(
        body=body,
        streamed=streamed,
        n=got.choices,
        idempotency_key=idempotency_key(got.job_id, got.generation),
        attempt_id=f"{got.job_id}.{got.attempt}",
        timeout_s=max(0.001, min(got.timeout_s, got.left_s)),
        traceparent=got.traceparent,
    )
    reply, end = await _call(host, got, endpoint, request)
    if usage_requested and refuses_our_usage(reply.failure):
        # What we added is at fault, not the job: once more without it, and without asking this endpoint again.
        log.warning("endpoint.refuses_usage", endpoint=got.endpoint)
        host.usage_refused.add(got.endpoint)
        end = End(RETRY, Outcome.failed, waiting_for="retry", counts=False)
    return reply, end, usage_requested


async def _put_into_columns(got: Claim, reply: Reply, end: End, *, usage_requested: bool) -> AttemptRecord:
    if reply.body_bytes < LARGE_BYTES:
        return close(got, reply, end, usage_requested=usage_requested)
    work = asyncio.to_thread(close, got, reply, end, usage_requested=usage_requested)
    return await undisturbed(asyncio.ensure_future(work))


async def _call(host: WorkerProcess, got: Claim, endpoint: Endpoint, request: WireRequest) -> tuple[Reply, End]:
    """Call, and say what the job does next; a call that is cut short keeps what had come."""
    reply, end = await _reply(host, got, endpoint, request)
    if end is not None:
        return reply, end
    return reply, follows_of(got, endpoint, reply, await host.health.judge(got, endpoint, reply))


async def _reply(host: WorkerProcess, got: Claim, endpoint: Endpoint, request: WireRequest) -> tuple[Reply, End | None]:
    """Make the call; the end of it where it was cut short and the cut says what follows."""
    progress = Progress()
    try:
        reply = await wire.call(host.clients[got.endpoint], endpoint, request, progress)
    except asyncio.CancelledError:
        reason = running_task.reason()
        if reason is None:
            raise
        absorb_cancellation()
        await progress.finish(reset=True)
        reply, end = _interrupted(got, progress, reason)
        return reply, COMPLETED if reply.failure is None else end
    return reply, None


def follows_of(got: Claim, endpoint: Endpoint, reply: Reply, verdict: Verdict) -> End:
    """Return what follows a reply, with a chance of its own."""
    found = reply.failure
    if found is None:
        return COMPLETED
    partial, ambiguous = endpoint.retry_partial, endpoint.retry_ambiguous
    if not may_repeat(found, retry_partial=partial, retry_ambiguous=ambiguous):
        # Whoever's trouble it is: a second request might be a second bill.
        found, verdict = replace(found, retryable=False, trouble="job"), ALONE
    return follows(got, found, reply, verdict=verdict, jitter=_chance())


def _chance() -> float:
    return random.random()  # noqa: S311  spreads retries, keeps no secret


def _interrupted(got: Claim, progress: Progress, reason: Reason) -> tuple[Reply, End | None]:
    """Say what had come of a call that was cut, and why the cut; None: it follows from the failure."""
    if reason is Reason.soft_limit:
        return progress.reply(ErrorCode.total_timeout), None
    if reason is Reason.revoked:
        return progress.cut(ErrorCode.cancelled), CANCELLED
    reply = progress.cut(ErrorCode.worker_lost)
    return reply, LOST if reason is Reason.lease_lost else released(got, reply)


def idempotency_key(job_id: str, generation: int) -> str:
    """Return the key that every attempt of a job carries; a replay is another generation of it."""
    return job_id if generation == 0 else f"{job_id}-{generation}"


def _size(closing: AttemptRecord) -> int:
    if closing.answer is None:
        return 0
    return len(closing.answer["raw"]) * 3 + 2 * len(closing.answer.get("response") or "")


def _report(got: Claim, closing: AttemptRecord, *, moved: bool) -> None:
    """Write the one line of this attempt. Never a prompt, a completion or a key."""
    line = log.info if closing.outcome is Outcome.completed else log.warning
    facts = {name: closing.attempt[name] for name in REPORTED if closing.attempt.get(name) is not None}
    if closing.move is not None and not closing.move.final:
        facts["again_in_s"] = round(closing.delay_s, 3)
    line(
        f"attempt.{closing.outcome}",
        tenant=got.tenant,
        endpoint=got.endpoint,
        model=got.model,
        waited_s=round(max(0.0, got.waited_s), 3),
        elapsed_s=round(closing.elapsed_s, 3),
        moved=closing.move.name if moved and closing.move is not None else None,
        **facts,
    )
