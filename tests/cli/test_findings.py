"""doctor on webhooks: late deliveries, paused, failing or disabled receivers, and the results of the last hour."""

import json
from typing import Any

import pytest
from sqlalchemy import Engine, insert, update

from tests.cli.conftest import Command
from tests.store.made import accept_all, entry, job
from tests.store.receiving import MASTER, delivery, receiver
from worker.core.lifecycle import DeliveryOutcome, DeliveryStatus
from worker.store.clock import from_now
from worker.store.tables import endpoints, jobs
from worker.webhooks.core.outcome import DeliveryErrorCode, DisableReason
from worker.webhooks.core.receiver_health import ReceiverHealth
from worker.webhooks.core.retry_schedule import HOUR_S
from worker.webhooks.store.health_column import text_of
from worker.webhooks.store.receivers import Receiver
from worker.webhooks.store.tables import delivery_attempts, receivers


@pytest.fixture
def doctor(afterword: Command, database_url: str) -> Any:
    """Return a function that returns doctor's finding for each part."""

    def asked() -> dict[str, Any]:
        settings = {"AFTERWORD_DATABASE_URL": database_url, "AFTERWORD_SECRET_KEYS": MASTER}
        found = json.loads(afterword("doctor", "--json", settings=settings).stdout)
        return {one["part"]: one for one in found}

    return asked


def given(engine: Engine, to: Receiver, **columns: Any) -> None:
    with engine.begin() as connection:
        connection.execute(update(receivers).where(receivers.c.id == to.id).values(columns))


def attempted(engine: Engine, delivery_id: str, to: Receiver, number: int, age_s: float, **columns: Any) -> None:
    values = {
        "delivery_id": delivery_id, "attempt": number, "receiver_id": to.id, "worker_id": to.id, "origin": "event",
        "variant": "thin", "finished_at": from_now(-age_s), "outcome": DeliveryOutcome.failed, **columns,
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(delivery_attempts).values(values))


def delivered_after(engine: Engine, to: Receiver, took_s: float) -> None:
    delivery(engine, to, DeliveryStatus.delivered, age_s=60.0 + took_s, finished_at=from_now(-60.0))


def test_nothing_is_said_of_an_empty_database(doctor: Any) -> None:
    found = doctor()
    assert (found["webhooks"]["state"], found["webhooks"]["text"]) == ("ok", "nothing to deliver")
    assert (found["receivers"]["text"], found["delivered"]["text"]) == ("0 registered", "last hour: none")
    assert found["webhooks"]["figures"]["oldest_overdue_s"] is None
    assert found["jobs"]["figures"]["oldest_overdue_s"] is None


def test_the_oldest_overdue_delivery_is_found_and_its_receiver_named(engine: Engine, doctor: Any) -> None:
    well, other = receiver(engine), receiver(engine, "other")
    delivery(engine, well, run_at=from_now(-90.0))
    delivery(engine, other, run_at=from_now(-70.0))
    delivery(engine, other, run_at=from_now(600.0))
    delivery(engine, other, run_at=from_now(-9000.0), waiting_for=None, status=DeliveryStatus.held)

    found = doctor()["webhooks"]

    assert found["state"] == "warning"
    assert 90 <= found["figures"]["oldest_overdue_s"] < 150
    assert "the oldest is overdue for" in found["text"]
    assert "(to default/billing)" in found["text"]
    assert found["figures"]["unfinished"] == {"queued": 3, "held": 1}


@pytest.mark.parametrize("late_s", [0.0, 30.0])
def test_a_delivery_that_has_just_become_due_is_no_trouble(engine: Engine, doctor: Any, late_s: float) -> None:
    delivery(engine, receiver(engine), run_at=from_now(-late_s))
    assert doctor()["webhooks"]["state"] == "ok"


def test_a_delivery_due_to_a_paused_receiver_is_not_overdue(engine: Engine, doctor: Any) -> None:
    dead = receiver(engine)
    delivery(engine, dead, run_at=from_now(-3600.0))
    given(engine, dead, health=text_of(ReceiverHealth(ramp=1, open_until_s=dead.now_s + 3600.0)))

    found = doctor()

    assert found["webhooks"]["figures"]["oldest_overdue_s"] is None
    assert found["receivers"]["figures"]["resting"] == ["default/billing"]
    assert found["receivers"]["state"] == "warning"


def test_receivers_that_fail_or_are_disabled_are_named(engine: Engine, doctor: Any) -> None:
    failing, gone = receiver(engine, "failing"), receiver(engine, "gone")
    receiver(engine, "well")
    given(
        engine, failing, health=text_of(ReceiverHealth(failing_since_s=failing.now_s - 48 * HOUR_S, failed_attempts=7))
    )
    given(engine, gone, status="disabled", disabled_reason=DisableReason.gone)

    found = doctor()["receivers"]

    assert found["state"] == "warning"
    assert found["text"] == (
        "3 registered; failing: default/failing for 2 d; disabled: default/gone (it answered 410 Gone)"
    )
    assert (found["figures"]["failing"], found["figures"]["disabled"]) == (["default/failing"], ["default/gone"])


def test_a_receiver_disabled_by_an_operator_is_shown_and_no_trouble(engine: Engine, doctor: Any) -> None:
    given(engine, receiver(engine), status="disabled", disabled_reason="operator")
    found = doctor()["receivers"]
    assert (found["state"], found["text"]) == ("ok", "1 registered; disabled: default/billing (by an operator)")


def test_trouble_of_our_own_is_reported_with_its_cause(engine: Engine, doctor: Any) -> None:
    to = receiver(engine)
    for code in (DeliveryErrorCode.no_secret, DeliveryErrorCode.no_secret, DeliveryErrorCode.unavailable):
        delivery(engine, to, run_at=from_now(60.0), waiting_for="retry", last_error_code=code)

    found = doctor()["webhooks"]

    assert found["state"] == "warning"
    assert found["figures"]["own_trouble"] == {"no_secret": 2}
    assert "2 wait for no_secret: This service could not open" in found["text"]


def test_refusals_of_the_guard_in_the_last_hour_are_counted(engine: Engine, doctor: Any) -> None:
    inside = receiver(engine)
    given(engine, inside, health=text_of(ReceiverHealth(forbidden_in_row=3)))
    for age_s in (60.0, 600.0, 7200.0):
        one = delivery(engine, inside, last_error_code=DeliveryErrorCode.target_forbidden, age_s=9000.0)
        attempted(engine, one, inside, 1, age_s, error_code=DeliveryErrorCode.target_forbidden)

    found = doctor()["delivered"]

    assert (found["state"], found["figures"]["forbidden_last_hour"]) == ("warning", 2)
    assert "refused because of their address: 2" in found["text"]


def test_deliveries_that_may_have_been_sent_twice_are_counted(engine: Engine, doctor: Any) -> None:
    to = receiver(engine)
    again, last, old = (delivery(engine, to, attempt=2, age_s=age_s) for age_s in (60.0, 60.0, 2 * 86400.0))
    for one, number, outcome in ((again, 1, "unknown"), (last, 2, "unknown"), (last, 1, "failed"), (old, 1, "unknown")):
        attempted(engine, one, to, number, 60.0, outcome=outcome)

    found = doctor()["delivered"]

    assert found["figures"]["suspected_duplicates_last_day"] == 1
    assert found["state"] == "ok"


def test_the_duration_is_reported_as_percentiles_of_the_last_hour(engine: Engine, doctor: Any) -> None:
    to = receiver(engine)
    for took_s in range(1, 21):
        delivered_after(engine, to, float(took_s))
    delivery(engine, to, DeliveryStatus.delivered, age_s=7200.0, finished_at=from_now(-3600.0))
    delivery(engine, to, DeliveryStatus.failed)

    figures = doctor()["delivered"]["figures"]

    took = figures["latency_s"]
    assert (took["p50"], took["p95"], took["p99"]) == pytest.approx((10.0, 19.0, 20.0), abs=0.05)
    assert figures["last_hour"] == {"delivered": 20, "failed": 1}


def test_the_oldest_overdue_job_of_endpoints_without_a_pause_is_found(engine: Engine, doctor: Any) -> None:
    accept_all(engine, *(entry(job(priority=priority)) for priority in (9, 1, 5)))
    with engine.begin() as connection:
        for priority, endpoint, late_s in ((9, "default", 120.0), (1, "default", 60.0), (5, "paused", 9000.0)):
            mine = update(jobs).where(jobs.c.priority == priority)
            connection.execute(mine.values(endpoint=endpoint, run_at=from_now(-late_s)))
        paused = {"name": "paused", "state": "paused", "cause": "operator", "since": from_now(-9000.0)}
        connection.execute(insert(endpoints).values(paused))

    found = doctor()["jobs"]

    assert 120 <= found["figures"]["oldest_overdue_s"] < 180
    assert "the oldest is overdue for 2" in found["text"]
    assert found["figures"]["counts"]["queued"] == 3
