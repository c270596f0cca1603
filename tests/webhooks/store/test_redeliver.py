"""REDELIVER: one delivery is sent once more, in any status; a request that makes no sense is refused with a reason."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from tests.store.made import worker
from tests.store.receiving import claimed, delivered, delivery, receiver, state_of, statuses, waiting
from worker.core.lifecycle import DeliveryStatus
from worker.webhooks.store import receivers
from worker.webhooks.store import redeliver as requeue


def redeliver(engine: Engine, delivery_id: str) -> str | None:
    with engine.begin() as connection:
        return requeue.redeliver(connection, delivery_id)


@pytest.mark.parametrize("status", ["delivered", "failed", "cancelled", "held", "queued"])
def test_a_delivery_is_sent_once_more_with_its_bytes_and_all_its_attempts(engine: Engine, status: str) -> None:
    made, mine = receiver(engine), worker(engine)
    old = delivery(engine, made, DeliveryStatus(status))
    before = state_of(engine, old)

    assert redeliver(engine, old) is None

    row = state_of(engine, old)
    assert (row.status, row.origin, row.attempts_used, row.finished_at, row.due) == ("queued", "manual", 0, None, True)
    assert row.deadline - row.run_at > timedelta(days=6)
    got = claimed(engine, mine, old)
    assert got is not None
    assert (got.attempt, got.attempts_used, got.event_id) == (before.attempt + 1, 1, before.event_id)
    assert got.body == f'{{"id":"{before.event_id}"}}'.encode()


def test_a_delivery_in_flight_is_left_alone(engine: Engine) -> None:
    made, mine = receiver(engine), worker(engine)
    flying = delivery(engine, made)
    claimed(engine, mine, flying)

    assert "is in flight" in (redeliver(engine, flying) or "")
    assert (state_of(engine, flying).origin, statuses(engine, flying)) == ("event", ["in_progress"])


def test_a_receiver_that_is_disabled_or_removed_is_sent_nothing(engine: Engine) -> None:
    made = receiver(engine)
    old = delivery(engine, made, DeliveryStatus.failed)
    with engine.begin() as connection:
        receivers.disable(connection, made.id)
    assert "afterword webhooks enable billing" in (redeliver(engine, old) or "")
    with engine.begin() as connection:
        receivers.remove(connection, made.id)
    assert "was removed" in (redeliver(engine, old) or "")
    assert statuses(engine, old) == ["failed"]


def test_an_unknown_delivery_is_said_to_be_unknown(engine: Engine) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    assert (redeliver(engine, unknown) or "").startswith(f"no delivery {unknown} is known")


def test_a_waiting_delivery_goes_out_of_turn_and_the_others_keep_their_turns(engine: Engine) -> None:
    made, mine = receiver(engine, ordering="per_key"), worker(engine)
    first = delivery(engine, made, key="k", sequence=1)
    second, third = (waiting(engine, made, key="k", sequence=place) for place in (2, 3))

    assert redeliver(engine, second) is None

    assert (state_of(engine, second).due, state_of(engine, third).due) == (True, False)
    out_of_turn, in_turn = claimed(engine, mine, second), claimed(engine, mine, first)
    assert out_of_turn is not None
    assert in_turn is not None
    assert delivered(engine, out_of_turn) == ()
    assert delivered(engine, in_turn) == (third,)


def test_a_redelivery_reports_no_new_gap(engine: Engine) -> None:
    made = receiver(engine, ordering="per_key")
    delivery(engine, made, DeliveryStatus.failed, key="k", sequence=1)
    second = delivery(engine, made, DeliveryStatus.held, key="k", sequence=2, attempt=3)

    with engine.begin() as connection:
        requeue.resume(connection, made.id)

    assert (state_of(engine, second).due, state_of(engine, second).after_gap) == (True, False)
