"""A worker dies during a delivery: before it sent a byte, or after it read the answer. It costs exactly one more
attempt.

test_webhook_faults covers a death in between, when the receiver has the request and has not answered.
"""

import ssl

from sqlalchemy import select

from tests.flow.raw_receiver import RawReceiver
from tests.flow.receivers import ALLOWED, register
from tests.flow.system import System
from tests.pool.workers import until
from worker.webhooks.store.tables import receivers

QUICK = {**ALLOWED, "lease_s": "2", "beat_s": "0.2", "tick_s": "0.2"}
ATTEMPTS = "SELECT attempt, outcome, error_code, sent_at FROM afterword_delivery_attempts ORDER BY attempt"


def delivered(system: System) -> None:
    query = "SELECT status FROM webhook_deliveries_v1"
    until(lambda: [row.status for row in system.rows(query)] == ["delivered"], what=f"delivered; {system.said()}")


def attempts(system: System) -> list[tuple[int, str | None, str | None]]:
    return [(row.attempt, row.outcome, row.error_code) for row in system.rows(ATTEMPTS)]


def test_a_worker_that_dies_before_the_first_byte_sent_nothing_and_the_next_sends_once(
    system: System, tls: ssl.SSLContext, ca_file: str
) -> None:
    settings = {**QUICK, "webhook_ca_file": ca_file}
    with RawReceiver(tls=tls, shut=1) as receiver:
        register(system.engine, receiver.url)
        first = system.start(**settings)
        system.send()
        until(lambda: receiver.connections, what=f"a connection whose handshake waits; {system.said()}")
        [before] = system.rows(ATTEMPTS)

        first.kill()
        system.start(**settings)

        delivered(system)
        assert (before.outcome, before.sent_at is not None) == (None, True)
        assert attempts(system) == [(1, "unknown", "worker_lost"), (2, "delivered", None)]
        [got] = receiver.received
        assert got.headers["x-afterword-attempt"] == "2"
        system.assert_sound(lease_s=2)


def test_a_worker_that_dies_between_the_answer_and_its_record_sends_the_same_again(system: System) -> None:
    with RawReceiver(holds=1) as receiver:
        register(system.engine, receiver.url)
        first = system.start(**QUICK)
        system.send()
        until(lambda: receiver.received, what=f"the first request; {system.said()}")

        # The record needs this row too, to store the receiver's health. (On SQLite it needs the write lock.)
        with system.engine.begin() as connection:
            connection.execute(select(receivers.c.id).with_for_update()).all()
            receiver.open()
            until(lambda: receiver.read, what=f"the worker has read the 200; {system.said()}", seconds=4)
            first.kill()

        assert attempts(system) == [(1, None, None)]
        system.start(**QUICK)
        delivered(system)
        assert attempts(system) == [(1, "unknown", "worker_lost"), (2, "delivered", None)]
        one, two = receiver.received
        assert (one.headers["webhook-id"], one.body) == (two.headers["webhook-id"], two.body)
        system.assert_sound(lease_s=2)
