"""The story of one attempt at a delivery: claim, send, decide, record. Reads top to bottom."""

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog
from structlog.contextvars import bound_contextvars

from worker.core.lifecycle import RETRY_DELIVERY, DeliveryOutcome
from worker.pool import running_task
from worker.pool.running_calls import RunningCalls
from worker.pool.running_task import Reason, absorb_cancellation
from worker.store.engine import describe
from worker.store.group_commit import Batcher, StoreFunction
from worker.store.transitions import ClaimRequest
from worker.webhooks.core.outcome import DeliveryErrorCode, SendResult
from worker.webhooks.core.payload import Variant
from worker.webhooks.core.receiver_health import ReceiverHealth
from worker.webhooks.core.retry import DeliveryDecision, decide, release
from worker.webhooks.core.retry_schedule import SCHEDULE_S
from worker.webhooks.net.progress import DeliveryProgress
from worker.webhooks.net.redaction import unquoted
from worker.webhooks.net.send import WebhookClient, WebhookRequest, send
from worker.webhooks.outcome import build_record, plain_record
from worker.webhooks.signed_request import build_request, first_keys, needs_keys
from worker.webhooks.store.claim import DeliveryClaim
from worker.webhooks.store.record import DeliveryRecord, RecordedDelivery
from worker.webhooks.store.secrets import store_first_keys
from worker.webhooks.vault import BadMasterKeys, CannotOpen, Vault

# An estimate: the size of a body is known only after its claim. It limits the claims of one transaction.
CLAIM_BYTES = 64 * 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """The parts of the process that an attempt uses.

    `worker_id()`: the id of the lease, which changes when the lease is lost. `claim` and `record`: the store's
    functions, bound to the slots of this process. `announce` nudges deliveries, `wake` makes the dispatcher look again
    after some seconds.
    """

    worker_id: Callable[[], str]
    writer: Batcher
    claim: StoreFunction[ClaimRequest, DeliveryClaim | None]
    record: StoreFunction[DeliveryRecord, RecordedDelivery]
    client: WebhookClient
    secret_keys: Sequence[str]
    announce: Callable[[Iterable[str]], None]
    wake: Callable[[float], None]
    running: RunningCalls = field(default_factory=RunningCalls)


async def attempt(context: DeliveryContext, delivery_id: str) -> None:
    """Make one attempt at a delivery, if it is due, no other worker has claimed it and its receiver has room."""
    with context.running.tracking(delivery_id):
        claim = await _claim(context, delivery_id)
        if claim is None:
            log.debug("claim.lost", delivery_id=delivery_id)
            return
        with bound_contextvars(delivery_id=claim.delivery_id, job_id=claim.job_id, attempt=claim.attempt):
            result, decision = await _send(context, claim)
            recorded = await _record(context, build_record(claim, result, decision))
            _report(claim, result, decision, recorded)
    context.announce(recorded.next_ids)
    if recorded.moved and decision.move is RETRY_DELIVERY:
        context.wake(decision.delay_s)


async def _claim(context: DeliveryContext, delivery_id: str) -> DeliveryClaim | None:
    return await context.writer.submit(context.claim, ClaimRequest(delivery_id, context.worker_id()), size=CLAIM_BYTES)


async def _send(context: DeliveryContext, claim: DeliveryClaim) -> tuple[SendResult, DeliveryDecision]:
    """Send, then decide; an attempt that is cut short is made again by another worker."""
    progress = DeliveryProgress()
    try:
        result = await _send_signed(context, claim, progress)
    except asyncio.CancelledError:
        reason = running_task.reason()
        if reason is None:
            raise
        absorb_cancellation()
        result = SendResult(sent=progress.sent, error_code=DeliveryErrorCode.worker_lost)
        return result, release(sent=progress.sent, lease_lost=reason is Reason.lease_lost)
    return result, _decide(claim, result)


async def _send_signed(context: DeliveryContext, claim: DeliveryClaim, progress: DeliveryProgress) -> SendResult:
    """Sign the body and send it; a fault of ours before the request goes out becomes a result too."""
    if claim.body is None:
        log.error("delivery.bodiless", event_id=claim.event_id, variant=claim.variant)
        return SendResult(sent=False, error_code=DeliveryErrorCode.no_body)
    try:
        request = await _build_request(context, claim, claim.body)
    except (CannotOpen, BadMasterKeys) as error:
        log.error("delivery.unsigned", receiver=claim.receiver, **describe(error))
        return SendResult(sent=False, error_code=DeliveryErrorCode.no_secret)
    except Exception as error:
        log.error("delivery.broken", **describe(error))
        return SendResult(sent=False, error_code=DeliveryErrorCode.internal_error)
    return unquoted(await send(context.client, request, progress), request.url, request.headers)


async def _build_request(context: DeliveryContext, claim: DeliveryClaim, body: bytes) -> WebhookRequest:
    vault, keys_sealed = Vault(context.secret_keys), claim.keys_sealed
    if needs_keys(claim):
        keys_sealed = await context.writer.submit(store_first_keys, first_keys(vault, claim))
    return build_request(vault, claim, body, keys_sealed)


def _decide(claim: DeliveryClaim, result: SendResult) -> DeliveryDecision:
    return decide(
        result,
        used=claim.attempts_used,
        left_s=claim.left_s - result.elapsed_s,
        variant=Variant(claim.variant),
        jitter=random.random(),  # noqa: S311  spreads retries, keeps no secret
        schedule=SCHEDULE_S if claim.schedule is None else tuple(json.loads(claim.schedule)),
        # After a redelivery all earlier attempts are in this number: the wait may be a little longer then.
        postponed=claim.attempt - claim.attempts_used,
    )


async def _record(context: DeliveryContext, record: DeliveryRecord) -> RecordedDelivery:
    """Record an attempt; if the database refuses data of the receiver's response, record it without them."""
    plain = plain_record(record)
    try:
        return await context.writer.submit(context.record, record, plain=lambda: plain)
    except Exception as error:
        log.error("attempt.broken", **describe(error))
        return await context.writer.submit(context.record, plain, plain=lambda: plain)


def _report(claim: DeliveryClaim, result: SendResult, decision: DeliveryDecision, recorded: RecordedDelivery) -> None:
    """Write the one log line of this attempt. Never a URL, a body or a secret."""
    write_line = log.info if decision.outcome is DeliveryOutcome.delivered else log.warning
    facts = {"again_in_s": round(decision.delay_s, 3)} if decision.move is RETRY_DELIVERY else {}
    write_line(
        f"delivery.{decision.outcome}",
        event_type=claim.event_type,
        http_status=result.http_status,
        error_code=result.error_code,
        elapsed_s=round(result.elapsed_s, 3),
        moved=decision.move.name if recorded.moved and decision.move is not None else None,
        tenant=claim.tenant,
        receiver=claim.receiver,
        **facts,
    )
    _report_receiver(claim, recorded)


def _report_receiver(claim: DeliveryClaim, recorded: RecordedDelivery) -> None:
    """Write a line if this attempt disabled, warned about, paused or resumed the receiver."""
    names = {"tenant": claim.tenant, "receiver": claim.receiver}
    before, after = recorded.before or ReceiverHealth(), recorded.after or ReceiverHealth()
    if after.disabled is not None and before.disabled is None:
        log.error("receiver.disabled", reason=after.disabled, **names)
    elif after.warned_h > before.warned_h:
        log.error("receiver.failing", hours=after.warned_h, **names)
    if after.ramp and not before.ramp:
        log.warning("receiver.paused", seconds=after.open_s, **names)
    elif before.ramp and not after.ramp:
        log.info("receiver.resumed", **names)
