"""The dispatcher's part for webhooks on a real Redis and both databases: what it puts away, and who goes next."""

import uuid
from collections import Counter
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, insert

from tests.store.made import rows
from tests.store.test_deliveries import receiver
from worker.core.lifecycle import DeliveryStatus
from worker.delivering import Delivering
from worker.store import webhook_dispatch
from worker.store.clock import from_now
from worker.store.webhook_tables import deliveries

HELD, QUEUED = DeliveryStatus.held, DeliveryStatus.queued
DAY_S = 86400.0


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


def delivering(engine: Engine, redis: Redis, *, slots: int = 20) -> Delivering:
    return Delivering(engine, redis, window_s=2.0, slots=slots)


def waiting(engine: Engine, receiver_id: str, count: int, *, age_s: float = 0.0, **changes: Any) -> None:
    """Write deliveries of an age to a receiver; they are queued and due unless told otherwise."""
    row = {
        "receiver_id": receiver_id, "tenant": "default", "event_type": "job.completed", "status": QUEUED,
        "variant": "thin", "origin": "event", "sequence": 1, **changes,
    }  # fmt: skip
    made = [{**row, "id": str(uuid.uuid4()), "event_id": str(uuid.uuid4())} for _ in range(count)]
    times = {"run_at": from_now(-age_s), "created_at": from_now(-age_s), "deadline": from_now(DAY_S)}
    with engine.begin() as connection:
        connection.execute(insert(deliveries).values(**times), made)


def test_all_that_was_on_hold_for_thirty_days_is_cancelled_and_nothing_younger(engine: Engine, redis: Redis) -> None:
    off, other = (receiver(engine, name, status="disabled") for name in ("off", "other"))
    old, young = 2 * webhook_dispatch.BATCH + 1, 3
    waiting(engine, off, old, age_s=30 * DAY_S + 60, status=HELD)
    waiting(engine, off, young, age_s=29 * DAY_S, status=HELD)
    waiting(engine, other, 2, age_s=31 * DAY_S, status=HELD)

    delivering(engine, redis).look_after()

    found = rows(engine, "SELECT receiver_id, status FROM afterword_deliveries")
    counted = Counter((str(row.receiver_id), row.status) for row in found)
    assert counted == {(off, "cancelled"): old, (off, "held"): young, (other, "cancelled"): 2}
