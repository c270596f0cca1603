"""Redis is away for long or changes its role: calls in flight end, no job is lost, waiting jobs go on at once.

`pytest -s` prints the delay until they went on.
"""

import time
from collections import Counter
from collections.abc import Iterator

import pytest
from redis import Redis

from tests.flow.receivers import ALLOWED, register
from tests.flow.system import System, request
from tests.pool.workers import until
from worker.dev.receiver import Received, ReceiverAnswer, WebhookReceiver
from worker.dev.redis import RedisServer

JUST_BEGUN = "SELECT id FROM jobs_v1 WHERE status = 'in_progress' AND started_at > clock_timestamp() - interval '0.5 s'"
IN_PROGRESS = "SELECT id FROM jobs_v1 WHERE status = 'in_progress'"
COMPLETED = "SELECT id FROM jobs_v1 WHERE status = 'completed'"
STANDS = "SELECT status FROM webhook_deliveries_v1"
DUE = "SELECT 1 FROM afterword_deliveries WHERE status = 'queued' AND run_at <= clock_timestamp()"
REFUSED = 10


# Long for a test; further tests may load the machine as well.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def other() -> Iterator[RedisServer]:
    """Yield another Redis server."""
    made = RedisServer().start()
    yield made
    made.remove()


def queue(system: System, number: int, *, latency_s: float) -> None:
    """Queue jobs by SQL, because that needs no Redis."""
    for _ in range(number):
        system.insert(request(fake={"latency_s": latency_s}))


def count(system: System, statement: str) -> int:
    return len(system.rows(statement))


def await_count(system: System, statement: str, number: int, *, seconds: float = 60.0) -> None:
    until(
        lambda: count(system, statement) == number,
        what=f"{number} of {statement}, not {count(system, statement)}; {system.said()}",
        seconds=seconds,
    )


@pytest.mark.parametrize(
    "away_s", [20, pytest.param(120, marks=[pytest.mark.long, pytest.mark.timeout(300)])], ids=["20s", "120s"]
)
def test_events_of_an_outage_of_redis_are_sent_once_after_it(
    on_own_redis: System, server: RedisServer, away_s: float
) -> None:
    system = on_own_redis
    first: list[Received] = []

    def answer(got: Received) -> ReceiverAnswer:
        first.append(got)
        return ReceiverAnswer(500 if len(first) <= REFUSED else 200)

    with WebhookReceiver(answer=answer) as receiver:
        register(system.engine, receiver.url, schedule="[4, 4, 4, 4]")
        worker = system.start(concurrency=20, **ALLOWED)
        queue(system, REFUSED, latency_s=0.0)
        until(lambda: len(first) == REFUSED, what=f"one refusal for each job; {system.said()}")
        queue(system, 10, latency_s=3.0)
        await_count(system, IN_PROGRESS, 10)

        server.stop()
        stopped_at = time.monotonic()
        await_count(system, COMPLETED, 20)
        queue(system, 10, latency_s=0.0)
        until(lambda: time.monotonic() - stopped_at > away_s, what="the end of the outage", seconds=away_s + 10)
        assert (count(system, DUE), len(receiver.received)) == (20, REFUSED)
        server.start()
        back_at = time.monotonic()

        until(
            lambda: Counter(row.status for row in system.rows(STANDS)) == {"delivered": 30},
            what=f"all deliveries; {system.said()}",
            seconds=30,
        )
        print(f"Away for {away_s} s; all events arrived {time.monotonic() - back_at:.2f} s after Redis was back.")
        assert not worker.ended()
        assert count(system, COMPLETED) == 30
        came = Counter((got.headers["x-afterword-delivery-id"], got.headers["x-afterword-attempt"]) for got in first)
        rows = system.rows("SELECT delivery_id, attempt FROM afterword_delivery_attempts")
        assert came == Counter((str(row.delivery_id), str(row.attempt)) for row in rows)
        assert len(rows) == 30 + REFUSED
        system.assert_sound(lease_s=30)


def test_a_backlog_goes_on_when_a_failover_gives_the_workers_redis_its_role_back(
    on_own_redis: System, server: RedisServer, other: RedisServer
) -> None:
    system = on_own_redis
    near, far = Redis.from_url(server.url), Redis.from_url(other.url)
    far.replicaof("127.0.0.1", str(server.port))
    await_replica(far)
    worker = system.start(concurrency=10)
    queue(system, 500, latency_s=2.0)
    until(lambda: count(system, COMPLETED) > 20, what=f"the backlog is worked on; {system.said()}")
    # Calls end together because they began together: some calls that have just begun are still in flight at the check.
    until(lambda: count(system, JUST_BEGUN), what=f"calls that have just begun; {system.said()}")

    far.replicaof("NO", "ONE")
    near.replicaof("127.0.0.1", str(other.port))
    running = {row.id for row in system.rows(IN_PROGRESS)}
    await_replica(near)
    refused = ("READONLY", "read only")
    until(lambda: any(word in worker.text() for word in refused), what=f"Redis refuses; {system.said()}")
    await_count(system, IN_PROGRESS, 0)
    stood = {row.id for row in system.rows(COMPLETED)}
    assert running
    assert running <= stood
    assert not worker.ended()

    near.replicaof("NO", "ONE")
    back_at = time.monotonic()

    until(lambda: count(system, IN_PROGRESS), what=f"the backlog goes on; {system.said()}", seconds=5)
    print(f"The backlog went on {time.monotonic() - back_at:.2f} s after Redis could be written to.")
    until(lambda: count(system, COMPLETED) > len(stood) + 20, what=f"further jobs; {system.said()}")
    assert not worker.ended()
    assert system.rows("SELECT 1 FROM jobs_v1 WHERE attempts > 1 OR status = 'failed'") == []
    near.close()
    far.close()


def await_replica(redis: Redis) -> None:
    """Wait until a replica has all data of its master."""
    until(lambda: redis.info("replication").get("master_link_status") == "up", what="the replication", seconds=30)
