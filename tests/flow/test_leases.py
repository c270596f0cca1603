"""Leases and leadership of real workers: a lost lease ends calls, a dead leader is replaced, two leaders do no harm."""

import json
import signal
import threading

import pytest
from sqlalchemy import delete, update

from tests.flow.leadership import leader, process_of
from tests.flow.system import System, request
from tests.pool.workers import until
from worker.store.clock import now
from worker.store.tables import leaders, workers

SHORT = {"lease_s": 4.0, "beat_s": 0.2, "tick_s": 0.2}
CALLS = 5
# Half an answer and its usage, then silence; the next attempt gets an answer.
HALF = {"usage": "moonshot", "stall_after": 9, "stall_s": 600}


@pytest.mark.timeout(120)
def test_a_worker_that_lost_its_lease_ends_all_calls_and_keeps_their_partial_answers(system: System) -> None:
    worker = system.start(**SHORT)
    sent = [system.send(request("half", stream=True, n=2, fake={"attempts": [HALF, {}]})) for _ in range(CALLS)]
    until(lambda: system.fake.stats()["billed"] == CALLS, what="all answers have begun")

    with system.engine.begin() as connection:
        connection.execute(delete(workers))

    rows = system.await_all(sent)
    assert {(row.status, row.attempts) for row in rows.values()} == {("completed", 2)}
    until(lambda: system.fake.stats()["abandoned"] == CALLS, what="the end of every call at the endpoint")
    for first, second in map(system.attempts, sent):
        assert (first.outcome, first.billed, second.outcome) == ("unknown", "yes", "completed")
        partial = first.partial if isinstance(first.partial, dict) else json.loads(first.partial)
        assert "You said" in partial["choices"][0]["message"]["content"]
        assert first.completion_tokens is not None
        assert first.worker != second.worker
    assert not worker.ended()


@pytest.mark.timeout(120)
def test_a_leader_that_dies_is_followed_by_another_worker(system: System) -> None:
    for _ in range(2):
        system.start(**SHORT)
    first = leader(system)

    process_of(system, first).signal(signal.SIGKILL)
    system.redis.flushall()
    # No nudge exists for it: only the leader reads the inbox and rows that are not in Redis.
    system.insert(request())

    until(lambda: leader(system) != first, what="another leader", seconds=30)
    until(lambda: system.rows("SELECT 1 FROM jobs_v1 WHERE status = 'completed'"), what="the new leader's work")


@pytest.mark.timeout(120)
def test_two_dispatchers_at_once_start_nothing_twice(system: System) -> None:
    over = threading.Event()

    def unseat() -> None:
        """Take the leadership away again and again; each leader works for a while before it notices."""
        while not over.wait(0.05):
            with system.engine.begin() as connection:
                connection.execute(update(leaders).values(lease_until=now()))

    for _ in range(2):
        system.start(concurrency=5)
    rival = threading.Thread(target=unseat)
    rival.start()
    try:
        sent = [system.send(request(fake={"latency_s": 0.1}), priority=number % 10) for number in range(200)]
        rows = system.await_all(sent)
    finally:
        over.set()
        rival.join()

    assert {(row.status, row.attempts) for row in rows.values()} == {("completed", 1)}
    assert system.fake.stats()["requests"] == len(sent)
