"""Webhooks end to end: a job ends, a real worker signs and sends its event, and obeys the receiver's answer."""

import json
from collections.abc import Iterator

import pytest

from tests.flow.receivers import ALLOWED, register
from tests.flow.system import System, request
from tests.pool.workers import until
from worker.dev.receiver import Received, ReceiverAnswer, WebhookReceiver

DELIVERIES = "SELECT * FROM webhook_deliveries_v1 ORDER BY created_at, id"


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as made:
        yield made


def delivered(system: System, count: int = 1) -> list[object]:
    until(
        lambda: len([row for row in system.rows(DELIVERIES) if row.status == "delivered"]) >= count,
        what=f"{count} deliveries; {system.rows(DELIVERIES)}; {system.said()}",
    )
    return system.rows(DELIVERIES)


def test_a_default_receiver_gets_the_end_of_a_job(system: System, receiver: WebhookReceiver) -> None:
    receiver.secrets = (register(system.engine, receiver.url),)
    system.start(**ALLOWED)

    job_id = system.send(metadata={"team": "search"})

    [row] = delivered(system)
    [got] = receiver.received
    assert got.fault is None
    assert got.event is not None
    assert (got.event["type"], got.event["data"]["id"], got.event["sequence"]) == ("job.completed", job_id, 1)
    assert got.event["data"]["response"]["choices"][0]["message"]["content"]
    assert got.event["data"]["metadata"] == {"team": "search"}
    assert got.headers["x-afterword-attempt"] == "1"
    assert (str(row.job_id), row.receiver, row.attempts, row.last_http_status) == (job_id, "mine", 1, 204)
    # A numeric address and plain HTTP: no name lookup and no TLS.
    [times] = system.rows("SELECT dns_ms, connect_ms, tls_ms, total_ms FROM afterword_delivery_attempts")
    assert (times.dns_ms, times.tls_ms) == (None, None)
    assert 0 <= times.connect_ms <= times.total_ms


def test_jobs_name_a_receiver_a_url_or_none(postgres_system: System, receiver: WebhookReceiver) -> None:
    system = postgres_system
    register(system.engine, f"{receiver.url}/named", name="named", is_default=False)
    register(system.engine, f"{receiver.url}/default", name="default")
    system.start(**ALLOWED)

    ids = [
        system.send(webhook={"to": "named"}),
        system.send(webhook={"url": f"{receiver.url}/brought"}),
        system.send(webhook=None),
        system.send(),
    ]

    system.await_all(ids)
    delivered(system, 3)
    ids_by_path = {got.path: json.loads(got.body)["data"]["id"] for got in receiver.received}
    assert ids_by_path == {"/hooks/named": ids[0], "/hooks/brought": ids[1], "/hooks/default": ids[3]}
    assert len(receiver.received) == 3


def test_refused_and_failed_jobs_have_events_too(postgres_system: System, receiver: WebhookReceiver) -> None:
    system = postgres_system
    receiver.secrets = (register(system.engine, receiver.url),)
    system.start(**ALLOWED)

    refused = system.send({"model": "m"})
    failed = system.send(request(model="fake-400"))

    delivered(system, 2)
    events = {got.event["data"]["id"]: got.event for got in receiver.received if got.event is not None}
    assert {events[one]["type"] for one in (refused, failed)} == {"job.failed"}
    assert events[refused]["data"]["error"]["faults"]


def test_a_refused_delivery_is_sent_again_with_the_same_id_and_bytes(
    postgres_system: System, receiver: WebhookReceiver
) -> None:
    system = postgres_system

    def answer(got: Received) -> ReceiverAnswer:
        return ReceiverAnswer(500 if len(receiver.received) < 3 else 200)

    receiver.answer = answer
    receiver.secrets = (register(system.engine, receiver.url, schedule="[1, 1, 1]"),)
    system.start(**ALLOWED)

    system.send()

    [row] = delivered(system)
    assert row.attempts == 3
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert len({got.body for got in receiver.received}) == 1
    assert [got.headers["x-afterword-attempt"] for got in receiver.received] == ["1", "2", "3"]
    assert all(got.fault is None for got in receiver.received)
    attempts = system.rows("SELECT outcome, http_status FROM afterword_delivery_attempts ORDER BY attempt")
    assert [tuple(one) for one in attempts] == [("failed", 500), ("failed", 500), ("delivered", 200)]


def test_a_receiver_that_is_gone_is_disabled_and_its_events_are_held(
    postgres_system: System, receiver: WebhookReceiver
) -> None:
    system = postgres_system
    receiver.answer = lambda _: ReceiverAnswer(410)
    register(system.engine, receiver.url)
    system.start(**ALLOWED)
    system.await_status(system.send())
    until(
        lambda: system.rows("SELECT 1 FROM afterword_receivers WHERE status = 'disabled'"), what="the disabled receiver"
    )

    system.await_status(system.send())

    until(lambda: [row.status for row in system.rows(DELIVERIES)] == ["cancelled", "held"], what="the held delivery")
    assert len(receiver.received) == 1
    assert system.lines("receiver.disabled")[0]["reason"] == "gone"


def test_deliveries_of_a_key_keep_their_order_while_others_go_on(
    postgres_system: System, receiver: WebhookReceiver
) -> None:
    system = postgres_system
    tries: dict[str, int] = {}

    def answer(got: Received) -> ReceiverAnswer:
        job_id = json.loads(got.body)["data"]["id"]
        tries[job_id] = tries.get(job_id, 0) + 1
        return ReceiverAnswer(500 if job_id == first and tries[job_id] == 1 else 200)

    receiver.answer = answer
    first = "00000000-0000-4000-8000-000000000001"
    register(system.engine, receiver.url, ordering="per_key", schedule="[1]")
    system.start(**ALLOWED)

    system.send(id=first, ordering_key="k")
    system.await_status(first)
    others = [system.send(ordering_key="k") for _ in range(3)] + [system.send(ordering_key="other")]
    system.await_all(others)

    delivered(system, 5)
    keyed = [json.loads(got.body) for got in receiver.received if json.loads(got.body)["data"]["ordering_key"] == "k"]
    assert [one["sequence"] for one in keyed] == [1, 1, 2, 3, 4]


def test_a_given_up_delivery_leaves_a_gap_that_the_next_one_reports(
    postgres_system: System, receiver: WebhookReceiver
) -> None:
    system = postgres_system
    first = "00000000-0000-4000-8000-000000000001"
    receiver.answer = lambda got: ReceiverAnswer(500 if json.loads(got.body)["data"]["id"] == first else 200)
    register(system.engine, receiver.url, ordering="per_key", schedule="[1]")
    system.start(**ALLOWED)

    system.send(id=first, ordering_key="k")
    system.await_status(first)
    system.await_status(system.send(ordering_key="k"))

    delivered(system)
    assert [row.status for row in system.rows(DELIVERIES)] == ["failed", "delivered"]
    last = json.loads(receiver.received[-1].body)
    assert (last["sequence"], last["previous_undelivered"]) == (2, True)


def test_a_full_body_that_is_too_large_for_a_receiver_is_followed_by_a_thin_one(
    postgres_system: System, receiver: WebhookReceiver
) -> None:
    system = postgres_system
    receiver.answer = lambda got: ReceiverAnswer(413 if b'"result_omitted":false' in got.body else 200)
    register(system.engine, receiver.url, schedule="[1]")
    system.start(**ALLOWED)

    system.send()

    [row] = delivered(system)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert json.loads(second.body)["data"]["result_omitted"] is True
    assert row.attempts == 2


def test_an_address_in_a_job_is_refused_where_the_operator_did_not_allow_it(
    postgres_system: System, receiver: WebhookReceiver
) -> None:
    system = postgres_system
    system.start(**{**ALLOWED, "webhook_allow_urls": "false"})

    row = system.await_status(system.send(webhook={"url": receiver.url}))

    assert (row.status, row.error_code) == ("failed", "invalid_request")
    assert "webhook.url is not taken" in row.error_message
    assert system.rows(DELIVERIES) == []


def test_a_forbidden_address_is_never_connected_to(postgres_system: System, receiver: WebhookReceiver) -> None:
    system = postgres_system
    register(system.engine, receiver.url, schedule="[1]")
    system.start(**{**ALLOWED, "webhook_allow_cidrs": "10.0.0.0/8"})

    system.await_status(system.send())

    until(lambda: [row.status for row in system.rows(DELIVERIES)] == ["failed"], what="the failed delivery")
    assert receiver.received == []
    [row] = system.rows(DELIVERIES)
    assert row.last_error_code == "target_forbidden"
    attempts = system.rows("SELECT sent_at FROM afterword_delivery_attempts")
    assert [one.sent_at for one in attempts] == [None, None]


def test_a_jobs_address_never_leads_to_this_services_own_redis(postgres_system: System) -> None:
    system = postgres_system
    system.start(**ALLOWED)

    where = system.redis_url.partition("://")[2].rpartition("@")[2].partition("/")[0]
    system.await_status(system.send(webhook={"url": f"http://{where}/"}))

    until(lambda: [row.last_error_code for row in system.rows(DELIVERIES)] == ["target_forbidden"], what="a refusal")


def test_a_worker_without_the_receivers_key_spends_no_attempt_and_one_with_it_delivers(
    postgres_system: System, receiver: WebhookReceiver
) -> None:
    system = postgres_system
    # It starts before a receiver exists, so its missing key causes no error yet.
    keyless = system.start(webhook_allow_http="true", webhook_allow_cidrs="127.0.0.0/8")
    register(system.engine, receiver.url, schedule="[1]")
    system.await_status(system.send())
    left = "SELECT status, attempt, attempts_used, last_error_code FROM afterword_deliveries"
    until(lambda: system.rows(left)[0].last_error_code == "no_secret", what=f"an attempt; {system.said()}")

    assert [tuple(row) for row in system.rows(left)] == [("queued", 1, 0, "no_secret")]
    [health] = system.rows("SELECT health FROM afterword_receivers")
    assert health.health is None
    keyless.kill()
    with system.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE afterword_deliveries SET run_at = now()")
    system.start(**ALLOWED)

    delivered(system)
    assert [tuple(row)[1:] for row in system.rows(left)] == [(2, 1, None)]
    outcomes = "SELECT outcome, error_code, sent_at IS NULL FROM afterword_delivery_attempts ORDER BY attempt"
    assert [tuple(row) for row in system.rows(outcomes)] == [
        ("released", "no_secret", True),
        ("delivered", None, False),
    ]


def test_a_delivery_without_its_body_fails_with_its_own_code(
    postgres_system: System, receiver: WebhookReceiver
) -> None:
    system = postgres_system
    register(system.engine, receiver.url)
    accepting = system.start("-Q", "chat.intake,chat.run", **ALLOWED)
    system.await_status(system.send())
    with system.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM afterword_events")
    system.is_sound = False
    system.start("-Q", "webhooks", **ALLOWED)

    until(lambda: [row.status for row in system.rows(DELIVERIES)] == ["failed"], what=f"the end; {system.said()}")

    assert [row.last_error_code for row in system.rows(DELIVERIES)] == ["no_body"]
    assert receiver.received == []
    accepting.kill()
