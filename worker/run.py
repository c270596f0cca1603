"""The story of one attempt at a job: claim, call, decide, record. Reads top to bottom."""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from structlog.contextvars import bound_contextvars

from worker.chat.error_response import refuses_our_usage
from worker.chat.request import wire_body
from worker.core.endpoint import Endpoint
from worker.core.failure import ErrorCode, failure
from worker.core.lifecycle import Outcome
from worker.jobs.core.retry import (
    CANCELLED,
    COMPLETED,
    LEASE_LOST,
    NOTHING_TO_SEND,
    UNKNOWN_ENDPOINT,
    WITHOUT_USAGE,
    JobDecision,
    decide,
    release,
)
from worker.jobs.endpoint_monitor import EndpointMonitor
from worker.jobs.net.call import Clients, WireRequest, call
from worker.jobs.net.progress import LARGE_BYTES, Progress, Reply
from worker.jobs.outcome import bare_reply, budget_of, build_broken_record, build_record, plain_record
from worker.jobs.store.claim import Claim
from worker.jobs.store.claim import claim as claim_jobs
from worker.jobs.store.record import AttemptRecord, RecordedAttempt
from worker.jobs.store.record import record as record_attempts
from worker.pool import running_task
from worker.pool.running_calls import RunningCalls
from worker.pool.running_task import Reason, absorb_cancellation
from worker.store.engine import describe
from worker.store.group_commit import Batcher, undisturbed
from worker.store.transitions import ClaimRequest

# An estimate: the size of a request is known only after its claim. It limits the claims of one transaction.
CLAIM_BYTES = 128 * 1024
# The columns of the attempt that its log line shows.
REPORTED = (
    "error_code", "http_status", "billed", "request_id", "retry_after_s", "prompt_tokens", "completion_tokens",
    "cached_tokens", "reasoning_tokens",
)  # fmt: skip
_CODES_OF_CUTS: Final[Mapping[Reason, ErrorCode]] = {
    Reason.soft_limit: ErrorCode.total_timeout,
    Reason.revoked: ErrorCode.cancelled,
    Reason.shutdown: ErrorCode.worker_lost,
    Reason.lease_lost: ErrorCode.worker_lost,
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AttemptContext:
    """The parts of the process that an attempt uses.

    `worker_id()`: the id of the lease, which changes when the lease is lost. `clients`: by the endpoint's name.
    `announce` nudges deliveries, `wake` makes the dispatcher look again after some seconds. `usage_refused`: endpoints
    that refuse the field `stream_options`, by which we ask for the usage of a stream.
    """

    worker_id: Callable[[], str]
    writer: Batcher
    endpoints: Mapping[str, Endpoint]
    clients: Clients
    monitor: EndpointMonitor
    announce: Callable[[Iterable[str]], None]
    wake: Callable[[float], None]
    running: RunningCalls = field(default_factory=RunningCalls)
    usage_refused: set[str] = field(default_factory=set)


async def attempt(context: AttemptContext, job_id: str) -> None:
    """Make one attempt at a job, if it is due and no other worker has claimed it."""
    with context.running.tracking(job_id):
        claim = await _claim(context, job_id)
        if claim is None:
            log.debug("claim.lost", job_id=job_id)
            return
        with bound_contextvars(job_id=claim.job_id, attempt=claim.attempt):
            record, recorded = await _call_and_record(context, claim)
            _report(claim, record, recorded)
    context.announce(recorded.deliveries)
    if recorded.moved and record.move is not None and not record.move.final:
        context.wake(record.delay_s)


async def _claim(context: AttemptContext, job_id: str) -> Claim | None:
    return await context.writer.submit(claim_jobs, ClaimRequest(job_id, context.worker_id()), size=CLAIM_BYTES)


async def _call_and_record(context: AttemptContext, claim: Claim) -> tuple[AttemptRecord, RecordedAttempt]:
    """Make the request and record its result, even if our own code fails on it."""
    reply = None
    try:
        reply, decision, usage_requested = await _call(context, claim)
        record = await _build_record(claim, reply, decision, usage_requested=usage_requested)
        return record, await _record(context, record)
    except Exception as error:
        # Without a record the job would stay with a process that has forgotten it, and a paid answer would be lost.
        log.error("attempt.broken", **describe(error))
    record = build_broken_record(claim, reply, context.endpoints.get(claim.endpoint), jitter=_jitter())
    try:
        return record, await _record(context, record)
    except Exception as error:
        log.error("answer.lost", bytes=len(record.answer["raw"]) if record.answer else 0, **describe(error))
    record = replace(record, answer=None)
    return record, await _record(context, record)


async def _call(context: AttemptContext, claim: Claim) -> tuple[Reply, JobDecision, bool]:
    """Make the one request of this attempt and decide; the bool says whether the request asked for usage."""
    if claim.body is None:
        log.error("request.missing")
        return bare_reply(failure(ErrorCode.internal_error, sent=False), sent=False), NOTHING_TO_SEND, False
    endpoint = context.endpoints.get(claim.endpoint)
    if endpoint is None:
        log.error("endpoint.unknown", endpoint=claim.endpoint)
        return bare_reply(failure(ErrorCode.unknown_endpoint, sent=False), sent=False), UNKNOWN_ENDPOINT, False
    streamed = claim.streamed or endpoint.upstream == "stream"
    asks_usage = claim.endpoint not in context.usage_refused
    body, usage_requested = wire_body(claim.body, streamed=streamed, asks_usage=asks_usage)
    request = WireRequest(
        body=body,
        streamed=streamed,
        n=claim.choices,
        idempotency_key=idempotency_key(claim.job_id, claim.generation),
        attempt_id=f"{claim.job_id}.{claim.attempt}",
        timeout_s=max(0.001, min(claim.timeout_s, claim.left_s)),
        traceparent=claim.traceparent,
    )
    reply, decision = await _call_endpoint(context, claim, endpoint, request)
    if usage_requested and refuses_our_usage(reply.failure):
        log.warning("endpoint.refuses_usage", endpoint=claim.endpoint)
        context.usage_refused.add(claim.endpoint)
        decision = WITHOUT_USAGE
    return reply, decision, usage_requested


async def _call_endpoint(
    context: AttemptContext, claim: Claim, endpoint: Endpoint, request: WireRequest
) -> tuple[Reply, JobDecision]:
    """Call, then decide; a call that is cut short keeps the part of the answer that had come."""
    progress = Progress()
    try:
        reply = await call(context.clients[claim.endpoint], endpoint, request, progress)
    except asyncio.CancelledError:
        reason = running_task.reason()
        if reason is None:
            raise
        absorb_cancellation()
        await progress.finish(reset=True)
        reply = progress.reply(_CODES_OF_CUTS[reason])
        if reply.failure is None:
            return reply, COMPLETED
        if reason is not Reason.soft_limit:
            return reply, _decide_cut(claim, endpoint, reply, reason)
    return reply, await _decide(context, claim, endpoint, reply)


async def _decide(context: AttemptContext, claim: Claim, endpoint: Endpoint, reply: Reply) -> JobDecision:
    verdict = await context.monitor.classify(claim, endpoint, reply)
    budget = budget_of(claim, reply, endpoint)
    return decide(reply.failure, budget, verdict=verdict, sent=reply.sent, jitter=_jitter())


def _decide_cut(claim: Claim, endpoint: Endpoint, reply: Reply, reason: Reason) -> JobDecision:
    """Decide the next step after a call that we ended before its answer was complete."""
    assert reply.failure is not None
    if reason is Reason.revoked:
        return CANCELLED
    if reason is Reason.lease_lost:
        return LEASE_LOST
    return release(reply.failure, budget_of(claim, reply, endpoint), sent=reply.sent)


def _jitter() -> float:
    return random.random()  # noqa: S311  spreads retries, keeps no secret


async def _build_record(claim: Claim, reply: Reply, decision: JobDecision, *, usage_requested: bool) -> AttemptRecord:
    if reply.body_bytes < LARGE_BYTES:
        return build_record(claim, reply, decision, usage_requested=usage_requested)
    # A large answer takes long to convert, and the loop must turn.
    work = asyncio.to_thread(build_record, claim, reply, decision, usage_requested=usage_requested)
    return await undisturbed(asyncio.ensure_future(work))


async def _record(context: AttemptContext, record: AttemptRecord) -> RecordedAttempt:
    """Record an attempt. Raises only if the database refuses this record and accepts it without its data."""
    size_bytes = _size_bytes(record)
    return await context.writer.submit(record_attempts, record, size=size_bytes, plain=lambda: plain_record(record))


def _size_bytes(record: AttemptRecord) -> int:
    if record.answer is None:
        return 0
    return len(record.answer["raw"]) * 3 + 2 * len(record.answer.get("response") or "")


def idempotency_key(job_id: str, generation: int) -> str:
    """Return the key that every attempt of a job sends; each replay of the job has another key."""
    return job_id if generation == 0 else f"{job_id}-{generation}"


def _report(claim: Claim, record: AttemptRecord, recorded: RecordedAttempt) -> None:
    """Write the one log line of this attempt. Never a prompt, a completion or a key."""
    write_line = log.info if record.outcome is Outcome.completed else log.warning
    facts = {name: record.attempt[name] for name in REPORTED if record.attempt.get(name) is not None}
    if record.move is not None and not record.move.final:
        facts["again_in_s"] = round(record.delay_s, 3)
    write_line(
        f"attempt.{record.outcome}",
        tenant=claim.tenant,
        endpoint=claim.endpoint,
        model=claim.model,
        waited_s=round(max(0.0, claim.waited_s), 3),
        elapsed_s=round(record.elapsed_s, 3),
        moved=record.move.name if recorded.moved and record.move is not None else None,
        **facts,
    )
