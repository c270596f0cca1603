"""The story of one delivery: claim it, sign its body, send it, decide what follows, record it. Reads top to bottom."""

import asyncio
import json
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from structlog.contextvars import bound_contextvars

from worker.core.lifecycle import (
    CANCEL_DELIVERY,
    DELIVER,
    FAIL_DELIVERY,
    RETRY_DELIVERY,
    DeliveryOutcome,
    Move,
)
from worker.core.storable_text import clean_json
from worker.pool import running_task
from worker.pool.running_task import Reason, absorb_cancellation
from worker.process.worker_process import WorkerProcess
from worker.store.engine import describe
from worker.store.transitions import ClaimRequest
from worker.webhooks.core.event import EventType, event_id_of
from worker.webhooks.core.outcome import (
    Cancel,
    Delivered,
    DeliveryErrorCode,
    Give_up,
    Postpone,
    Retry,
    SendResult,
    decide,
)
from worker.webhooks.core.payload import Variant, convenience_headers, sent_body, webhook_id
from worker.webhooks.core.receiver_health import ReceiverHealth
from worker.webhooks.core.retry_schedule import SCHEDULE_S
from worker.webhooks.core.signing import signed_headers
from worker.webhooks.net.progress import DeliveryProgress
from worker.webhooks.net.redaction import unquoted
from worker.webhooks.net.send import WebhookRequest, send
from worker.webhooks.sealed_fields import headers_of, keys_of, new_keys, public_text, seal_keys, seal_shown_url, url_of
from worker.webhooks.store.claim import DeliveryClaim
from worker.webhooks.store.record import DeliveryRecord, RecordedDelivery
from worker.webhooks.store.secrets import FirstKeys, store_first_keys
from worker.webhooks.vault import BadMasterKeys, CannotOpen, Vault, sign_ed25519

# What a claim may bring into memory is not known before; a body is 256 KiB at most.
CLAIM_BYTES = 64 * 1024
RELEASE_S = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class End:
    """What happens to the delivery. `judged`: the attempt says something about the receiver."""

    move: Move | None
    outcome: DeliveryOutcome
    counts: bool = True
    delay_s: float = 0.0
    variant: str | None = None
    judged: bool = True


async def attempt(host: WorkerProcess, delivery_id: str) -> None:
    """Make one attempt at a delivery, if it is due, nobody else has it and its receiver has room."""
    with host.holds(delivery_id):
        got = await host.webhooks.batcher.submit(
            host.webhooks.claim, ClaimRequest(delivery_id, host.worker_id), size=CLAIM_BYTES
        )
        if got is None:
            log.debug("claim.lost", delivery_id=delivery_id)
            return
        with bound_contextvars(delivery_id=got.delivery_id, job_id=got.job_id, attempt=got.attempt):
            sent, end = await _made(host, got)
            recorded = await _written(host, _closing(got, sent, end))
            _report(got, sent, end, recorded)
    host.webhooks.announce(recorded.next_ids)
    if recorded.moved and end.move is RETRY_DELIVERY:
        host.dispatcher.wake(end.delay_s)


async def _written(host: WorkerProcess, closing: DeliveryRecord) -> RecordedDelivery:
    """Record a closing; what the database refuses of the receiver's answer is left out."""
    ours = {name: closing.attempt[name] for name in ("error_code", "http_status")}
    plain = replace(closing, attempt={**ours, "is_truncated": False})
    try:
        return await host.webhooks.batcher.submit(host.webhooks.record, closing, plain=lambda: plain)
    except Exception as error:
        log.error("attempt.broken", **describe(error))
        return await host.webhooks.batcher.submit(host.webhooks.record, plain, plain=lambda: plain)


async def _made(host: WorkerProcess, got: DeliveryClaim) -> tuple[SendResult, End]:
    """Send, and say what came of it and what follows, whatever breaks."""
    receipt = DeliveryProgress()
    try:
        sent = await _tried(host, got, receipt)
    except asyncio.CancelledError:
        reason = running_task.reason()
        if reason is None:
            raise
        absorb_cancellation()
        return _interrupted(reason, was_sent=receipt.sent)
    return sent, _follows(got, sent)


async def _tried(host: WorkerProcess, got: DeliveryClaim, receipt: DeliveryProgress) -> SendResult:
    if got.body is None:
        log.error("delivery.bodiless", event_id=got.event_id, variant=got.variant)
        return SendResult(sent=False, error_code=DeliveryErrorCode.no_body)
    try:
        request = await _request(host, got, got.body)
    except (CannotOpen, BadMasterKeys) as error:
        log.error("delivery.unsigned", receiver=got.receiver, **describe(error))
        return SendResult(sent=False, error_code=DeliveryErrorCode.no_secret)
    except Exception as error:
        log.error("delivery.broken", **describe(error))
        return SendResult(sent=False, error_code=DeliveryErrorCode.internal_error)
    return unquoted(await send(host.webhooks.client, request, receipt), request.url, request.headers)


async def _request(host: WorkerProcess, got: DeliveryClaim, stored: bytes) -> WebhookRequest:
    """Return the signed request of an attempt; secrets are opened for it and forgotten with it."""
    # By the database: receivers refuse a time that is minutes off, and keys end by the clock that rotated them.
    at = datetime.fromtimestamp(got.now_s, UTC)
    vault = host.webhooks.vault
    sealed = got.keys_sealed
    if sealed is None or (got.url_sealed is None and "?" in got.url):
        # A receiver that a job's address made has no keys, and its query is not sealed, before its first delivery.
        sealed = await host.webhooks.batcher.submit(store_first_keys, _first_of(vault, got, at))
    body = sent_body(Variant(got.variant), stored, sequence=got.sequence, previous_undelivered=got.after_gap)
    event_id = event_id_of(UUID(got.event_id))
    signed = signed_headers(
        keys_of(vault, got.receiver_id, sealed),
        webhook_id(event_id, got.receiver_id),
        body,
        at=at,
        ed25519=sign_ed25519,
    )
    first = at if got.first_sent_s is None else datetime.fromtimestamp(got.first_sent_s, UTC)
    told = convenience_headers(
        EventType(got.event_type), delivery_id=got.delivery_id, attempt=got.attempt, first_attempt_at=first
    )
    url = url_of(vault, got.receiver_id, got.url, got.url_sealed)
    return WebhookRequest(
        url=url,
        body=body,
        # Ours last: no header of the receiver's replaces a signature.
        headers={**headers_of(vault, got.receiver_id, got.headers_sealed, url=url), **told, **signed},
        timeout_s=got.timeout_s,
        owner=got.tenant,
    )


def _first_of(vault: Vault, got: DeliveryClaim, at: datetime) -> FirstKeys:
    keys, _ = new_keys(at)
    sealed = seal_keys(vault, got.receiver_id, keys)
    address = seal_shown_url(vault, got.receiver_id, got.url, got.url_sealed)
    return FirstKeys(got.receiver_id, sealed, public_text(keys), *address)


def _follows(got: DeliveryClaim, sent: SendResult) -> End:
    schedule = SCHEDULE_S if got.schedule is None else tuple(json.loads(got.schedule))
    step = decide(
        sent,
        used=got.attempts_used,
        left_s=got.left_s - sent.elapsed_s,
        variant="full" if got.variant == Variant.full else "thin",
        jitter=random.random(),  # noqa: S311  spreads retries, keeps no secret
        schedule=schedule,
        # After a redelivery also all before it: what was in trouble then may be tried a little later.
        postponed=got.attempt - got.attempts_used,
    )
    match step:
        case Delivered():
            return End(DELIVER, DeliveryOutcome.delivered)
        case Retry(delay_s, _, chosen):
            variant = got.variant if got.variant == Variant.openai else chosen
            return End(RETRY_DELIVERY, DeliveryOutcome.failed, delay_s=delay_s, variant=variant)
        case Postpone(delay_s):
            return End(RETRY_DELIVERY, DeliveryOutcome.released, counts=False, delay_s=delay_s, judged=False)
        case Give_up():
            return End(FAIL_DELIVERY, DeliveryOutcome.failed)
        case Cancel():
            return End(CANCEL_DELIVERY, DeliveryOutcome.failed)


def _interrupted(reason: Reason, *, was_sent: bool) -> tuple[SendResult, End]:
    """Say what follows an attempt that we cut off: another worker asks again.

    It is one of the schedule's only if the receiver may have had it.
    """
    sent = SendResult(sent=was_sent, error_code=DeliveryErrorCode.worker_lost)
    move = None if reason is Reason.lease_lost else RETRY_DELIVERY
    outcome = DeliveryOutcome.unknown if was_sent else DeliveryOutcome.released
    return sent, End(move, outcome, counts=was_sent, delay_s=RELEASE_S, judged=False)


def _closing(got: DeliveryClaim, sent: SendResult, end: End) -> DeliveryRecord:
    return DeliveryRecord(
        delivery_id=got.delivery_id,
        number=got.attempt,
        worker_id=got.worker_id,
        receiver_id=got.receiver_id,
        tenant=got.tenant,
        move=end.move,
        outcome=end.outcome,
        was_sent=sent.sent,
        counts=end.counts,
        attempt=_columns(sent),
        variant=end.variant or got.variant,
        sent=sent if end.judged else None,
        event_at_s=got.event_at_s,
        now_s=got.now_s + sent.elapsed_s,
        delay_s=end.delay_s,
        lane=None if got.ordering_key is None else (got.ordering_key, got.sequence),
    )


def _columns(sent: SendResult) -> dict[str, Any]:
    return {
        "error_code": sent.error_code,
        "http_status": sent.http_status,
        "retry_after_s": sent.retry_after_s,
        "dns_ms": sent.dns_ms,
        "connect_ms": sent.connect_ms,
        "tls_ms": sent.tls_ms,
        "first_byte_ms": sent.ttfb_ms,
        "total_ms": round(sent.elapsed_s * 1000),
        "response_headers": clean_json(dict(sent.response_headers)) if sent.response_headers else None,
        "response_body": sent.response_body or None,
        "is_truncated": sent.truncated,
        "peer": sent.peer,
    }


def _report(got: DeliveryClaim, sent: SendResult, end: End, recorded: RecordedDelivery) -> None:
    """Write the one line of this attempt, and one for what the receiver has become. Never a URL, a body or a secret."""
    who = {"tenant": got.tenant, "receiver": got.receiver}
    line = log.info if end.outcome is DeliveryOutcome.delivered else log.warning
    again = {"again_in_s": round(end.delay_s, 3)} if end.move is RETRY_DELIVERY else {}
    line(
        f"delivery.{end.outcome}",
        event_type=got.event_type,
        http_status=sent.http_status,
        error_code=sent.error_code,
        elapsed_s=round(sent.elapsed_s, 3),
        moved=end.move.name if recorded.moved and end.move is not None else None,
        **who,
        **again,
    )
    before, after = recorded.before or ReceiverHealth(), recorded.after or ReceiverHealth()
    if after.disabled is not None and before.disabled is None:
        log.error("receiver.disabled", reason=after.disabled, **who)
    elif after.warned_h > before.warned_h:
        log.error("receiver.failing", hours=after.warned_h, **who)
    if after.ramp and not before.ramp:
        log.warning("receiver.paused", seconds=after.open_s, **who)
    elif before.ramp and not after.ramp:
        log.info("receiver.resumed", **who)
