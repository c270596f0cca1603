"""Deliveries during faults: workers die or freeze, Redis and PostgreSQL are away, a receiver is dead."""

import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from tests.flow.receivers import ALLOWED, register
from tests.flow.system import System, request
from tests.pool.workers import until
from worker.dev.receiver import Received, ReceiverAnswer, WebhookReceiver
from worker.webhooks.store.health_column import health_of, text_of
from worker.webhooks.store.tables import receivers

QUICK = {**ALLOWED, "lease_s": "2", "beat_s": "0.2", "tick_s": "0.2"}
STANDS = "SELECT status, attempts, last_error_code FROM webhook_deliveries_v1 ORDER BY created_at, id"
ATTEMPTS = "SELECT outcome, error_code FROM afterword_delivery_attempts ORDER BY attempt"


class Gate:
    """Holds the answers of the first `hold` requests until the gate is opened."""

    def __init__(self, hold: int = 1) -> None:
        self._left, self._open = hold, threading.Event()
        self._lock = threading.Lock()

    def __call__(self, got: Received) -> ReceiverAnswer:
        with self._lock:
            self._left -= 1
            holds = self._left >= 0
        if holds:
            self._open.wait(60)
        return ReceiverAnswer(200)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def receiver(gate: Gate) -> Iterator[WebhookReceiver]:
    with WebhookReceiver(answer=gate) as made:
        yield made
        gate.open()


def begun(system: System, receiver: WebhookReceiver) -> None:
    until(lambda: receiver.received, what=f"the first request; {system.said()}")


def delivered(system: System) -> None:
    until(lambda: {row.status for row in system.rows(STANDS)} == {"delivered"}, what=f"delivered; {system.said()}")


def outcomes(system: System) -> list[tuple[str | None, str | None]]:
    return [(row.outcome, row.error_code) for row in system.rows(ATTEMPTS)]


def test_a_worker_that_dies_after_it_sent_leaves_an_unknown_attempt_and_the_same_id_again(
    system: System, receiver: WebhookReceiver
) -> None:
    register(system.engine, receiver.url)
    first = system.start(**QUICK)
    system.send()
    begun(system, receiver)

    first.kill()
    system.start(**QUICK)

    delivered(system)
    assert outcomes(system) == [("unknown", "worker_lost"), ("delivered", None)]
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1


def test_a_worker_that_froze_comes_back_late_and_moves_nothing(
    postgres_system: System, receiver: WebhookReceiver, gate: Gate
) -> None:
    system = postgres_system
    register(system.engine, receiver.url)
    frozen = system.start(**QUICK)
    system.send()
    begun(system, receiver)
    frozen.signal(signal.SIGSTOP)
    system.start(**QUICK)
    delivered(system)

    frozen.signal(signal.SIGCONT)
    gate.open()

    until(lambda: outcomes(system)[0][0] != "unknown", what="the frozen worker's record")
    assert [row.status for row in system.rows(STANDS)] == ["delivered"]
    assert [row.attempts for row in system.rows(STANDS)] == [2]


def test_a_stopping_worker_gives_its_delivery_to_the_next(postgres_system: System, receiver: WebhookReceiver) -> None:
    system = postgres_system
    register(system.engine, receiver.url)
    first = system.start(**QUICK, drain_s="0")
    system.send()
    begun(system, receiver)

    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    system.start(**QUICK)

    delivered(system)
    assert outcomes(system)[0][0] == "unknown"


def test_a_flushed_redis_delays_a_delivery_and_loses_none(postgres_system: System, receiver: WebhookReceiver) -> None:
    system = postgres_system
    receiver.answer = lambda _: ReceiverAnswer(200)
    register(system.engine, receiver.url)
    # No worker reads the nudges of deliveries yet.
    accepting = system.start("-Q", "chat.intake,chat.run", **QUICK)
    ids = [system.send() for _ in range(20)]
    system.await_all(ids)
    until(lambda: system.redis.llen("webhooks"), what="nudges in Redis")

    system.redis.flushall()
    system.start("-Q", "webhooks", **QUICK)

    until(lambda: len(receiver.received) == 20, what="all deliveries")
    delivered(system)
    accepting.kill()


def test_a_database_that_cuts_its_connections_costs_no_answer_of_a_receiver(
    postgres_system: System, receiver: WebhookReceiver, gate: Gate
) -> None:
    system = postgres_system
    register(system.engine, receiver.url)
    system.start(**QUICK)
    system.send()
    begun(system, receiver)

    system.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    gate.open()

    delivered(system)
    assert len(receiver.received) == 1


def test_a_receiver_removed_during_a_delivery_ends_its_deliveries(
    postgres_system: System, receiver: WebhookReceiver, gate: Gate
) -> None:
    system = postgres_system
    register(system.engine, receiver.url, in_flight=1)
    system.start(**QUICK)
    system.await_all([system.send() for _ in range(2)])
    begun(system, receiver)

    with system.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE afterword_receivers SET status = 'removed'")
    gate.open()

    until(
        lambda: sorted(row.status for row in system.rows(STANDS)) == ["cancelled", "delivered"],
        what=f"one is delivered, one dropped; {system.rows(STANDS)}",
    )
    assert len(receiver.received) == 1


class Dead:
    """Accepts connections to `/dead` and never answers until it is back; answers all other paths at once.

    `crowded` lists (requests in flight, answered requests) for each moment above the ramp's limit.
    """

    RAMP = (1, 2, 4, 10)

    def __init__(self) -> None:
        self.seen, self.ids = Counter[str](), set[str]()
        self.back, self._lock = threading.Event(), threading.Lock()
        self._open = self._answered = 0
        self.crowded: list[tuple[int, int]] = []

    def __call__(self, got: Received) -> ReceiverAnswer | None:
        self.seen[got.path] += 1
        if not got.path.endswith("dead"):
            return ReceiverAnswer(200)
        if not self.back.is_set():
            self.back.wait(60)
            return None
        with self._lock:
            self._open += 1
            if self._open > self.RAMP[min(self._answered, 3)]:
                self.crowded.append((self._open, self._answered))
            first = self._answered < 50
        if first:
            # The pause lets requests overlap if they arrive together.
            threading.Event().wait(0.05)
        with self._lock:
            self._open -= 1
            # Counted before the answer, so that requests sent because of the answer find it counted.
            self._answered += 1
            self.ids.add(got.headers["webhook-id"])
        return ReceiverAnswer(200)


def breaker_is_half_open(system: System) -> None:
    """End the pause of the breaker of `dead`."""
    mine = receivers.c.name == "dead"
    with system.engine.begin() as connection:
        health = health_of(connection.execute(select(receivers.c.health).where(mine).with_for_update()).scalar())
        assert health.ramp == 1
        passed = text_of(replace(health, open_until_s=1.0))
        connection.execute(update(receivers).where(mine).values(health=passed))


def test_a_dead_receiver_delays_neither_a_healthy_one_nor_a_job_and_comes_back_by_steps(
    postgres_system: System,
) -> None:
    system, dead, events = postgres_system, Dead(), 1000
    of_dead = "SELECT status, count(*) AS n FROM webhook_deliveries_v1 WHERE receiver = 'dead' GROUP BY status"
    with WebhookReceiver(answer=dead) as receiver:
        register(system.engine, f"{receiver.url}/dead", name="dead", timeout_s=2.0)
        register(system.engine, f"{receiver.url}/well", name="well")
        system.start(**QUICK)

        ids = [system.send(request(str(number))) for number in range(events)]

        # The healthy receiver has the events of all jobs. No delivery to the dead receiver was given up, and most are
        # untried.
        until(lambda: dead.seen["/hooks/well"] == events, what=f"the healthy receiver's deliveries; {system.said()}")
        assert {row.status for row in system.await_all(ids).values()} == {"completed"}
        left = {row.status: row.n for row in system.rows(of_dead)}
        assert sum(left.get(status, 0) for status in ("queued", "in_progress")) == events
        assert dead.seen["/hooks/dead"] <= 30
        assert {row.status for row in system.rows("SELECT status FROM afterword_receivers")} == {"enabled"}

        until(lambda: "in_progress" not in {row.status for row in system.rows(of_dead)}, what="the last attempt's end")
        dead.back.set()
        breaker_is_half_open(system)

        until(
            lambda: len(dead.ids) == events,
            what=f"the other receiver's deliveries; {system.rows(of_dead)}; {system.said()}",
        )
        delivered(system)
        # Each was sent once, except unanswered deliveries and probes.
        assert dead.seen["/hooks/dead"] <= events + 30
    assert dead.crowded == []


@pytest.mark.parametrize("tenant", ["another", "slow"])
def test_slow_receivers_of_a_tenant_take_no_slot_from_a_healthy_one(postgres_system: System, tenant: str) -> None:
    system, done = postgres_system, threading.Event()
    slow, events, few = ("one", "two", "three"), 60, 10
    came = Counter[str]()

    def answer(got: Received) -> ReceiverAnswer:
        if not got.path.endswith("well"):
            done.wait(2.0)
        came[got.path] += 1
        return ReceiverAnswer(200)

    with WebhookReceiver(answer=answer) as receiver:
        for name in slow:
            register(system.engine, f"{receiver.url}/{name}", name=name, tenant="slow")
        register(system.engine, f"{receiver.url}/well", name="well", tenant=tenant, is_default=False)
        system.start(**QUICK, webhook_slots="20")
        system.await_all([system.send(tenant="slow") for _ in range(events)])
        until(lambda: came, what=f"the first slow answer; {system.said()}")

        for _ in range(few):
            system.send(tenant=tenant, webhook={"to": "well"})
        until(lambda: came["/hooks/well"] == few, what=f"the healthy receiver's deliveries; {came}; {system.said()}")
        waiting = len(slow) * events - sum(came[f"/hooks/{name}"] for name in slow)

        done.set()
        delivered(system)
    # Its ten arrived before half of the slow receivers' deliveries.
    assert waiting > len(slow) * events / 2, came


def test_a_delivery_that_was_cut_off_before_it_had_a_connection_spends_no_attempt(
    postgres_system: System,
) -> None:
    system = postgres_system
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        register(system.engine, f"http://127.0.0.1:{full.getsockname()[1]}/")
        first = system.start(**QUICK, drain_s="0")
        system.send()
        until(lambda: outcomes(system), what=f"an attempt; {system.said()}")

        first.signal(signal.SIGTERM)
        assert first.wait() == 0
        for filler in fillers:
            filler.close()

    assert outcomes(system) == [("released", "worker_lost")]
    (row,) = system.rows("SELECT status, attempts_used FROM afterword_deliveries")
    assert (row.status, row.attempts_used) == ("queued", 0)
    assert [one.sent_at for one in system.rows("SELECT sent_at FROM afterword_delivery_attempts")] == [None]
