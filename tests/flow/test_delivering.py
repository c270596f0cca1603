"""The dispatcher's webhook part on a real Redis and both databases: deliveries put on hold, and the next ones to
send."""

import uuid
from collections import Counter
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, insert

from tests.store.made import rows
from tests.webhooks.store.delivery_attempts import receiver
from worker.core.lifecycle import DeliveryStatus
from worker.store.clock import from_now
from worker.webhooks.dispatcher import DeliveryDispatcher
from worker.webhooks.store import expire
from worker.webhooks.store.tables import deliveries

HELD, QUEUED = DeliveryStatus.held, DeliveryStatus.queued
DAY_S = 86400.0


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


def delivering(engine: Engine, redis: Redis, *, slots: int = 20) -> DeliveryDispatcher:
    return DeliveryDispatcher(engine, redis, window_s=2.0, slots=slots)


def waiting(engine: Engine, receiver_id: str, count: int, *, age_s: float = 0.0, **changes: Any) -> None:
    """Write deliveries of an age to a receiver; by default they are queued and due."""
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
    old, young = 2 * expire.BATCH + 1, 3
    waiting(engine, off, old, age_s=30 * DAY_S + 60, status=HELD)
    waiting(engine, off, young, age_s=29 * DAY_S, status=HELD)
    waiting(engine, other, 2, age_s=31 * DAY_S, status=HELD)

    delivering(engine, redis).look_after()

    found = rows(engine, "SELECT receiver_id, status FROM afterword_deliveries")
    counted = Counter((str(row.receiver_id), row.status) for row in found)
    assert counted == {(off, "cancelled"): old, (off, "held"): young, (other, "cancelled"): 2}


def standing(redis: Redis) -> list[str]:
    """Return the deliveries in Redis, the next one first."""
    return [entry.decode().split(".")[0] for entry in reversed(redis.lrange("webhooks", 0, -1))]


def of(engine: Engine) -> dict[str, str]:
    return {
        str(row.id): str(row.receiver_id) for row in rows(engine, "SELECT id, receiver_id FROM afterword_deliveries")
    }


def test_the_window_is_shared_by_tenant_and_then_by_receiver(engine: Engine, redis: Redis) -> None:
    many = [receiver(engine, f"many {number}", tenant="many", in_flight=50) for number in range(3)]
    few = receiver(engine, "few", tenant="few", in_flight=50)
    for one in many:
        waiting(engine, one, 100, age_s=3600, tenant="many")
    waiting(engine, few, 100, tenant="few")

    # No worker is registered, so the window has the size for one worker.
    delivering(engine, redis, slots=20).fill()

    receivers = of(engine)
    found = [receivers[one] for one in standing(redis)]
    assert Counter(found)[few] == 20
    assert all(6 <= Counter(found)[one] <= 7 for one in many)
    # They alternate, so no delivery waits behind all of another receiver.
    assert Counter(found[:4])[few] == 2


def test_a_receiver_alone_has_the_whole_window_as_far_as_it_has_room(engine: Engine, redis: Redis) -> None:
    alone = receiver(engine, in_flight=30)
    waiting(engine, alone, 100)

    delivering(engine, redis).fill()

    assert len(standing(redis)) == 30


def test_a_second_fill_tops_up_the_window_without_doubles(engine: Engine, redis: Redis) -> None:
    for name in ("one", "two"):
        waiting(engine, receiver(engine, name, in_flight=50), 100, age_s=60)
    fills = delivering(engine, redis)
    fills.fill()
    first = standing(redis)
    redis.rpop("webhooks", 4)

    fills.fill()

    assert len(standing(redis)) == len(set(standing(redis))) == len(first) == 40


def test_where_receivers_are_many_each_has_one_in_the_window_and_not_always_the_same(
    engine: Engine, redis: Redis
) -> None:
    names = [receiver(engine, f"r{number}") for number in range(60)]
    for one in names:
        waiting(engine, one, 20)
    receivers, seen = of(engine), Counter[str]()

    for _ in range(4):
        redis.flushall()
        delivering(engine, redis, slots=10).fill()
        seen.update(receivers[one] for one in standing(redis))

    # A window of twenty holds twenty receivers, chosen by chance.
    assert seen.total() == 80
    assert len(seen) > 20
    assert max(seen.values()) <= 4
