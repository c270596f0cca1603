"""Deliveries in SQL: receivers, ended jobs, claims, and the records that close an attempt."""

import json
import uuid
from dataclasses import replace
from typing import Any

from sqlalchemy import Engine, insert

from tests.store.made import accept_all, entry, job, rows
from worker.core.lifecycle import DELIVER, RETRY_DELIVERY, DeliveryOutcome
from worker.jobs.store import cancel
from worker.store.clock import now
from worker.store.transitions import ClaimRequest
from worker.webhooks.core.outcome import DeliveryErrorCode, SendResult
from worker.webhooks.store.claim import DeliveryClaim, claim
from worker.webhooks.store.record import DeliveryRecord, RecordedDelivery, record
from worker.webhooks.store.tables import receivers

DELIVERIES = "SELECT * FROM webhook_deliveries_v1 ORDER BY created_at, sequence, id"


def receiver(engine: Engine, name: str = "mine", **changes: Any) -> str:
    receiver_id = str(uuid.uuid4())
    row = {
        "id": receiver_id, "tenant": "default", "name": name, "url": "https://example.com/hooks", "is_default": True,
        "events": json.dumps(["job.*"]), "payload": "auto", "profile": "afterword", "timeout_s": 15.0, "in_flight": 10,
        "ordering": "none", "on_exhausted": "skip", "status": "enabled", **changes,
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(receivers).values(created_at=now()), [row])
    return receiver_id


def ended(engine: Engine, **fields: Any) -> str:
    """Accept a job and end it; return its id."""
    job_id = str(uuid.uuid4())
    accept_all(engine, entry(job(**fields), id=job_id))
    with engine.begin() as connection:
        cancel.cancel(connection, [job_id])
    return job_id


def delivery_ids(engine: Engine) -> list[str]:
    return [str(row.id) for row in rows(engine, DELIVERIES)]


def claimed(engine: Engine, worker_id: str, *delivery_ids: str, slots: int = 100) -> list[DeliveryClaim | None]:
    with engine.begin() as connection:
        return claim(connection, [ClaimRequest(one, worker_id) for one in delivery_ids], slots=slots)


def delivery_record(got: DeliveryClaim, **changes: Any) -> DeliveryRecord:
    """Return the record of an attempt that delivered, with `changes`."""
    usual = DeliveryRecord(
        delivery_id=got.delivery_id, number=got.attempt, worker_id=got.worker_id, receiver_id=got.receiver_id,
        tenant=got.tenant, move=DELIVER, outcome=DeliveryOutcome.delivered, was_sent=True, counts=True,
        attempt={"http_status": 204, "is_truncated": False},
        variant=got.variant, result=SendResult(sent=True, error_code=None, http_status=204), event_at_s=got.event_at_s,
        now_s=got.now_s, lane=None if got.ordering_key is None else (got.ordering_key, got.sequence),
    )  # fmt: skip
    return replace(usual, **changes)


def recorded(engine: Engine, *records: DeliveryRecord, slots: int = 100) -> list[RecordedDelivery]:
    with engine.begin() as connection:
        return record(connection, records, slots=slots)


def refused(got: DeliveryClaim, **changes: Any) -> DeliveryRecord:
    failed = {"error_code": DeliveryErrorCode.unavailable, "http_status": 503, "is_truncated": False}
    sent = SendResult(sent=True, error_code=DeliveryErrorCode.unavailable, http_status=503)
    values = {"move": RETRY_DELIVERY, "outcome": DeliveryOutcome.failed, "attempt": failed, "result": sent, **changes}
    return delivery_record(got, **values)
