"""Real workers obey a receiver's answers: wait, pause, go slower, stop this delivery, stop all deliveries."""

import threading
import time
from collections.abc import Iterator

import pytest

from tests.flow.receivers import ALLOWED, register
from tests.flow.system import System
from tests.pool.workers import until
from worker.dev.receiver import Received, ReceiverAnswer, WebhookReceiver
from worker.webhooks.core.receiver_health import FULL_RAMP, OPENS_AT_IN_ROW

QUICK = {**ALLOWED, "tick_s": "0.2"}
# The allowed delay of an arrival on a busy machine.
SLACK_S = 1.0
STANDS = "SELECT status FROM webhook_deliveries_v1 ORDER BY created_at, id"
TRIES = "SELECT delivery_id, outcome, sent_at, finished_at FROM afterword_delivery_attempts"


class Ear:
    """Answers as the test sets it and records the arrival of each request (monotonic seconds)."""

    def __init__(self) -> None:
        self.came_at: list[float] = []
        self.says: ReceiverAnswer = ReceiverAnswer(200)
        self.first: list[ReceiverAnswer] = []
        self._lock = threading.Lock()

    def __call__(self, got: Received) -> ReceiverAnswer:
        with self._lock:
            self.came_at.append(time.monotonic())
            return self.first.pop(0) if self.first else self.says


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def receiver(ear: Ear) -> Iterator[WebhookReceiver]:
    with WebhookReceiver(answer=ear) as made:
        yield made


def await_stands(system: System, *wanted: str) -> None:
    until(lambda: [row.status for row in system.rows(STANDS)] == list(wanted), what=f"{wanted}; {system.said()}")


def end_jobs(system: System, number: int) -> None:
    system.await_all([system.send() for _ in range(number)])


def test_a_receiver_that_asks_for_a_pause_gets_nothing_during_it(
    postgres_system: System, receiver: WebhookReceiver, ear: Ear
) -> None:
    system = postgres_system
    ear.first = [ReceiverAnswer(503, {"retry-after": "3"})]
    register(system.engine, receiver.url, in_flight=1, schedule="[1, 1]")
    system.start(**QUICK)

    end_jobs(system, 5)

    await_stands(system, *["delivered"] * 5)
    assert len(ear.came_at) == 6
    assert min(ear.came_at[1:]) - ear.came_at[0] >= 3 - SLACK_S
    assert system.rows("SELECT DISTINCT retry_after_s FROM afterword_delivery_attempts WHERE http_status = 503") == [
        (3.0,)
    ]


def test_a_dead_receiver_is_paused_costs_no_attempts_and_comes_back_by_steps(
    postgres_system: System, receiver: WebhookReceiver, ear: Ear
) -> None:
    system = postgres_system
    ear.says = ReceiverAnswer(503)
    register(system.engine, receiver.url, in_flight=1, schedule="[1, 1, 1, 1, 1, 1, 1, 1]")
    system.start(**QUICK)
    end_jobs(system, 40)
    until(lambda: system.lines("receiver.paused"), what=f"the breaker opens; {system.said()}")
    spent = "SELECT sum(attempts_used) FROM afterword_deliveries"

    # Later all deliveries are due again, and every tick of the dispatcher reads them.
    ticks = "SELECT count(*) FROM afterword_deliveries WHERE status = 'queued' AND run_at <= clock_timestamp()"
    until(lambda: system.rows(ticks)[0][0] == 40, what="all are due")
    assert len(ear.came_at) == OPENS_AT_IN_ROW
    assert system.rows(spent) == [(OPENS_AT_IN_ROW,)]

    ear.says = ReceiverAnswer(200)
    rest_is_over(system, in_flight=20)

    await_stands(system, *["delivered"] * 40)
    assert system.lines("receiver.resumed")
    assert system.rows(spent) == [(OPENS_AT_IN_ROW + 40,)]
    assert_ramp(system)


def rest_is_over(system: System, *, in_flight: int) -> None:
    """End the half minute of the breaker's pause; then only the ramp keeps deliveries below `in_flight`."""
    with system.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE afterword_receivers SET in_flight = %s, health = "
            "jsonb_set(health, '{open_until_s}', to_jsonb(extract(epoch FROM clock_timestamp())))",
            (in_flight,),
        )


def assert_ramp(system: System) -> None:
    """Compare the deliveries in flight at each start with those delivered before: one probe, then two, then four."""
    tries = system.rows(f"{TRIES} WHERE outcome = 'delivered' ORDER BY sent_at")
    for one in tries:
        done = sum(other.finished_at <= one.sent_at for other in tries)
        flying = sum(other.sent_at <= one.sent_at < other.finished_at for other in tries)
        assert flying <= (2**done if 2**done <= FULL_RAMP else 20), f"{flying} in flight after {done} delivered"


def test_a_rate_is_kept_at_the_receiver(postgres_system: System, receiver: WebhookReceiver, ear: Ear) -> None:
    system = postgres_system
    rate, events = 5.0, 20
    register(system.engine, receiver.url, rate_per_s=rate, in_flight=20)
    system.start(**QUICK)

    end_jobs(system, events)

    await_stands(system, *["delivered"] * events)
    came_at = sorted(ear.came_at)
    assert len(came_at) == events
    for first in range(events):
        for last in range(first, events):
            span_s = came_at[last] - came_at[first]
            # The bucket holds the requests of one second.
            assert last - first + 1 <= rate * (1 + span_s + SLACK_S), (first, last, span_s)


@pytest.mark.parametrize(
    ("status", "word", "delivery", "becomes"),
    [
        (200, "disable", "delivered", "disabled"),
        (500, "disable", "cancelled", "disabled"),
        (200, "abort-message", "delivered", "enabled"),
        (500, "abort-message", "cancelled", "enabled"),
    ],
)
def test_a_receiver_ends_one_message_or_all_of_them_by_a_header(
    postgres_system: System, receiver: WebhookReceiver, ear: Ear, status: int, word: str, delivery: str, becomes: str
) -> None:
    system = postgres_system
    ear.first = [ReceiverAnswer(status, {"webhook-delivery": word})]
    register(system.engine, receiver.url, schedule="[1]")
    system.start(**QUICK)
    end_jobs(system, 1)
    await_stands(system, delivery)

    end_jobs(system, 1)

    await_stands(system, delivery, "held" if becomes == "disabled" else "delivered")
    reason = "asked" if becomes == "disabled" else None
    assert system.rows("SELECT status, disabled_reason FROM afterword_receivers") == [(becomes, reason)]
    # The first delivery was sent once, with every status.
    assert len(ear.came_at) == (1 if becomes == "disabled" else 2)
