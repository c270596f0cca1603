"""Deliveries while things break: workers that die or freeze, Redis and PostgreSQL away, a receiver that is dead."""

import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.flow.receivers import ALLOWED, register
from tests.flow.system import System, request
from tests.pool.workers import until
from worker.dev.receiver import Answer, Received, WebhookReceiver

QUICK = {**ALLOWED, "lease_s": "2", "beat_s": "0.2", "tick_s": "0.2"}
STANDS = "SELECT status, attempts, last_error_code FROM webhook_deliveries_v1 ORDER BY created_at, id"
ATTEMPTS = "SELECT outcome, error_code FROM afterword_delivery_attempts ORDER BY attempt"


class Gate:
    """An answer that waits until the gate is opened, for as many requests as it is told to hold."""

    def __init__(self, hold: int = 1) -> None:
        self._left, self._open = hold, threading.Event()
        self._lock = threading.Lock()

    def __call__(self, got: Received) -> Answer:
        with self._lock:
            self._left -= 1
            holds = self._left >= 0
        if holds:
            self._open.wait(60)
        return Answer(200)

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

    until(lambda: outcomes(system)[0][0] != "unknown", what="what the frozen worker knows is kept")
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
    receiver.answer = lambda _: Answer(200)
    register(system.engine, receiver.url)
    # Nobody reads the nudges of deliveries yet.
    accepting = system.start("-Q", "chat.intake,chat.run", **QUICK)
    ids = [system.send() for _ in range(20)]
    system.await_all(ids)
    until(lambda: system.redis.llen("webhooks"), what="nudges stand")

    system.redis.flushall()
    system.start("-Q", "webhooks", **QUICK)

    until(lambda: len(receiver.received) == 20, what="all are told")
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


def test_a_receiver_removed_while_it_is_told_ends_its_deliveries(
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


def test_a_dead_receiver_delays_neither_a_healthy_one_nor_a_job(postgres_system: System) -> None:
    system = postgres_system
    silent, seen = threading.Event(), Counter[str]()

    def answer(got: Received) -> Answer:
        seen[got.path] += 1
        if got.path.endswith("dead"):
            silent.wait(20)
        return Answer(200)

    with WebhookReceiver(answer=answer) as receiver:
        register(system.engine, f"{receiver.url}/dead", name="dead", timeout_s=2.0)
        register(system.engine, f"{receiver.url}/well", name="well")
        system.start(**QUICK)

        ids = [system.send(request(str(number))) for number in range(200)]
        system.await_all(ids)

        until(lambda: seen["/hooks/well"] == 200, what=f"the healthy one has all; {seen}; {system.said()}")
        left = (
            "SELECT count(*) FROM webhook_deliveries_v1 WHERE receiver = 'dead' AND status IN ('queued', 'in_progress')"
        )
        # Not one was given up, and the breaker kept all but a few from being tried in vain.
        assert system.rows(left)[0][0] == 200
        assert seen["/hooks/dead"] <= 30
        silent.set()


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
