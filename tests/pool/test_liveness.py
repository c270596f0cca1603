"""A thread that stalls is reported by name and place, once; an outage is no stall."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import structlog
from redis import Redis
from redis._parsers.base import BaseParser
from sqlalchemy import Engine

from tests.pool.workers import until
from worker.jobs.intake import Intake
from worker.pool.liveness import Liveness, thread_name
from worker.process.worker_process import WorkerProcess
from worker.queue.keys import is_redis_away
from worker.queue.nudges import connect
from worker.queue.pusher import Pusher
from worker.settings import Settings, read
from worker.store.group_commit import Batcher
from worker.store.heartbeat import HeldCalls, Lease, LeaseTimes

AWAY = "redis://127.0.0.1:1/0"


def soon() -> Liveness:
    return Liveness(stalled_s=0.3, look_s=0.02)


def conf(redis_url: str) -> Settings:
    return read({"AFTERWORD_ENDPOINT_URL": "https://one.example", "AFTERWORD_REDIS_URL": redis_url})


@contextmanager
def watched(liveness: Liveness) -> Iterator[list[dict[str, object]]]:
    """Watch the threads and yield the log lines."""
    with structlog.testing.capture_logs() as lines:
        liveness.start()
        try:
            yield lines  # type: ignore[misc]
        finally:
            liveness.stop()


def test_a_stalled_thread_is_logged_once_with_its_place_and_once_when_it_goes_on() -> None:
    liveness, gate, turns = soon(), threading.Event(), threading.Event()
    turned = liveness.turns("example")

    def wait_at_the_gate() -> None:
        turned()
        gate.wait()
        while not turns.wait(0.01):
            turned()

    thread = threading.Thread(target=wait_at_the_gate, name=thread_name("example"))
    with watched(liveness) as lines:
        thread.start()
        until(lambda: lines, what="the stall")
        assert "example" in liveness.stalled()
        gate.set()
        until(lambda: len(lines) == 2, what="the end of the stall")
        assert liveness.stalled() == {}
        turns.set()
        thread.join()

    assert [line["event"] for line in lines] == ["thread.stalled", "thread.resumed"]
    stalled = lines[0]
    assert (stalled["thread"], stalled["log_level"]) == ("example", "error")
    assert any("wait_at_the_gate" in place for place in stalled["where"])  # type: ignore[attr-defined]


def test_a_thread_that_has_ended_by_itself_counts_as_stalled() -> None:
    liveness = soon()
    with watched(liveness) as lines:
        liveness.turns("gone")()
        until(lambda: lines, what="the stall")

    assert lines[0]["where"] == ["the thread has ended"]


def test_a_thread_that_was_asked_to_end_is_forgotten() -> None:
    liveness = soon()
    liveness.turns("gone")()
    liveness.ask("asked", lambda: 0.0)
    assert set(liveness.quiet_s()) == {"gone", "asked"}

    liveness.forget("gone", "asked", "never there")

    assert liveness.quiet_s() == {}


def test_a_thread_that_does_not_run_yet_is_not_watched() -> None:
    liveness = soon()
    liveness.turns("not started")
    liveness.ask("asked", lambda: None)

    assert liveness.quiet_s() == {}


@pytest.mark.parametrize(("url", "is_stalled"), [(None, True), (AWAY, False)], ids=["a defect of ours", "Redis away"])
def test_an_intake_that_always_fails_is_stalled_and_one_that_waits_out_an_outage_is_not(
    engine: Engine, redis_url: str, url: str | None, is_stalled: bool
) -> None:
    failures: list[None] = []

    def worker_id() -> str:
        failures.append(None)
        if url is None:
            raise AttributeError("'NoneType' object has no attribute 'readline'")
        return "w"

    liveness = soon()
    redis = connect(url or redis_url)
    intake = Intake(engine, redis, conf(redis_url), worker_id=worker_id, free_slots=lambda: 1, liveness=liveness)
    intake.start()
    try:
        if is_stalled:
            until(lambda: "intake" in liveness.stalled(), what="the stall")
        else:
            # The pauses between tries grow, so this many tries take longer than a stall.
            liveness.stalled_s = 3.0
            until(lambda: len(failures) > 7, what="several tries")
            assert "intake" not in liveness.stalled()
    finally:
        intake._stopping.set()
        for thread in intake._threads:
            thread.join()
        redis.close()


REPLIES = {
    "OOM command not allowed when used memory > 'maxmemory'.": True,
    "READONLY You can't write against a read only replica.": True,
    "MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist to disk.": True,
    "NOREPLICAS Not enough good replicas to write.": True,
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": True,
    "LOADING Redis is loading the dataset in memory": True,
    "BUSY Redis is busy running a script.": True,
    "NOAUTH Authentication required.": True,
    "NOPERM this user has no permissions to run the 'evalsha' command": True,
    "WRONGTYPE Operation against a key holding the wrong kind of value": False,
    "ERR unknown command": False,
}


@pytest.mark.parametrize(("reply", "is_away"), REPLIES.items(), ids=[reply.split()[0] for reply in REPLIES])
def test_a_reply_says_whether_waiting_helps(reply: str, is_away: bool) -> None:
    assert is_redis_away(BaseParser.parse_error(reply)) is is_away  # type: ignore[no-untyped-call]


def test_threads_with_nothing_to_do_turn(engine: Engine, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.queue.pusher.WAIT_S", 0.01)
    monkeypatch.setattr("worker.store.group_commit.IDLE_S", 0.01)
    turns: dict[str, int] = {"writer": 0, "announce": 0, "lease": 0}

    def count(name: str) -> Callable[[], None]:
        def turned() -> None:
            turns[name] += 1

        return turned

    batcher = Batcher(engine, turned=count("writer"))
    announcer = Pusher(Redis.from_url(redis_url), "webhooks", room=1, turned=count("announce"))
    calls = HeldCalls(lambda: None, lambda: None, lambda connection, worker_id: [], lambda ids: None)
    lease = Lease(engine, LeaseTimes(5.0, 0.01), calls, name="w", slots=1, turned=count("lease"))
    parts = (batcher, announcer, lease)
    for part in parts:
        part.start()

    until(lambda: min(turns.values()) > 5, what="turns of each")

    batcher.close(timeout_s=5)
    announcer.stop()
    lease.stop()


def test_every_thread_of_a_worker_is_watched_under_its_own_name(
    database_url: str, redis_url: str, engine: Engine
) -> None:
    environment = {
        "AFTERWORD_ENDPOINT_URL": "https://one.example", "AFTERWORD_REDIS_URL": redis_url,
        "AFTERWORD_DATABASE_URL": database_url,
    }  # fmt: skip
    host = WorkerProcess(read(environment))
    host.open()
    try:
        host.dispatcher.start()
        host.intake.start()
        named = {thread_name(name) for name in until(lambda: _all(host), what="the first turns")}
        living = {thread.name for thread in threading.enumerate() if thread.name.startswith("afterword-")}
        # Two threads watch others: the tested one, and the watchdog of the loop.
        assert named == living - {"afterword-liveness", "afterword-watchdog"}
    finally:
        host.detach()
        host.close()
    assert host.liveness.stalled() == {}


def _all(host: WorkerProcess) -> set[str] | None:
    found = set(host.liveness.quiet_s())
    return found if {"intake", "dispatcher", "lease", "writer", "webhook-writer"} <= found else None
