"""Receivers and deliveries for the tests of webhooks, and the state of a delivery."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, insert, select

from worker.core.lifecycle import DELIVER, DELIVERY_ENDED, DeliveryOutcome, DeliveryStatus
from worker.store.clock import from_now, now
from worker.store.transitions import ClaimRequest
from worker.webhooks import sealed_fields
from worker.webhooks.core.registration import Registration, read_registration
from worker.webhooks.store import receivers
from worker.webhooks.store.claim import DeliveryClaim, claim
from worker.webhooks.store.receivers import Receiver, Sealed
from worker.webhooks.store.record import DeliveryRecord, record
from worker.webhooks.store.tables import deliveries, events
from worker.webhooks.vault import Vault, new_master_key

MASTER = new_master_key()
VAULT = Vault([MASTER])
URL = "https://hooks.example.com/in?token=geheim"


def registration(name: str = "billing", **values: Any) -> Registration:
    read = read_registration(name, values)
    assert isinstance(read, Registration), read
    return read


def sealed(receiver_id: str, *, vault: Vault = VAULT, url: str = URL) -> Sealed:
    keys, _ = sealed_fields.new_keys(datetime.fromisoformat("2026-11-23T03:14:15+00:00"))
    shown, hidden = sealed_fields.seal_url(vault, receiver_id, url)
    headers = sealed_fields.seal_headers(vault, receiver_id, {"X-Key": "geheim"}, url=url)
    return Sealed(
        shown, hidden, headers, sealed_fields.seal_keys(vault, receiver_id, keys), sealed_fields.public_text(keys)
    )


def receiver(engine: Engine, name: str = "billing", *, vault: Vault = VAULT, **values: Any) -> Receiver:
    new = str(uuid.uuid4())
    with engine.begin() as connection:
        assert receivers.add(connection, new, registration(name, **values), sealed(new, vault=vault))
    return found(engine, new)


def found(engine: Engine, receiver_id: str) -> Receiver:
    with engine.begin() as connection:
        known = receivers.by_id(connection, receiver_id)
    assert known is not None
    return known


def delivery(
    engine: Engine,
    to: Receiver,
    status: DeliveryStatus = DeliveryStatus.queued,
    *,
    key: str | None = None,
    sequence: int = 1,
    age_s: float = 60.0,
    **columns: Any,
) -> str:
    """Write a delivery of a new event; a delivery that has ended has used all its attempts."""
    new, event = str(uuid.uuid4()), str(uuid.uuid4())
    over = status in DELIVERY_ENDED
    values = {
        "id": new, "event_id": event, "receiver_id": to.id, "tenant": "default", "event_type": "job.completed",
        "status": status, "created_at": from_now(-age_s), "run_at": now(), "deadline": from_now(3600.0),
        "variant": "thin", "origin": "event", "ordering_key": key, "sequence": sequence,
        "attempt": 11 if over else 0, "attempts_used": 11 if over else 0, "finished_at": now() if over else None,
    }  # fmt: skip
    body = {"id": event, "tenant": "default", "type": "job.completed", "thin": f'{{"id":"{event}"}}'.encode()}
    with engine.begin() as connection:
        connection.execute(insert(events).values(created_at=now(), **body))
        connection.execute(insert(deliveries).values(**(values | columns)))
    return new


def waiting(engine: Engine, to: Receiver, *, key: str, sequence: int, **columns: Any) -> str:
    """Write a delivery that waits for its turn in its lane."""
    return delivery(
        engine, to, key=key, sequence=sequence, run_at=from_now(3600.0), **({"waiting_for": "order"} | columns)
    )


def state_of(engine: Engine, delivery_id: str) -> Any:
    """Return a delivery's row; `due` is true when `run_at` has passed."""
    due = (deliveries.c.run_at <= now()).label("due")
    with engine.begin() as connection:
        return connection.execute(select(deliveries, due).where(deliveries.c.id == delivery_id)).one()


def statuses(engine: Engine, *delivery_ids: str) -> list[str]:
    return [state_of(engine, one).status for one in delivery_ids]


def claimed(engine: Engine, worker_id: str, delivery_id: str) -> DeliveryClaim | None:
    with engine.begin() as connection:
        return claim(connection, [ClaimRequest(delivery_id, worker_id)], slots=100)[0]


def delivered(engine: Engine, claim: DeliveryClaim) -> tuple[str, ...]:
    """Record that the delivery arrived; return the ids that may go next."""
    lane = None if claim.ordering_key is None else (claim.ordering_key, claim.sequence)
    closing = DeliveryRecord(
        claim.delivery_id, claim.attempt, claim.worker_id, claim.receiver_id, claim.tenant, DELIVER,
        DeliveryOutcome.delivered, was_sent=True, counts=True, attempt={"is_truncated": False}, variant="thin",
        lane=lane,
    )  # fmt: skip
    with engine.begin() as connection:
        return record(connection, [closing], slots=100)[0].next_ids
