"""RECOVER: lost deliveries of a time span are queued again, oldest first, at the given rate, once."""

import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, update

from tests.store.made import worker
from tests.store.receiving import claimed, delivery, receiver, state_of, statuses, waiting
from worker.core.lifecycle import DeliveryStatus
from worker.store.clock import from_now
from worker.store.engine import open_engine
from worker.webhooks.store import receivers, recover
from worker.webhooks.store.receivers import Receiver
from worker.webhooks.store.recover import Span
from worker.webhooks.store.tables import recoveries as table

FAILED, CANCELLED, HELD = DeliveryStatus.failed, DeliveryStatus.cancelled, DeliveryStatus.held


def span(engine: Engine, to: Receiver, statuses: Iterable[DeliveryStatus] = (FAILED,), hours: float = 24.0) -> Span:
    """Return the span that ends now, by the database's clock."""
    present = state_of(engine, delivery(engine, to, age_s=0.0)).created_at
    return Span(to.id, present - timedelta(hours=hours), present, tuple(statuses))


def begin(engine: Engine, wanted: Span, *, rate_per_s: float = 1000.0) -> str | None:
    with engine.begin() as connection:
        return recover.begin(connection, wanted, rate_per_s=rate_per_s)


def step(engine: Engine, *, after_s: float = 1.0) -> int:
    """Run a step of a dispatcher whose last step was `after_s` seconds ago."""
    with engine.begin() as connection:
        connection.execute(update(table).where(table.c.status == "running").values(stepped_at=from_now(-after_s)))
        return recover.step(connection)


def recovery(engine: Engine, recovery_id: str | None) -> Any:
    with engine.begin() as connection:
        (row,) = recover.listed(connection, recovery_id=recovery_id)
    return row


def test_failed_deliveries_are_queued_again_and_no_others(engine: Engine) -> None:
    made, other = receiver(engine), receiver(engine, "other")
    lost = [delivery(engine, made, FAILED) for _ in range(3)]
    left = [delivery(engine, made, status) for status in DeliveryStatus if status not in (FAILED, "in_progress")]
    before = statuses(engine, *left)
    foreign = delivery(engine, other, FAILED)
    new = begin(engine, span(engine, made))

    assert step(engine) == 3

    assert set(statuses(engine, *lost)) == {"queued"}
    assert (statuses(engine, *left), statuses(engine, foreign)) == (before, ["failed"])
    row, again = recovery(engine, new), state_of(engine, lost[0])
    assert (row.status, row.redelivered, row.receiver) == ("done", 3, "billing")
    assert row.finished_at is not None
    assert (again.origin, again.attempts_used, again.due) == ("recover", 0, True)


def test_deliveries_are_chosen_by_status_and_time(engine: Engine) -> None:
    made = receiver(engine)
    young = [delivery(engine, made, status) for status in (CANCELLED, HELD, FAILED)]
    old = delivery(engine, made, HELD, age_s=7200.0)
    wanted = span(engine, made, (CANCELLED, HELD), hours=1.0)
    with engine.begin() as connection:
        assert recover.counted(connection, wanted) == {"cancelled": 1, "held": 1}

    begin(engine, wanted)
    step(engine)

    assert statuses(engine, *young, old) == ["queued", "queued", "failed", "held"]


def test_a_step_queues_no_more_than_the_rate_allows_and_the_oldest_first(engine: Engine) -> None:
    made = receiver(engine)
    lost = [delivery(engine, made, FAILED, age_s=100.0 - number) for number in range(7)]
    new = begin(engine, span(engine, made), rate_per_s=2.0)

    steps = [step(engine, after_s=1.0), step(engine, after_s=1.2), step(engine, after_s=0.4)]

    assert steps == [2, 2, 0]
    assert statuses(engine, *lost) == ["queued"] * 4 + ["failed"] * 3
    assert recovery(engine, new).status == "running"
    assert [step(engine) for _ in range(3)] == [2, 1, 0]
    assert recovery(engine, new).redelivered == 7


def test_an_hour_without_ticks_is_not_made_up_for_at_once(engine: Engine) -> None:
    made = receiver(engine)
    for _ in range(30):
        delivery(engine, made, FAILED)
    begin(engine, span(engine, made), rate_per_s=0.02)

    assert step(engine, after_s=3600.0) == 2
    with engine.begin() as connection:
        assert recover.step(connection) == 0  # the hour is used up; the next is due in 50 s


def test_a_slow_rate_also_makes_progress(engine: Engine) -> None:
    made = receiver(engine)
    for _ in range(3):
        delivery(engine, made, FAILED)
    begin(engine, span(engine, made), rate_per_s=0.1)

    assert [step(engine, after_s=9.0), step(engine, after_s=11.0)] == [0, 1]


def test_a_recovery_goes_on_from_its_last_step_and_skips_queued_deliveries(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover, "SCANNED", 2)
    made, mine = receiver(engine), worker(engine)
    lost = [delivery(engine, made, FAILED, age_s=100.0) for _ in range(5)]  # all of one instant
    new = begin(engine, span(engine, made))
    step(engine)
    queued = [one for one in lost if state_of(engine, one).status == "queued"]
    assert len(queued) == 2
    for one in queued:
        assert claimed(engine, mine, one) is not None

    assert [step(engine) for _ in range(3)] == [2, 1, 0]

    assert sorted(statuses(engine, *lost)) == ["in_progress"] * 2 + ["queued"] * 3
    assert recovery(engine, new).redelivered == 5


def test_a_rolled_back_step_has_no_effect(engine: Engine) -> None:
    made = receiver(engine)
    lost = delivery(engine, made, FAILED)
    new = begin(engine, span(engine, made))
    with engine.connect() as connection:
        connection.execute(update(table).values(stepped_at=from_now(-1.0)))
        assert recover.step(connection) == 1
        connection.rollback()

    assert (recovery(engine, new).redelivered, statuses(engine, lost)) == (0, ["failed"])
    assert step(engine) == 1


def test_a_late_step_costs_as_much_as_an_early_one(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover, "SCANNED", 20)
    engine = open_engine(sqlite_url)
    made = receiver(engine)
    for number in range(600):
        delivery(engine, made, DeliveryStatus.delivered, age_s=1000.0 - number)
    begin(engine, span(engine, made))

    costs = [_instructions(engine) for _ in range(25)]

    assert costs[-1] < 1.5 * costs[1]
    engine.dispose()


def _instructions(engine: Engine) -> int:
    """Run a step and return SQLite's instructions for it, in hundreds."""
    counted = []
    with engine.begin() as connection:
        connection.execute(update(table).values(stepped_at=from_now(-1.0)))
        driver = connection.connection.dbapi_connection
        assert driver is not None
        driver.set_progress_handler(lambda: counted.append(1), 100)
        recover.step(connection)
        driver.set_progress_handler(None, 0)
    return len(counted)


def test_a_receiver_has_one_recovery_at_a_time(engine: Engine) -> None:
    made, other = receiver(engine), receiver(engine, "other")
    delivery(engine, made, FAILED)
    new = begin(engine, span(engine, made))

    assert begin(engine, span(engine, made)) is None
    assert begin(engine, span(engine, other)) is not None
    step(engine)
    assert recovery(engine, new).status == "done"
    assert begin(engine, span(engine, made)) is not None


def test_two_concurrent_steps_queue_each_delivery_once(engine: Engine) -> None:
    made = receiver(engine)
    for _ in range(20):
        delivery(engine, made, FAILED)
    new = begin(engine, span(engine, made))
    with engine.begin() as connection:
        connection.execute(update(table).values(stepped_at=from_now(-1.0)))
    start, moved = threading.Barrier(2), []

    def take() -> None:
        start.wait()
        with engine.begin() as connection:
            moved.append(recover.step(connection))

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(moved) == [0, 20]
    assert recovery(engine, new).redelivered == 20


def test_a_cancelled_recovery_stops_and_its_queued_deliveries_stay(engine: Engine) -> None:
    made = receiver(engine)
    lost = [delivery(engine, made, FAILED, age_s=100.0 - number) for number in range(3)]
    new = begin(engine, span(engine, made), rate_per_s=1.0)
    step(engine)
    assert new is not None
    with engine.begin() as connection:
        assert recover.cancel(connection, new)
        assert not recover.cancel(connection, new)

    assert step(engine) == 0
    assert statuses(engine, *lost) == ["queued", "failed", "failed"]
    assert recovery(engine, new).status == "cancelled"


def test_a_recovery_waits_for_its_disabled_receiver_and_ends_with_a_removed_one(engine: Engine) -> None:
    made = receiver(engine)
    lost = delivery(engine, made, FAILED)
    new = begin(engine, span(engine, made))
    with engine.begin() as connection:
        receivers.disable(connection, made.id)
    assert step(engine) == 0
    assert (recovery(engine, new).status, statuses(engine, lost)) == ("running", ["failed"])

    with engine.begin() as connection:
        receivers.remove(connection, made.id)
    assert step(engine) == 0
    assert (recovery(engine, new).status, statuses(engine, lost)) == ("cancelled", ["failed"])


def test_recovered_deliveries_of_a_key_are_sent_in_order(engine: Engine) -> None:
    made = receiver(engine, ordering="per_key")
    lost = [delivery(engine, made, FAILED, key="k", sequence=place, age_s=100.0) for place in (1, 2, 3)]
    later = waiting(engine, made, key="k", sequence=4, age_s=90.0)
    begin(engine, span(engine, made))

    assert step(engine) == 3

    assert [state_of(engine, one).due for one in (*lost, later)] == [True, False, False, False]
    assert state_of(engine, lost[1]).waiting_for == "order"
