"""The log lines about a receiver (failing, paused, back, disabled): each is written once, even if many deliveries end
together.
"""

import threading
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.flow.receivers import ALLOWED, register
from tests.flow.system import System
from tests.pool.workers import until
from worker.dev.receiver import Received, ReceiverAnswer, WebhookReceiver
from worker.webhooks.core.receiver_health import OPENS_AT_IN_ROW, ReceiverHealth
from worker.webhooks.store.health_column import health_of, text_of
from worker.webhooks.store.tables import receivers

QUICK = {**ALLOWED, "tick_s": "0.2"}
EVENTS = ("receiver.failing", "receiver.disabled", "receiver.paused", "receiver.resumed")
TOGETHER = 8
DAY_S = 86400.0


class Together:
    """Answers with `status`, but only after `count` requests have arrived."""

    def __init__(self, status: int, count: int = TOGETHER) -> None:
        self._status, self._barrier = status, threading.Barrier(count)

    def __call__(self, got: Received) -> ReceiverAnswer:
        self._barrier.wait(30)
        return ReceiverAnswer(self._status)


def ended(system: System, outcome: str, count: int) -> None:
    """Wait until `count` attempts have this outcome and their log lines are written."""
    until(lambda: len(system.lines(f"delivery.{outcome}")) >= count, what=f"{count} {outcome}; {system.said()}")


def become(system: System) -> list[tuple[str, Any]]:
    """Return the log's events of receivers, each with its reason or duration."""
    found = [(event, line) for event in EVENTS for line in system.lines(event)]
    assert all(line["receiver"] == "mine" and line["tenant"] == "default" for _, line in found)
    return [(event, line.get("reason") or line.get("hours") or line.get("seconds")) for event, line in found]


def health(system: System) -> ReceiverHealth:
    with system.engine.connect() as connection:
        return health_of(connection.execute(select(receivers.c.health)).scalar())


def set_health(system: System, health: ReceiverHealth) -> None:
    with system.engine.begin() as connection:
        connection.execute(update(receivers).values(health=text_of(health)))


@pytest.mark.parametrize(
    ("status", "before", "expected"),
    [
        (503, ReceiverHealth(), [("receiver.paused", 30.0)]),
        (410, ReceiverHealth(), [("receiver.disabled", "gone")]),
        (
            503,
            ReceiverHealth(failing_since_s=1.0, failed_attempts=3),
            [("receiver.failing", 72), ("receiver.paused", 30.0)],
        ),
    ],
    ids=["paused", "disabled", "failing"],
)
def test_a_receivers_change_is_logged_once_when_many_attempts_end_together(
    postgres_system: System, status: int, before: ReceiverHealth, expected: list[tuple[str, Any]]
) -> None:
    system = postgres_system
    assert TOGETHER > OPENS_AT_IN_ROW
    with WebhookReceiver(answer=Together(status)) as receiver:
        register(system.engine, receiver.url)
        set_health(system, before)
        system.start(**QUICK)

        for _ in range(TOGETHER):
            system.send()

        ended(system, "failed", TOGETHER)
    assert become(system) == expected


def test_that_a_receiver_is_back_is_said_once(postgres_system: System) -> None:
    system = postgres_system
    with WebhookReceiver() as receiver:
        register(system.engine, receiver.url)
        # Its breaker was opened and the pause is over.
        set_health(system, ReceiverHealth(ramp=1, open_until_s=1.0, open_s=30.0))
        system.start(**QUICK)

        for _ in range(TOGETHER):
            system.send()

        ended(system, "delivered", TOGETHER)
    assert become(system) == [("receiver.resumed", None)]
    assert health(system).ramp == 0
