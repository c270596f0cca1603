"""A worker's clock is ten minutes wrong, another worker's is right: the database's clock decides."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.flow.receivers import ALLOWED, register
from tests.flow.system import System, request
from tests.pool.workers import Child, until
from worker.dev.receiver import Received, ReceiverAnswer, WebhookReceiver

QUICK = {**ALLOWED, "lease_s": "2", "beat_s": "0.2", "tick_s": "0.2", "concurrency": "10"}
STANDS = "SELECT status FROM webhook_deliveries_v1"
# A call that lasts longer than the lease.
LONG_S = 3.0
ASKED_S = 3
SOON_S = 4.0
LATE_S = 10.0

each_way = pytest.mark.parametrize("off_s", [600, -600], ids=["ahead", "behind"])
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as made:
        yield made


def in_(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def delivered(system: System, number: int) -> None:
    until(
        lambda: Counter(row.status for row in system.rows(STANDS)) == {"delivered": number},
        what=f"{number} deliveries; {Counter(row.status for row in system.rows(STANDS))}; {system.said()}",
    )


def assert_off(worker: Child, off_s: float) -> None:
    """Check that the worker's clock, in its first log line, is wrong by `off_s`; a right clock would prove nothing."""
    line = next(json.loads(line) for line in worker.text().splitlines() if line.startswith("{"))
    assert abs((datetime.fromisoformat(line["at"]) - in_(off_s)).total_seconds()) < 200


@each_way
def test_jobs_and_deliveries_know_nothing_of_a_wrong_clock(
    postgres_system: System, receiver: WebhookReceiver, off_s: float
) -> None:
    system = postgres_system
    register(system.engine, receiver.url)
    # The first worker leads: it dispatches, accepts, and ends leases and deadlines.
    wrong = system.start(clock_off_s=off_s, **QUICK)
    right = system.start(**QUICK)

    plain = [system.send(request(fake={"latency_s": LONG_S})) for _ in range(30)]
    again = [system.send(request(model="fake-500-once")) for _ in range(4)]
    later_at, soon_at = in_(SOON_S), in_(SOON_S)
    later = system.send(not_before=later_at.isoformat())
    within = system.send(deadline=in_(300).isoformat())
    ended = system.send(request(fake={"latency_s": 60.0}), deadline=soon_at.isoformat())
    rows = system.await_all([*plain, *again, later, within, ended])

    assert {rows[one].attempts for one in plain} == {1}
    assert {rows[one].attempts for one in again} == {2}
    assert Counter(row.status for row in rows.values()) == {"completed": 36, "expired": 1}
    assert rows[later].started_at >= later_at
    assert soon_at <= rows[ended].finished_at <= soon_at + timedelta(seconds=LATE_S)
    delivered(system, 37)
    assert len(receiver.received) == 37
    # Both worked, and neither took jobs from the other.
    assert len(system.rows("SELECT DISTINCT worker FROM attempts_v1")) == 2
    assert not system.lines("lease.taken_back") + system.lines("lease.lost")
    assert not wrong.ended()
    assert not right.ended()
    assert_off(wrong, off_s)
    system.assert_sound(lease_s=2)


@each_way
def test_a_date_to_come_back_at_counts_from_the_endpoints_own_date(postgres_system: System, off_s: float) -> None:
    system = postgres_system
    worker = system.start(clock_off_s=off_s, **QUICK)
    now = in_(0)
    again_at = format_datetime(now + timedelta(seconds=ASKED_S), usegmt=True)
    full = {"status": 429, "retry_after": again_at, "headers": {"date": format_datetime(now, usegmt=True)}}

    job_id = system.send(request(fake={"attempts": [full, {}]}))

    system.await_status(job_id, "completed")
    assert_off(worker, off_s)
    first, second = system.attempts(job_id)
    assert first.retry_after_s == ASKED_S
    assert (second.sent_at - first.finished_at).total_seconds() >= ASKED_S


@each_way
def test_a_date_to_come_back_at_counts_from_the_receivers_own_date(
    postgres_system: System, receiver: WebhookReceiver, off_s: float
) -> None:
    system = postgres_system

    def answer(got: Received) -> ReceiverAnswer:
        # The server adds its own Date header.
        again_at = format_datetime(in_(ASKED_S), usegmt=True)
        return ReceiverAnswer(503, {"retry-after": again_at}) if len(receiver.received) == 1 else ReceiverAnswer(200)

    receiver.answer = answer
    register(system.engine, receiver.url, schedule="[1]")
    system.start(clock_off_s=off_s, **QUICK)

    system.send()

    asked = "SELECT retry_after_s FROM afterword_delivery_attempts WHERE http_status = 503"
    until(lambda: system.rows(asked), what=f"the first answer; {system.said()}")
    # An HTTP date is in whole seconds.
    assert abs((system.rows(asked)[0][0] or 0.0) - ASKED_S) <= 1
    delivered(system, 1)


@each_way
def test_a_signature_of_a_worker_with_a_wrong_clock_verifies(
    postgres_system: System, receiver: WebhookReceiver, off_s: float
) -> None:
    system = postgres_system
    receiver.secrets = (register(system.engine, receiver.url),)
    system.start(clock_off_s=off_s, **QUICK)

    system.send()

    delivered(system, 1)
    [got] = receiver.received
    assert got.fault is None
