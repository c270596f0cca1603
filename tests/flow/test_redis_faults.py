"""Trouble of Redis for several workers: it refuses, freezes, or returns with an old snapshot. No job is lost or
doubled.
"""

import signal
from pathlib import Path

from redis import Redis

from tests.flow.system import System, request
from tests.pool.workers import until
from worker.dev.fake_endpoint import FakeEndpoint
from worker.dev.redis import RedisServer
from worker.store.engine import open_engine

COMPLETED = "SELECT count(*) FROM jobs_v1 WHERE status = 'completed'"


def queue(system: System, number: int, **script: object) -> None:
    """Queue jobs by SQL, because that needs no Redis."""
    for _ in range(number):
        system.insert(request(fake={"latency_s": 0.2, **script}))


def completed(system: System) -> int:
    return int(system.rows(COMPLETED)[0][0])


def goes_on(system: System, *, beyond: int) -> None:
    until(lambda: completed(system) > beyond, what=f"more than {beyond} jobs; {system.said()}", seconds=30)


def test_a_redis_that_refuses_every_command_stops_nothing_for_good(on_own_redis: System, server: RedisServer) -> None:
    system = on_own_redis
    admin = Redis.from_url(server.url)
    admin.execute_command("ACL", "SETUSER", "admin", "on", ">geheim", "~*", "&*", "+@all")
    admin = Redis.from_url(server.url, username="admin", password="geheim")
    worker = system.start(concurrency=10)
    queue(system, 400)
    goes_on(system, beyond=20)

    admin.execute_command("ACL", "SETUSER", "default", "-@all")
    running = system.rows("SELECT id FROM jobs_v1 WHERE status = 'in_progress'")
    until(
        lambda: not system.rows("SELECT 1 FROM jobs_v1 WHERE status = 'in_progress'"),
        what="the end of the calls in flight, and their records",
    )
    stood = completed(system)
    assert all(system.job(str(row.id)).status == "completed" for row in running)
    assert not worker.ended()
    admin.execute_command("ACL", "SETUSER", "default", "+@all")

    goes_on(system, beyond=stood + 50)
    assert not worker.ended()
    assert system.rows("SELECT 1 FROM jobs_v1 WHERE status = 'failed'") == []


def test_a_redis_that_freezes_for_ten_seconds_is_waited_out(on_own_redis: System, server: RedisServer) -> None:
    system = on_own_redis
    worker = system.start(concurrency=10)
    queue(system, 400)
    goes_on(system, beyond=20)
    assert server.child is not None

    server.child.send_signal(signal.SIGSTOP)
    try:
        until(lambda: len(system.lines("window.unreadable")) > 1, what="the worker's warnings", seconds=30)
    finally:
        server.child.send_signal(signal.SIGCONT)

    goes_on(system, beyond=completed(system) + 50)
    assert not worker.ended()


def test_an_old_snapshot_doubles_nothing(on_own_redis: System, server: RedisServer) -> None:
    system = on_own_redis
    # The snapshot's messages and nudges: one worker accepted them, no worker has run them yet.
    ids = [system.send(request(str(number))) for number in range(30)]
    accepting = system.start("-Q", "chat.intake")
    until(lambda: system.rows("SELECT count(*) FROM jobs_v1")[0][0] == 30, what="the acceptance of all jobs")
    accepting.signal(signal.SIGTERM)
    accepting.wait()
    more = [system.send(request(f"later {number}")) for number in range(10)]
    system.redis.save()
    system.start(concurrency=10)
    system.await_all(ids + more)

    server.stop(kill=True)
    server.start()

    new = system.send(request("new"))
    system.await_status(new)
    until(
        lambda: not system.redis.llen("chat.run") and not system.redis.llen("chat.intake"),
        what="the reading of all entries",
    )
    assert system.fake.stats()["requests"] == 41
    assert completed(system) == 41


def test_several_workers_share_one_sqlite_file(
    redis_url: str, sqlite_url: str, fake: FakeEndpoint, tmp_path: Path
) -> None:
    engine = open_engine(sqlite_url)
    system = System(redis_url, sqlite_url, engine, fake, tmp_path)
    try:
        for _ in range(3):
            system.start(concurrency=20)

        ids = [system.send(request(str(number), fake={"latency_s": 0.05})) for number in range(200)]
        found = system.await_all(ids, seconds=90)

        assert {row.status for row in found.values()} == {"completed"}
        assert {row.attempts for row in found.values()} == {1}
        assert system.fake.stats()["requests"] == 200
        assert len(system.rows("SELECT DISTINCT worker FROM attempts_v1")) > 1
    finally:
        system.close()
        engine.dispose()
