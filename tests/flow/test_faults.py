"""Faults in operation: a full Redis; a database that hangs, fails over or is not there yet."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import Engine, text

from tests.flow.parts import conf, fill, leased
from tests.flow.system import System, request
from tests.pool.workers import ROOT, Child, until
from tests.store.made import accept_all, entry, job, one, rows
from worker.dev.redis import RedisServer
from worker.jobs.intake import Intake
from worker.jobs.intake_list import IntakeList
from worker.jobs.store.claim import claim
from worker.pool.event_loop import LoopThread
from worker.process.worker_process import WorkerProcess
from worker.queue.keys import OWNERS, own_list
from worker.queue.nudges import REJECTED, connect, read_window
from worker.store import leases
from worker.store.engine import open_engine
from worker.store.heartbeat import LeaseTimes
from worker.store.transitions import ClaimRequest

AWAY = "redis://127.0.0.1:1/0"


def test_the_owner_of_entries_is_recorded_before_they_are_moved(redis_url: str) -> None:
    fill(redis_url, 100)
    redis = connect(redis_url)
    gone = str(uuid.uuid4())

    taken = IntakeList(redis, lambda: gone, batch=64).take()  # the process dies here

    assert (len(taken.entries), redis.llen(own_list(gone))) == (64, 64)
    assert redis.smembers(OWNERS) == {gone.encode()}
    assert IntakeList(redis, lambda: "another", batch=64).give_back(gone) == 64
    assert redis.llen("chat.intake") == 100


def test_a_message_that_comes_after_a_flush_while_a_dying_worker_waits_for_one_is_not_lost(redis_url: str) -> None:
    gone = str(uuid.uuid4())
    waits = f"""
from worker.queue.nudges import connect
from worker.jobs.intake_list import IntakeList
IntakeList(connect({redis_url!r}), lambda: {gone!r}, batch=64).take()
"""
    redis = connect(redis_url)

    def frozen() -> "subprocess.Popen[bytes]":
        """Start a worker's reader and stop it with SIGSTOP while it waits for a message."""
        reader = subprocess.Popen([sys.executable, "-c", waits], cwd=ROOT)
        until(lambda: b"cmd=blmove" in redis.execute_command("CLIENT", "LIST"), what="the reader waits")
        reader.send_signal(signal.SIGSTOP)
        return reader

    reader = frozen()
    redis.flushall()  # this also deletes the set of list owners
    fill(redis_url, 1)
    reader.kill()
    reader.wait()

    assert redis.llen("chat.intake") == 1 or gone.encode() in redis.smembers(OWNERS)


def test_a_worker_whose_lease_changed_gives_its_old_list_back(redis_url: str) -> None:
    fill(redis_url, 3)
    redis = connect(redis_url)
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    taking = IntakeList(redis, lambda: ids[0], batch=64)
    taking.take()
    ids.pop(0)

    assert len(taking.take().entries) == 3
    assert redis.smembers(OWNERS) == {ids[0].encode()}


def test_a_full_redis_is_emptied_by_the_intake(engine: Engine, database_url: str) -> None:
    server = RedisServer().start()
    redis = connect(server.url)
    fill(server.url, 50, size=50_000)
    redis.config_set("maxmemory", redis.info("memory")["used_memory"] - 100_000)
    intake = Intake(engine, redis, conf(database_url, server.url), worker_id=lambda: "w", free_slots=lambda: 10)
    intake.start()
    try:
        until(lambda: not redis.llen("chat.intake"), what="the intake is empty")
    finally:
        intake.stop()
        server.remove()
    assert one(engine, "SELECT count(*) AS n FROM jobs_v1").n == 50


@pytest.fixture
def host(sqlite_url: str, redis_url: str) -> Any:
    made = WorkerProcess(conf(sqlite_url, redis_url, tick_s="0.05", lease_s="3", beat_s="0.1"))
    made.open()
    yield made
    made.dispatcher.stop()
    made.close()


def nudged(host: WorkerProcess) -> Callable[[], set[bytes]]:
    return lambda: set(read_window(host.redis, "chat.run"))


def test_unreadable_entries_do_not_stop_dispatch(host: WorkerProcess) -> None:
    host.redis.lpush(REJECTED, b"not json", b'{"queue": 3}')
    accept_all(host.engine, entry())

    host.dispatcher.start()

    until(nudged(host), what="the due row is nudged")
    found = until(lambda: rows(host.engine, "SELECT reason FROM afterword_dead_letters"), what="the dead letters")
    assert {row.reason for row in found} == {"unreadable"}


def test_copies_of_a_conflict_in_the_inbox_do_not_stop_dispatch(host: WorkerProcess) -> None:
    accept_all(host.engine, entry(job(idempotency_key="k")))
    conflict = json.dumps({"id": str(uuid.uuid4()), "idempotency_key": "k", "request": request("other")})
    with host.engine.begin() as connection:
        for _ in range(2):
            connection.execute(text("INSERT INTO submit_v1 (job) VALUES (:job)"), {"job": conflict})

    host.dispatcher.start()

    until(nudged(host), what="the due row is nudged")
    until(lambda: not rows(host.engine, "SELECT 1 FROM afterword_inbox"), what="the inbox is drained")


def test_jobs_expire_while_redis_is_away(sqlite_url: str) -> None:
    host = WorkerProcess(conf(sqlite_url, "redis://127.0.0.1:1/0", tick_s="0.05", lease_s="3", beat_s="0.1"))
    host.open()
    accept_all(host.engine, entry(job(deadline="2020-01-01T00:00:00Z")))
    host.dispatcher.start()
    try:
        until(lambda: rows(host.engine, "SELECT 1 FROM jobs_v1 WHERE status = 'expired'"), what="the job expires")
    finally:
        host.dispatcher.stop()
        host.close()


def test_heartbeats_across_a_stall_of_the_database_are_no_evidence(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    lease = leased(engine, LeaseTimes(3.0, 0.1))
    lease.start()
    until(lambda: lease.unbroken_s() > 0.5, what="some beats")
    with engine.connect() as stall:
        stall.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        stall.execute(text("LOCK TABLE afterword_workers IN ACCESS EXCLUSIVE MODE"))
        until(lambda: lease.unbroken_s() == 0.0, what="the stall is noticed")
        stall.rollback()
    until(lambda: lease.unbroken_s() > 0.0, what="it beats again")

    assert lease.unbroken_s() < 1.0
    lease.stop()
    engine.dispose()


@pytest.mark.parametrize("setting", ["endpoint_ca_file", "webhook_ca_file"])
def test_the_loop_turns_while_certificates_are_read(sqlite_url: str, tmp_path: Path, setting: str) -> None:
    path, authority = tmp_path / "ca.pem", trustme.CA()
    authority.cert_pem.write_to_path(str(path))
    # An endpoint without TLS would read no certificates.
    host = WorkerProcess(conf(sqlite_url, AWAY, endpoint_url="https://127.0.0.1:9", **{setting: str(path)}))
    # A file as slow as the test wants: its reader waits until the test writes.
    path.unlink()
    os.mkfifo(path)
    loop = LoopThread(block_s=60)
    loop.start()
    opened = loop.submit(host._open_clients())
    slow = until(lambda: _written_to(path), what="a reader of the file")
    try:
        turned_at = loop.ticked_at
        until(lambda: loop.ticked_at > turned_at, what="the loop's next turn", seconds=10)
        os.write(slow, authority.cert_pem.bytes())
    finally:
        os.close(slow)

    opened.result(10)
    loop.submit(host._close_clients()).result(10)
    loop.stop(patience_s=10)
    host.engine.dispose()


def _written_to(path: Path) -> int | None:
    """Open the pipe for writing; return None while it has no reader."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_drops_of_the_connection_between_two_beats_do_not_restart_the_evidence(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    lease = leased(engine, LeaseTimes(9.0, 0.1))
    drop_all = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    killer = open_engine(postgresql_url, reading=True)
    lease.start()

    def renewed_at() -> Any:
        return rows(killer, "SELECT lease_until FROM afterword_workers")[0].lease_until

    def older_after_another_drop() -> bool:
        before = renewed_at()
        with killer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(drop_all)
        until(lambda: renewed_at() > before, what="a heartbeat")
        return lease.unbroken_s() > 3.0

    try:
        until(older_after_another_drop, what="three seconds of evidence", seconds=40)
    finally:
        lease.stop()
        engine.dispose()
        killer.dispose()


def test_a_job_just_claimed_is_not_forgotten_while_the_loop_is_late(host: WorkerProcess) -> None:
    (accepted,) = accept_all(host.engine, entry())
    assert accepted.job_id
    with host.engine.begin() as connection:
        assert claim(connection, [ClaimRequest(accepted.job_id, host.worker_id)])[0]

    for _ in range(3):
        host._release_orphans()  # no loop has turned yet

    assert one(host.engine, "SELECT status FROM jobs_v1").status == "in_progress"


def test_a_worker_of_one_role_stops_cleanly(postgres_system: System) -> None:
    worker = postgres_system.start("-Q", "chat.run")
    until(lambda: "Connected to" in worker.text(), what="the worker runs")

    worker.signal(signal.SIGTERM)

    assert worker.wait(30) == 0
    assert "Error" not in worker.text()
    assert postgres_system.rows("SELECT 1 FROM afterword_workers") == []


def test_a_worker_waits_for_a_database_that_is_away(postgres_system: System, tmp_path: Path) -> None:
    child = Child(
        [sys.executable, "-m", "celery", "-A", "worker.app", "worker"],
        log=tmp_path / "log",
        environment=postgres_system.environment(database_url="postgresql://u:hunter2secret@127.0.0.1:1/x"),
    )
    try:
        until(lambda: child.text().count("database.away") > 1 or child.ended(), what="the worker waits")
        assert not child.ended(), child.text()
        assert "hunter2secret" not in child.text()
    finally:
        child.kill()


def test_an_answer_is_held_until_the_database_takes_writes_again(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    job_id = system.send(request(fake={"latency_s": 1.5}))
    system.await_status(job_id, "in_progress")
    until(lambda: system.fake.stats()["requests"] == 1, what="the request is on the wire")

    admin = open_engine(system.database_url, reading=True)
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        alter = f'ALTER DATABASE "{admin.url.database}" SET default_transaction_read_only ='
        drop = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute(text(f"{alter} on"))
        connection.execute(text(drop))
        until(lambda: "session is read-only" in system.said(), what="a refused connection")
        connection.execute(text("SET default_transaction_read_only = off"))
        connection.execute(text(f"{alter} off"))
        connection.execute(text(drop))
    admin.dispose()
    system.engine.dispose()

    row = system.await_status(job_id, seconds=30)
    assert (row.status, row.attempts) == ("completed", 1)
    assert system.fake.stats()["requests"] == 1


def test_a_stopped_worker_buys_no_more_than_the_budget(postgres_system: System) -> None:
    system = postgres_system
    worker = system.start(drain_s=0.3)
    job_id = system.send(request(fake={"attempts": [{"latency_s": 60}, {}]}), max_attempts=1)
    until(lambda: system.fake.stats()["requests"] == 1, what="the request is on the wire")

    worker.signal(signal.SIGTERM)
    worker.wait(30)

    row = system.job(job_id)
    assert (row.status, row.error_code) == ("failed", "worker_lost")


def test_the_life_of_a_lease_that_was_taken_back(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    lost: list[str] = []
    lease = leased(engine, LeaseTimes(3.0, 0.05), on_lost=lambda: lost.append("lost"))
    lease.start()
    first = lease.worker_id
    with engine.begin() as connection:
        leases.resign(connection, first)

    until(
        lambda: lease.worker_id != first and len(rows(engine, "SELECT 1 FROM afterword_workers")) == 1,
        what="a new lease",
    )

    assert lost == ["lost"]
    lease.stop()
    engine.dispose()


def test_a_lease_is_not_renewed_while_the_loop_is_stalled(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    lease = leased(engine, LeaseTimes(3.0, 0.05), ticked_at=lambda: time.monotonic() - 2.0)
    lease.start()
    until(lambda: lease.unbroken_s() == 0.0, what="the heartbeat is withheld")
    lease.stop()
    engine.dispose()


def test_a_job_whose_request_was_deleted_fails_and_others_run(postgres_system: System) -> None:
    system = postgres_system
    gone, fine = (str(each.job_id) for each in accept_all(system.engine, entry(), entry()))
    with system.engine.begin() as connection:
        connection.execute(text("DELETE FROM afterword_requests WHERE job_id = :gone"), {"gone": gone})
    system.is_sound = False

    system.start()

    row = system.await_status(gone)
    assert (row.status, row.error_code) == ("failed", "internal_error")
    assert [one.sent_at for one in system.attempts(gone)] == [None]
    assert system.await_status(fine).status != "queued"
    assert len(system.lines("request.missing")) == 1
