"""One attempt at a delivery, by its small context: a database, a writer and a receiver are enough."""

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Engine, update

from tests.store.made import one, worker
from tests.store.receiving import MASTER, claimed, delivery, found, registration, sealed, state_of
from tests.webhooks.net.receiver import LOOPBACK
from worker.deliver import DeliveryContext, attempt
from worker.dev.receiver import ReceiverAnswer, WebhookReceiver
from worker.pool.running_calls import RunningCalls
from worker.pool.running_task import Call, Reason, enter
from worker.store.group_commit import Batcher
from worker.webhooks.net.send import WebhookClient
from worker.webhooks.store import claim, receivers, record
from worker.webhooks.store.tables import events

ATTEMPT = "SELECT outcome, error_code, http_status FROM afterword_delivery_attempts"


@pytest.fixture
def server() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def writer(engine: Engine) -> Iterator[Batcher]:
    made = Batcher(engine, apart=True)
    made.start()
    yield made
    made.close(timeout_s=10.0)


@pytest.fixture
def queued(engine: Engine, server: WebhookReceiver) -> str:
    """A delivery to the receiver that listens."""
    new = str(uuid.uuid4())
    with engine.begin() as connection:
        assert receivers.add(connection, new, registration(), sealed(new, url=server.url))
    made = delivery(engine, found(engine, new))
    with engine.begin() as connection:
        connection.execute(update(events).values(thin=b'{"id":"evt_1","data":{}}'))
    return made


class Attempts:
    """Attempts with one context, and what they announced and woke."""

    def __init__(self, engine: Engine, writer: Batcher, **changes: Any) -> None:
        self.mine, self.writer, self.changes = worker(engine), writer, changes
        self.running = RunningCalls()
        self.announced: list[tuple[str, ...]] = []
        self.woken: list[float] = []

    def make(self, delivery_id: str) -> None:
        asyncio.run(self._attempt(delivery_id))

    def cut(self, delivery_id: str, reason: Reason, *, when: Event) -> None:
        """Make an attempt, and cancel it from another thread once `when` is set."""

        async def main() -> None:
            enter(Call(asyncio.current_task()))
            self.running.loop = asyncio.get_running_loop()
            self.running.loop.run_in_executor(None, cancel)
            await self._attempt(delivery_id)

        def cancel() -> None:
            assert when.wait(30.0)
            self.running.cancel([delivery_id], reason)

        asyncio.run(main())

    async def _attempt(self, delivery_id: str) -> None:
        async with WebhookClient(LOOPBACK) as client:
            await attempt(replace(self.context(client), **self.changes), delivery_id)

    def context(self, client: WebhookClient) -> DeliveryContext:
        take = lambda connection, wanted: claim.claim(connection, wanted, slots=10)  # noqa: E731
        write = lambda connection, ended: record.record(connection, ended, slots=10)  # noqa: E731
        announce = lambda ids: self.announced.append(tuple(ids))  # noqa: E731
        return DeliveryContext(
            lambda: self.mine, self.writer, take, write, client, [MASTER], announce, self.woken.append, self.running
        )


def test_a_claim_that_is_lost_leaves_everything_as_it_is(
    engine: Engine, writer: Batcher, queued: str, server: WebhookReceiver
) -> None:
    attempts = Attempts(engine, writer)
    assert claimed(engine, worker(engine), queued) is not None

    attempts.make(queued)
    attempts.make(str(uuid.uuid4()))

    assert (state_of(engine, queued).status, state_of(engine, queued).attempt) == ("in_progress", 1)
    assert (attempts.announced, attempts.woken, server.received) == ([], [], [])


def test_an_event_that_is_taken_is_delivered_signed(
    engine: Engine, writer: Batcher, queued: str, server: WebhookReceiver
) -> None:
    attempts = Attempts(engine, writer)

    attempts.make(queued)

    assert state_of(engine, queued).status == "delivered"
    assert one(engine, ATTEMPT)[:] == ("delivered", None, 204)
    (received,) = server.received
    assert {"webhook-id", "webhook-timestamp", "webhook-signature", "x-key"} <= received.headers.keys()
    assert attempts.woken == []


def test_an_event_that_is_refused_is_queued_and_wakes_the_dispatcher_for_its_retry(
    engine: Engine, writer: Batcher, queued: str, server: WebhookReceiver
) -> None:
    server.answer = lambda _: ReceiverAnswer(503)
    attempts = Attempts(engine, writer)

    attempts.make(queued)

    row = state_of(engine, queued)
    assert (row.status, row.attempts_used, row.waiting_for) == ("queued", 1, "retry")
    assert one(engine, ATTEMPT)[:] == ("failed", "unavailable", 503)
    assert [5.0 <= delay_s <= 6.0 for delay_s in attempts.woken] == [True]


def test_a_secret_that_no_key_opens_spends_no_attempt(
    engine: Engine, writer: Batcher, queued: str, server: WebhookReceiver
) -> None:
    attempts = Attempts(engine, writer, secret_keys=[])

    attempts.make(queued)

    row = state_of(engine, queued)
    assert (row.status, row.attempts_used) == ("queued", 0)
    assert one(engine, ATTEMPT)[:] == ("released", "no_secret", None)
    assert server.received == []


@pytest.mark.parametrize(("reason", "status"), [(Reason.shutdown, "queued"), (Reason.lease_lost, "in_progress")])
def test_an_attempt_that_is_cut_after_it_was_sent_is_counted(
    engine: Engine, writer: Batcher, queued: str, server: WebhookReceiver, reason: Reason, status: str
) -> None:
    arrived, answers = Event(), Event()

    def wait(_: object) -> ReceiverAnswer:
        arrived.set()
        answers.wait(30.0)
        return ReceiverAnswer()

    server.answer = wait
    attempts = Attempts(engine, writer)

    attempts.cut(queued, reason, when=arrived)

    answers.set()
    row = state_of(engine, queued)
    assert (row.status, row.attempts_used) == (status, 1)
    assert one(engine, ATTEMPT)[:] == ("unknown", "worker_lost", None)
    assert (attempts.woken, queued in attempts.running) == ([1.0] if status == "queued" else [], False)
