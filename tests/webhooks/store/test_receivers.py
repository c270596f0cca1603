"""Receivers: names are unique per tenant, secrets are sealed, and waiting deliveries follow their receiver's state."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, update

from tests.store.made import one, worker
from tests.store.receiving import (
    URL,
    VAULT,
    claimed,
    delivery,
    found,
    receiver,
    registration,
    sealed,
    state_of,
    statuses,
    waiting,
)
from worker.core.lifecycle import DeliveryStatus
from worker.webhooks import sealed_fields
from worker.webhooks.core.outcome import DisableReason
from worker.webhooks.core.receiver_health import ReceiverHealth
from worker.webhooks.store import receivers, redeliver
from worker.webhooks.store.due import ReceiverLane
from worker.webhooks.store.expire import hold_or_drop
from worker.webhooks.store.health_column import text_of
from worker.webhooks.store.receivers import Receiver
from worker.webhooks.store.tables import receivers as table

HELD, QUEUED, CANCELLED = DeliveryStatus.held, DeliveryStatus.queued, DeliveryStatus.cancelled


def disable(engine: Engine, to: Receiver) -> bool:
    with engine.begin() as connection:
        return receivers.disable(connection, to.id)


def enable(engine: Engine, to: Receiver) -> None:
    with engine.begin() as connection:
        assert receivers.enable(connection, to.id)


def resume(engine: Engine, to: Receiver, since: datetime | None = None) -> int:
    with engine.begin() as connection:
        return redeliver.resume(connection, to.id, since=since)


def drop(engine: Engine, to: Receiver, before: datetime | None = None) -> int:
    with engine.begin() as connection:
        return redeliver.drop(connection, to.id, before=before)


def put_on_hold(engine: Engine, to: Receiver) -> int:
    with engine.begin() as connection:
        return hold_or_drop(connection, ReceiverLane(to.id, None))


def test_a_receiver_is_found_as_it_was_registered(engine: Engine) -> None:
    wanted = registration(
        "billing", tenant="acme", is_default=True, events=["job.failed"], payload="full", timeout_s=7,
        schedule=[5, 30.5], rate_per_s=2.5, in_flight=3, ordering="per_key", on_exhausted="block",
    )  # fmt: skip
    new = "8d7a4c1e-0000-4000-8000-000000000001"
    with engine.begin() as connection:
        assert receivers.add(connection, new, wanted, sealed(new))
        kept = receivers.find(connection, "acme", "billing")

    assert kept is not None
    assert (kept.registration, kept.status, kept.health) == (wanted, "enabled", ReceiverHealth())
    assert sealed_fields.headers_of(VAULT, new, kept.sealed.headers_sealed, url=URL) == {"X-Key": "geheim"}
    assert sealed_fields.url_of(VAULT, new, kept.sealed.url, kept.sealed.url_sealed).endswith("?token=geheim")
    assert len(sealed_fields.keys_of(VAULT, new, kept.sealed.keys_sealed)) == 2


def test_a_name_is_one_of_its_tenants_and_free_again_when_its_receiver_is_removed(engine: Engine) -> None:
    first = receiver(engine)
    with engine.begin() as connection:
        assert not receivers.add(connection, first.id[:-1] + "0", registration(), sealed(first.id))
    receiver(engine, tenant="other")
    with engine.begin() as connection:
        assert receivers.remove(connection, first.id)
        assert receivers.find(connection, "default", "billing") is None
    again = receiver(engine)

    with engine.begin() as connection:
        assert [one.id for one in receivers.listed(connection, tenant="default")] == [again.id]
        assert len(receivers.listed(connection)) == 2


def test_nothing_secret_is_in_the_row_or_in_a_repr(engine: Engine) -> None:
    made = receiver(engine)
    row = one(engine, "SELECT * FROM afterword_receivers")

    assert "geheim" not in str(row) + repr(made)
    assert "whsec_" not in str(row) + repr(made)
    assert made.sealed.keys_sealed is not None
    assert made.sealed.keys_sealed not in repr(made)


def test_a_removed_receiver_keeps_no_secrets_and_its_waiting_deliveries_are_cancelled(engine: Engine) -> None:
    made = receiver(engine)
    queued, held, over = (delivery(engine, made, status) for status in (QUEUED, HELD, DeliveryStatus.delivered))
    with engine.begin() as connection:
        assert receivers.remove(connection, made.id)
        assert not receivers.remove(connection, made.id)

    assert drop(engine, made) == 2

    assert statuses(engine, queued, held, over) == ["cancelled", "cancelled", "delivered"]
    assert state_of(engine, queued).finished_at is not None
    gone = found(engine, made.id)
    assert (gone.status, gone.sealed.keys_sealed, gone.sealed.headers_sealed) == ("removed", None, None)


def test_a_delivery_in_flight_to_a_removed_receiver_ends_by_itself(engine: Engine) -> None:
    made, mine = receiver(engine), worker(engine)
    flying = delivery(engine, made)
    assert claimed(engine, mine, flying) is not None
    with engine.begin() as connection:
        receivers.remove(connection, made.id)

    assert drop(engine, made) == 0
    assert statuses(engine, flying) == ["in_progress"]


def test_a_disabled_receiver_is_sent_nothing_until_it_is_enabled(engine: Engine) -> None:
    made, mine = receiver(engine), worker(engine)
    waits = delivery(engine, made)
    assert disable(engine, made)
    assert not disable(engine, made)

    assert claimed(engine, mine, waits) is None
    assert put_on_hold(engine, made) == 1
    assert (found(engine, made.id).disabled_reason, statuses(engine, waits)) == ("operator", ["held"])
    enable(engine, made)
    assert resume(engine, made) == 1
    assert claimed(engine, mine, waits) is not None


def test_an_enabled_receiver_has_the_health_of_a_new_one(engine: Engine) -> None:
    made, mine = receiver(engine), worker(engine)
    sick = ReceiverHealth(ramp=1, open_until_s=4e9, failing_since_s=1.0, disabled=DisableReason.failing)
    with engine.begin() as connection:
        connection.execute(update(table).values(status="disabled", disabled_reason="failing", health=text_of(sick)))

    enable(engine, made)

    again = found(engine, made.id)
    assert (again.health, again.status, again.disabled_reason, again.disabled_at) == (
        ReceiverHealth(),
        "enabled",
        None,
        None,
    )
    assert claimed(engine, mine, delivery(engine, made)) is not None


def test_a_resumed_delivery_starts_from_zero(engine: Engine) -> None:
    made = receiver(engine)
    old = delivery(engine, made, HELD, attempt=9, attempts_used=9, deadline=datetime(2026, 1, 1, tzinfo=UTC))

    assert resume(engine, made) == 1

    row = state_of(engine, old)
    assert (row.status, row.attempt, row.attempts_used, row.due, row.origin) == ("queued", 9, 0, True, "event")
    assert row.deadline - row.run_at > timedelta(days=6)


def test_deliveries_before_an_instant_are_dropped_and_later_ones_resumed(engine: Engine) -> None:
    made = receiver(engine)
    old, young = (delivery(engine, made, HELD, age_s=age_s) for age_s in (7200.0, 60.0))
    since = state_of(engine, young).created_at - timedelta(hours=1)

    assert (drop(engine, made, before=since), resume(engine, made, since=since)) == (1, 1)

    assert statuses(engine, old, young) == ["cancelled", "queued"]


def test_resuming_ends_after_the_last_batch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redeliver, "BATCH", 2)
    made = receiver(engine)
    for _ in range(5):
        delivery(engine, made, HELD)

    assert [resume(engine, made) for _ in range(4)] == [2, 2, 1, 0]


def test_resumed_deliveries_of_a_key_keep_their_order(engine: Engine) -> None:
    made = receiver(engine, ordering="per_key")
    first, second, third = (
        delivery(engine, made, HELD, key="k", sequence=place, age_s=60.0 - place) for place in (1, 2, 3)
    )

    assert resume(engine, made) == 3

    assert [state_of(engine, each).waiting_for for each in (first, second, third)] == [None, "order", "order"]
    assert [state_of(engine, each).due for each in (first, second, third)] == [True, False, False]


def test_a_held_delivery_that_got_its_turn_does_not_wait_forever(engine: Engine) -> None:
    made = receiver(engine, ordering="per_key")
    delivery(engine, made, DeliveryStatus.delivered, key="k", sequence=1)
    second = waiting(engine, made, key="k", sequence=2, status=HELD)

    resume(engine, made)

    row = state_of(engine, second)
    assert (row.waiting_for, row.due, row.after_gap) == (None, True, False)


def test_the_delivery_after_a_dropped_one_reports_the_gap_and_goes(engine: Engine) -> None:
    made = receiver(engine, ordering="per_key")
    delivery(engine, made, HELD, key="k", sequence=1)
    second = waiting(engine, made, key="k", sequence=2)
    with engine.begin() as connection:
        redeliver.drop(connection, made.id, statuses=[HELD])

        assert redeliver.advance_all(connection, made.id) == "k"
        assert redeliver.advance_all(connection, made.id, after="k") is None

    row = state_of(engine, second)
    assert (row.waiting_for, row.due, row.after_gap) == (None, True, True)


def test_on_exhausted_block_stops_deliveries_after_a_failed_one(engine: Engine) -> None:
    made = receiver(engine, ordering="per_key", on_exhausted="block")
    delivery(engine, made, DeliveryStatus.failed, key="k", sequence=1)
    second = delivery(engine, made, HELD, key="k", sequence=2)

    resume(engine, made)

    assert state_of(engine, second).waiting_for == "order"


def test_changed_values_are_stored_and_a_removed_receiver_is_not_changed(engine: Engine) -> None:
    made = receiver(engine)
    with engine.begin() as connection:
        assert receivers.change(connection, made.id, registration(in_flight=1, timeout_s=3), sealed(made.id))
        assert receivers.remove(connection, made.id)
        assert not receivers.change(connection, made.id, registration(), sealed(made.id))

    assert found(engine, made.id).registration.in_flight == 1


def test_deliveries_are_counted_by_status(engine: Engine) -> None:
    made, other = receiver(engine), receiver(engine, "other")
    for status in (QUEUED, HELD, HELD, CANCELLED):
        delivery(engine, made, status)
    delivery(engine, other)

    with engine.begin() as connection:
        assert receivers.counts(connection, made.id) == {"queued": 1, "held": 2, "cancelled": 1}


def test_a_test_is_an_event_and_a_delivery_that_may_go_at_once(engine: Engine) -> None:
    made, mine = receiver(engine), worker(engine)
    with engine.begin() as connection:
        new = redeliver.new_test(connection, made)

    got = claimed(engine, mine, new)
    assert got is not None
    body = json.loads(got.body)
    assert (body["type"], body["data"]["receiver"]) == ("receiver.test", "billing")
    assert body["id"] == f"evt_{got.event_id.replace('-', '')}"
    assert (got.origin, got.variant, got.job_id) == ("test", "thin", None)


def test_a_test_for_openais_libraries_is_in_their_words(engine: Engine) -> None:
    made, mine = receiver(engine, profile="openai"), worker(engine)
    with engine.begin() as connection:
        new = redeliver.new_test(connection, made)

    got = claimed(engine, mine, new)
    assert got is not None
    assert (got.variant, json.loads(got.body)["object"]) == ("openai", "event")
