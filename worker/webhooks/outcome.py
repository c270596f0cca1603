"""Build the record of an attempt at a delivery from the result and the decision."""

from dataclasses import replace
from typing import Any

from worker.core.storable_text import clean_json
from worker.webhooks.core.outcome import SendResult
from worker.webhooks.core.retry import DeliveryDecision
from worker.webhooks.store.claim import DeliveryClaim
from worker.webhooks.store.record import DeliveryRecord


def build_record(claim: DeliveryClaim, result: SendResult, decision: DeliveryDecision) -> DeliveryRecord:
    """Build the record of an attempt."""
    return DeliveryRecord(
        delivery_id=claim.delivery_id,
        number=claim.attempt,
        worker_id=claim.worker_id,
        receiver_id=claim.receiver_id,
        tenant=claim.tenant,
        move=decision.move,
        outcome=decision.outcome,
        was_sent=result.sent,
        counts=decision.counts,
        attempt=_attempt_columns(result),
        variant=decision.variant or claim.variant,
        result=result if decision.affects_health else None,
        event_at_s=claim.event_at_s,
        now_s=claim.now_s + result.elapsed_s,
        delay_s=decision.delay_s,
        lane=None if claim.ordering_key is None else (claim.ordering_key, claim.sequence),
    )


def plain_record(record: DeliveryRecord) -> DeliveryRecord:
    """Return the record without the data of the receiver's response: the database may refuse that data."""
    ours = {name: record.attempt[name] for name in ("error_code", "http_status")}
    return replace(record, attempt={**ours, "is_truncated": False})


def _attempt_columns(result: SendResult) -> dict[str, Any]:
    headers = result.response_headers
    return {
        "error_code": result.error_code,
        "http_status": result.http_status,
        "retry_after_s": result.retry_after_s,
        "dns_ms": result.dns_ms,
        "connect_ms": result.connect_ms,
        "tls_ms": result.tls_ms,
        "first_byte_ms": result.ttfb_ms,
        "total_ms": round(result.elapsed_s * 1000),
        "response_headers": clean_json(dict(headers)) if headers else None,
        "response_body": result.response_body or None,
        "is_truncated": result.truncated,
        "peer": result.peer,
    }
