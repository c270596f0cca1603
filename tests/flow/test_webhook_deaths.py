"""A worker dies within a delivery: before a byte was sent, or after the answer was read. One attempt more, no less.

What lies between, a request that the receiver has and has not answered, is in test_webhook_faults.
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
    stands = "SELECT status FROM webhook_deliveries_v1"
    until(lambda: [row.status for row in system.rows(stands)] == ["delivered"], what=f"delivered; {system.said()}")


def told(system: System) -> list[tuple[int, str | None, str | None]]:
    return [(row.attempt, row.outcome, row.error_code) for row in system.rows(ATTEMPTS)]


def test_a_worker_that_dies_before_it_sent_a_byte_has_told_nobody_and_the_next_tells_once(
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
        assert told(system) == [(1, "unknown", "worker_lost"), (2, "delivered", None)]
        [got] = receiver.received
        assert got.headers["x-afterword-attempt"] == "2"
        system.assert_sound(lease_s=2)


def test_a_worker_that_dies_between_the_answer_and_its_record_sends_the_same_again(system: System) -> None:
    with RawReceiver(holds=1) as receiver:
        register(system.engine, receiver.url)
        first = system.start(**QUICK)
        system.send()
        until(lambda: receiver.received, what=f"the first request; {system.said()}")

        # The record wants this row too, to write what the answer says of the receiver. (On SQLite: wants to write.)
        with system.engine.begin() as connection:
            connection.execute(select(receivers.c.id).with_for_update()).all()
            receiver.open()
            until(lambda: receiver.read, what=f"the worker has read the 200; {system.said()}", seconds=4)
            first.kill()

        assert told(system) == [(1, None, None)]
        system.start(**QUICK)
        delivered(system)
        assert told(system) == [(1, "unknown", "worker_lost"), (2, "delivered", None)]
        one, two = receiver.received
        assert (one.headers["webhook-id"], one.body) == (two.headers["webhook-id"], two.body)
        system.assert_sound(lease_s=2)
