"""Purchases: one task is one request, and each request has a row that says if it was billed."""

import json
import signal
from typing import Any

import pytest

from tests.flow.system import System, request
from tests.pool.workers import until

MIXED: list[dict[str, Any]] = [
    {"attempts": [{"status": 500}, {}]},
    {"attempts": [{"status": 429, "retry_after": 0}, {}]},
    {"attempts": [{"no_answer": True}, {}]},
    {"attempts": [{"cut_at": 300, "reset": True}, {}]},
    {"attempts": [{"latency_s": 0.05}]},
    {"status": 400},
    {"body": "<html>", "content_type": "text/html"},
]


def test_the_endpoint_saw_as_many_requests_as_there_are_sent_attempts(system: System) -> None:
    system.start()
    ids = [system.send(request(stream=stream, fake=script)) for script in MIXED for stream in (False, True)]

    rows = system.await_all(ids, seconds=60)

    assert {row.status for row in rows.values()} == {"completed", "failed"}
    (sent,) = system.rows("SELECT count(*) AS n FROM attempts_v1 WHERE sent_at IS NOT NULL")
    assert sent.n == system.fake.stats()["requests"]
    for job_id in ids:
        attempts = system.attempts(job_id)
        assert [a.attempt for a in attempts] == list(range(1, len(attempts) + 1))
        assert system.fake.job(job_id)["requests"] == len(attempts)
        assert rows[job_id].attempts == len(attempts)


def test_usage_is_safe_to_sum_over_all_that_was_or_may_have_been_billed(system: System) -> None:
    system.start()
    cut = {"attempts": [{"cut_at": 900}, {}]}
    ids = [system.send(request("a b c d e f g h i j", stream=True, fake=cut)) for _ in range(3)]

    rows = system.await_all(ids)

    billed = system.rows("SELECT outcome, billed, total_tokens FROM usage_v1 ORDER BY outcome, job_id")
    assert [(b.outcome, b.billed) for b in billed] == [("completed", "yes")] * 3 + [("failed", "yes")] * 3
    (total,) = system.rows("SELECT sum(total_tokens) AS n FROM usage_v1")
    assert int(total.n) == sum(row.total_tokens for row in rows.values())


@pytest.mark.parametrize(
    ("setting", "script", "code", "billed"),
    [
        ("endpoint_retry_partial", {"cut_at": 900}, "stream_truncated", "yes"),
        ("endpoint_retry_ambiguous", {"no_answer": True}, "connection_lost", "unknown"),
    ],
)
def test_paying_twice_is_a_setting(
    postgres_system: System, setting: str, script: dict[str, Any], code: str, billed: str
) -> None:
    system = postgres_system
    system.start(**{setting: "false"})
    body = request("a b c d e f g h i j", stream=True, fake={"attempts": [script, {}]})

    row = system.await_status(system.send(body))

    assert (row.status, row.error_code, row.attempts) == ("failed", code, 1)
    (attempt,) = system.attempts(str(row.id))
    assert attempt.billed == billed
    assert (attempt.partial is not None) == (billed == "yes")


def test_a_lost_workers_request_is_not_repeated_where_that_is_unwanted(postgres_system: System) -> None:
    system = postgres_system
    timing = {"lease_s": 4.0, "beat_s": 0.2, "tick_s": 0.2, "endpoint_retry_ambiguous": "false"}
    worker = system.start(**timing)
    job_id = system.send(request(fake={"attempts": [{"latency_s": 60}, {}]}))
    until(lambda: system.fake.stats()["requests"] == 1, what="the request is on the wire")
    system.start(**timing)

    worker.signal(signal.SIGKILL)

    row = system.await_status(job_id)
    assert (row.status, row.error_code, row.attempts) == ("failed", "worker_lost", 1)


def test_an_ambiguous_failure_is_repeated_under_the_same_key_and_not_billed_twice_where_keys_are_honoured(
    postgres_system: System,
) -> None:
    system = postgres_system
    system.fake.endpoint.idempotency = "honoured"
    system.start()

    row = system.await_status(system.send(request(model="fake-no-answer-once")))

    assert (row.status, row.attempts) == ("completed", 2)
    first, second = system.attempts(str(row.id))
    assert (first.error_code, first.billed, second.billed) == ("connection_lost", "unknown", "yes")
    assert system.fake.stats()["requests"] == 2


def test_a_stream_reset_after_its_end_is_complete_and_not_bought_again(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    whole = request(stream=True, stream_options={"include_usage": False})
    first = system.await_status(system.send(whole))
    raw = system.rows("SELECT raw FROM afterword_answers WHERE job_id = :id", id=str(first.id))[0].raw
    end = bytes(raw).index(b"data: [DONE]")

    row = system.await_status(system.send({**whole, "fake": {"cut_at": end, "reset": True}}))

    assert (row.status, row.attempts, row.content, row.total_tokens) == ("completed", 1, "You said: hello", None)
    flags = system.attempts(str(row.id))[0].usage_flags
    assert "reset_after_finish" in (flags if isinstance(flags, list) else json.loads(flags))


def test_a_model_the_endpoint_does_not_offer_is_tried_three_times(postgres_system: System) -> None:
    system = postgres_system
    system.start()

    row = system.await_status(system.send(request(model="fake-no-model")), seconds=60)

    assert (row.status, row.error_code, row.attempts) == ("failed", "model_not_found", 3)


def test_the_endpoints_rate_limit_headers_are_kept_with_the_attempt(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    limits = {"x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-requests": "6m0s", "retry-after-ms": "20"}
    script = {"attempts": [{"status": 429, "headers": limits}, {}]}

    row = system.await_status(system.send(request(fake=script)))

    first = system.attempts(str(row.id))[0]
    assert json.loads(first.headers).items() >= limits.items()
    assert first.retry_after_s == 0.02
