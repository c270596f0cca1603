"""A receiver's secret changes while a delivery is on its way, between its claim and its first byte."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from afterword import WebhookVerificationError, verify_webhook
from tests.flow.operators import Operator
from tests.flow.raw_receiver import RawReceiver
from tests.flow.receivers import ALLOWED
from tests.flow.system import System
from tests.pool.workers import until
from worker.dev.receiver import Received

OVERLAP_S = 4


@pytest.fixture
def operator(postgres_system: System, ca_file: str) -> Operator:
    """Return an operator beside a running worker."""
    postgres_system.start(**ALLOWED, webhook_ca_file=ca_file)
    return Operator(postgres_system)


def verifies(got: Received, *secrets: str) -> bool:
    try:
        verify_webhook(got.body, got.headers, secrets)
    except WebhookVerificationError:
        return False
    return True


@contextmanager
def at_the_door(
    operator: Operator, tls: ssl.SSLContext, says: Callable[[Received], int] = lambda _: 200
) -> Iterator[tuple[RawReceiver, Callable[[], None]]]:
    """Yield a receiver `mine` and a function that sends it a test. The function returns when the signed request waits
    for the first byte of TLS.
    """
    with RawReceiver(tls=tls, shut=1, says=says) as receiver:

        def send() -> None:
            operator.types("webhooks test mine")
            until(lambda: receiver.connections, what="a delivery that waits for the handshake")

        yield receiver, send


def test_signatures_before_a_rotation_verify_with_the_old_secret_and_later_ones_with_both(
    operator: Operator, tls: ssl.SSLContext
) -> None:
    with at_the_door(operator, tls) as (receiver, send):
        old = operator.json_of(f"webhooks add mine {receiver.url}")["secret"]
        send()
        new = operator.json_of("webhooks rotate mine")["secret"]
        receiver.open()
        operator.await_statuses("delivered")

        operator.types("webhooks test mine --wait 60")

    before, after = receiver.received
    assert (verifies(before, old), verifies(before, new), verifies(before, new, old)) == (True, False, True)
    assert (verifies(after, old), verifies(after, new)) == (True, True)


def test_a_receiver_that_knows_only_the_new_secret_takes_the_next_attempt(
    operator: Operator, tls: ssl.SSLContext
) -> None:
    known: list[str] = []

    with at_the_door(operator, tls, lambda got: 200 if verifies(got, *known) else 401) as (receiver, send):
        old = operator.json_of(f"webhooks add mine {receiver.url} --schedule 1")["secret"]
        send()
        known.append(operator.json_of("webhooks rotate mine --overlap 0")["secret"])
        receiver.open()

        operator.await_statuses("delivered")

    refused, taken = receiver.received
    assert verifies(refused, old)
    assert (verifies(taken, old), verifies(taken, *known)) == (False, True)
    assert (refused.headers["webhook-id"], refused.body) == (taken.headers["webhook-id"], taken.body)


def test_a_signature_within_the_overlap_stays_valid_after_its_end(operator: Operator, tls: ssl.SSLContext) -> None:
    with at_the_door(operator, tls) as (receiver, send):
        old = operator.json_of(f"webhooks add mine {receiver.url}")["secret"]
        new = operator.json_of(f"webhooks rotate mine --overlap {OVERLAP_S}s")["secret"]
        # The latest possible end: the overlap began a moment ago, and a worker waits five seconds for a handshake.
        ends_at = datetime.now(UTC).timestamp() + OVERLAP_S
        send()
        until(lambda: datetime.now(UTC).timestamp() > ends_at, what="the end of the overlap")
        receiver.open()
        operator.await_statuses("delivered")

        operator.types("webhooks test mine --wait 60")

    within, beyond = receiver.received
    assert (verifies(within, old), verifies(within, new)) == (True, True)
    assert (verifies(beyond, old), verifies(beyond, new)) == (False, True)
