"""Running a job: the request on the wire, the stored answer, and the step after a failure."""

import datetime
import gzip
import json
from typing import Any

from tests.flow.system import KEY, System, request
from tests.pool.workers import until
from worker.chat.usage import TOKENS
from worker.dev.fake.presets import ERRORS

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def as_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def raw_answer(system: System, job_id: str) -> bytes:
    (row,) = system.rows("SELECT raw, raw_encoding FROM afterword_answers WHERE job_id = :id", id=job_id)
    return gzip.decompress(bytes(row.raw)) if row.raw_encoding == "gzip" else bytes(row.raw)


def test_an_answer_is_in_sql_with_all_its_columns(system: System) -> None:
    system.start()
    body = request(temperature=0.5, seed=7, fake={"usage": "openai", "reasoning": "because", "cached_tokens": 1})

    row = system.await_status(system.send(body, metadata={"k": "v"}, batch="b", custom_id="c"))

    assert (row.status, row.finish_reason, row.content, row.refusal) == ("completed", "stop", "You said: hello", None)
    assert row.reasoning_content == "because"
    assert (row.batch, row.custom_id, as_json(row.metadata)) == ("b", "c", {"k": "v"})
    assert as_json(row.request) == body
    response = as_json(row.response)
    assert response["object"] == "chat.completion"
    assert (row.response_id, row.response_model) == (response["id"], response["model"])
    assert as_json(row.usage) == response["usage"]
    assert (row.prompt_tokens, row.cached_tokens) == (1, 1)
    assert json.loads(raw_answer(system, str(row.id))) == response
    (attempt,) = system.attempts(str(row.id))
    assert (attempt.outcome, attempt.billed, attempt.http_status) == ("completed", "yes", 200)
    assert attempt.request_id is not None
    assert [getattr(attempt, name) for name in TOKENS] == [getattr(row, name) for name in TOKENS]
    assert attempt.sent_at <= attempt.first_byte_at <= attempt.finished_at


def test_the_body_goes_out_as_it_came(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    text = '{"model" : "fake-echo", "messages":[{"role":"user","content":"h\\u00e9"}],  "temperature": 1.0, "x": 1e2}'
    message = '{"request": ' + text + "}"
    envelope = system.celery.amqp.as_task_v2("00000000-0000-4000-8000-000000000001", "chat.submit", args=(), kwargs={})
    system.redis.lpush(
        "chat.intake",
        json.dumps(
            {
                "body": f"[[{message}], {{}}, {{}}]",
                "content-type": "application/json",
                "headers": envelope.headers,
                "properties": {"delivery_tag": "x", "delivery_info": {}},
            }
        ),
    )

    system.await_status("00000000-0000-4000-8000-000000000001", "completed")

    (sent,) = system.fake.requests()
    assert sent["body"] == text


def test_a_stream_is_assembled_and_asks_for_its_usage(system: System) -> None:
    system.start()
    body = request("one two three", stream=True, n=2, tools=[TOOL])

    row = system.await_status(system.send(body))

    assert (row.status, row.finish_reason, row.content) == ("completed", "stop", "You said: one two three")
    response = as_json(row.response)
    assert response["object"] == "chat.completion"
    assert [choice["index"] for choice in response["choices"]] == [0, 1]
    assert row.total_tokens is not None
    (attempt,) = system.attempts(str(row.id))
    assert attempt.usage_requested
    assert attempt.first_token_at is not None
    (sent,) = system.fake.requests()
    assert json.loads(sent["body"]) == {**body, "stream_options": {"include_usage": True}}
    assert raw_answer(system, str(row.id)).endswith(b"data: [DONE]\n\n")


def test_a_caller_that_wants_no_usage_gets_none(postgres_system: System) -> None:
    system = postgres_system
    system.start()

    row = system.await_status(system.send(request(stream=True, stream_options={"include_usage": False})))

    assert (row.status, row.total_tokens, row.usage) == ("completed", None, None)
    assert not system.attempts(str(row.id))[0].usage_requested


def test_tool_calls_are_in_their_column(system: System) -> None:
    system.start()
    for stream in (False, True):
        row = system.await_status(system.send(request(model="fake-tools", tools=[TOOL], stream=stream)))
        (call,) = as_json(row.tool_calls)
        assert (row.finish_reason, call["function"]["name"], call["type"]) == ("tool_calls", "weather", "function")


def test_every_attempt_of_a_job_has_its_one_key_and_an_id_of_its_own(system: System) -> None:
    system.start()
    body = request(fake={"attempts": [{"status": 500}, {"status": 503}, {}]})
    first, second = system.send(body), system.send(body)

    rows = system.await_all([first, second])

    assert {row.status for row in rows.values()} == {"completed"}
    sent = [one["headers"] for one in system.fake.requests()]
    assert sorted({headers["idempotency-key"] for headers in sent}) == sorted([first, second])
    assert len({headers["x-oneapi-request-id"] for headers in sent}) == 6
    for job_id in (first, second):
        attempts = system.attempts(job_id)
        assert [(a.attempt, a.outcome, a.http_status) for a in attempts] == [
            (1, "failed", 500), (2, "failed", 503), (3, "completed", 200),
        ]  # fmt: skip
        assert [a.error_code for a in attempts] == ["server_error", "overloaded", None]
        assert rows[job_id].attempts == 3


def test_a_rate_limit_is_waited_out_by_the_row_and_holds_no_slot(postgres_system: System) -> None:
    system = postgres_system
    system.start(concurrency=1)
    limited = system.send(request(model="fake-429-once"))
    waiting = system.await_status(limited, "queued")
    while waiting.waiting_for != "limit":
        waiting = system.await_status(limited, "queued")

    other = system.await_status(system.send())

    assert other.status == "completed"
    row = system.await_status(limited)
    assert (row.status, row.attempts) == ("completed", 2)
    first, second = system.attempts(limited)
    assert (first.error_code, first.retry_after_s, first.billed) == ("rate_limited", 1.0, "no")
    assert (second.sent_at - first.finished_at).total_seconds() >= 1.0
    assert first.finished_at <= other.finished_at <= second.sent_at


def test_a_permanent_failure_fails_at_once_with_its_reason(system: System) -> None:
    system.start()
    cases = {"fake-400": "bad_request", "fake-400-as-500": "bad_request", "fake-html": "unexpected_content_type"}
    ids = {model: system.send(request(model=model)) for model in cases}

    for model, job_id in ids.items():
        row = system.await_status(job_id)
        assert (row.status, row.error_code, row.attempts) == ("failed", cases[model], 1)
        assert row.error_message.endswith(".")
        (attempt,) = system.attempts(job_id)
        assert attempt.error_message == row.error_message
        if row.error_code == "bad_request":
            assert f'"{ERRORS[400]["message"]}"' in row.error_message
    assert system.fake.stats()["requests"] == len(cases)


def test_a_job_out_of_attempts_fails_with_its_last_error(system: System) -> None:
    system.start()

    row = system.await_status(system.send(request(model="fake-500"), max_attempts=2))

    assert (row.status, row.error_code, row.attempts) == ("failed", "server_error", 2)
    assert system.fake.stats()["requests"] == 2


def test_a_cut_stream_keeps_its_partial_answer_and_is_bought_again(system: System) -> None:
    system.start()

    script = {"attempts": [{"cut_at": 900}, {}]}
    row = system.await_status(system.send(request("some words to cut", stream=True, fake=script)))

    assert (row.status, row.attempts) == ("completed", 2)
    first, _ = system.attempts(str(row.id))
    assert (first.outcome, first.error_code, first.billed) == ("failed", "stream_truncated", "yes")
    assert as_json(first.partial)["choices"][0]["finish_reason"] is None
    billed = system.rows("SELECT attempt, billed FROM usage_v1 ORDER BY attempt")
    assert [(b.attempt, b.billed) for b in billed] == [(1, "yes"), (2, "yes")]


def test_the_endpoints_trouble_holds_the_job_and_spends_nothing(postgres_system: System) -> None:
    system = postgres_system
    system.start()

    job_id = system.send(request(model="fake-401-once"), max_attempts=1)

    row = system.await_status(job_id, "queued")
    while row.waiting_for != "endpoint_paused":
        row = system.await_status(job_id, "queued")
    (held,) = system.rows("SELECT attempts_used, error_code FROM afterword_jobs")
    assert (held.attempts_used, held.error_code) == (0, "unauthorized")


def test_nothing_listening_leaves_no_sent_attempt(postgres_system: System) -> None:
    system = postgres_system
    system.start(endpoint_url="http://127.0.0.1:9")

    job_id = system.send()

    row = system.await_status(job_id, "queued")
    while row.waiting_for != "endpoint_paused":
        row = system.await_status(job_id, "queued")
    first = system.attempts(job_id)[0]
    assert (first.sent_at, first.error_code, first.billed) == (None, "connect_failed", "no")
    assert system.rows("SELECT 1 FROM usage_v1") == []


def test_each_deadline_is_a_setting_of_its_own(postgres_system: System) -> None:
    system = postgres_system
    system.start(endpoint_first_byte_s=0.2, endpoint_idle_s=0.2, endpoint_total_s=20)
    cases = {
        "first_byte_timeout": request(fake={"latency_s": 5}),
        "idle_timeout": request(stream=True, fake={"stall_after": 1, "stall_s": 5, "ping_s": 0.05}),
    }
    ids = {code: system.send(body, max_attempts=1) for code, body in cases.items()}
    ids["total_timeout"] = system.send(
        request(stream=True, fake={"chunk_s": 0.1, "chunks": 50, "size": 400}), max_attempts=1, timeout_s=1.0
    )

    for code, job_id in ids.items():
        row = system.await_status(job_id)
        assert (row.status, row.error_code) == ("failed", code)
        assert system.attempts(job_id)[0].billed in ("yes", "unknown")


def test_a_running_job_ends_at_its_deadline_with_its_partial_answer(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    soon = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1.5)).isoformat()

    job_id = system.send(request(stream=True, fake={"chunk_s": 0.2, "chunks": 60, "size": 600}), deadline=soon)

    row = system.await_status(job_id)
    assert row.status == "expired"
    (attempt,) = system.attempts(job_id)
    assert (attempt.outcome, attempt.billed) == ("expired", "yes")
    assert as_json(attempt.partial)["choices"][0]["message"]["content"]


def test_a_waiting_job_expires(system: System) -> None:
    system.start()

    row = system.await_status(system.send(deadline="2020-01-01T00:00:00Z"))

    assert (row.status, row.error_code, row.attempts) == ("expired", "expired", 0)


def test_nul_and_lone_surrogates_are_stored_without_loss(system: System) -> None:
    system.start()
    answer = (
        b'{"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "a\\u0000b\\ud800c"},'
        b' "finish_reason": "stop"}], "usage": {"prompt_tokens": 99999999999999999999, "total_tokens": 3}}'
    )

    row = system.await_status(system.send(request(fake={"body": answer.decode()})))

    assert (row.status, row.content, row.total_tokens) == ("completed", "a\ufffdb\ufffdc", 3)
    assert row.prompt_tokens is None
    assert raw_answer(system, str(row.id)) == answer


def test_the_key_of_the_endpoint_is_nowhere(system: System) -> None:
    system.start(log_level="debug")
    ids = [system.send(request(model=model)) for model in ("fake-echo", "fake-400", "fake-html", "fake-reset-once")]
    ids.append(system.send(request(fake={"body": KEY, "status": 400})))
    ids.append(system.send(request(fake={"text": f"the key is {KEY}"})))
    system.await_all(ids)

    assert KEY not in system.said()
    tables = system.rows(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'afterword_%'"
        if system.engine.dialect.name == "sqlite"
        else "SELECT tablename FROM pg_tables WHERE tablename LIKE 'afterword_%'"
    )
    for (table,) in tables:
        for row in system.rows(f"SELECT * FROM {table}"):
            if table == "afterword_requests":
                continue  # the test itself wrote the text there
            cells = [gzip.decompress(c) if isinstance(c, bytes) and c[:2] == b"\x1f\x8b" else c for c in row]
            assert KEY not in repr(cells)


def test_each_attempt_writes_one_line(postgres_system: System) -> None:
    system = postgres_system
    system.start()

    job_id = system.send(request(model="fake-500-once"), tenant="acme")
    system.await_status(job_id)
    until(lambda: system.lines("attempt.completed"), what="the log line after the commit")

    failed, completed = system.lines("attempt.failed"), system.lines("attempt.completed")
    assert [(line["job_id"], line["attempt"], line["error_code"]) for line in failed] == [(job_id, 1, "server_error")]
    assert [(line["job_id"], line["attempt"], line["tenant"]) for line in completed] == [(job_id, 2, "acme")]
    assert "You said" not in system.said()


def test_a_silent_minute_is_streamed_where_the_endpoint_says_so(postgres_system: System) -> None:
    system = postgres_system
    system.start(endpoint_upstream="stream")

    row = system.await_status(system.send())

    assert (row.status, row.content) == ("completed", "You said: hello")
    assert row.total_tokens == 4
    (sent,) = system.fake.requests()
    assert json.loads(sent["body"])["stream"] is True


def test_the_other_transport_serves_as_well(postgres_system: System) -> None:
    system = postgres_system
    system.start(http_transport="httpx")

    ids = [system.send(request(stream=stream)) for stream in (False, True)]

    assert {row.status for row in system.await_all(ids).values()} == {"completed"}


def test_an_endpoint_that_refuses_our_stream_options_is_asked_without_them(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    error = {"message": "Unknown parameter: 'stream_options'.", "param": "stream_options", "code": "unknown_parameter"}
    refused = {"attempts": [{"status": 400, "error": error}, {}]}

    row = system.await_status(system.send(request(stream=True, fake=refused), max_attempts=1))
    again = system.await_status(system.send(request(stream=True)))

    assert (row.status, row.attempts) == ("completed", 2)
    assert [one.usage_requested for one in system.attempts(row.id)] == [True, False]
    assert (again.status, again.attempts) == ("completed", 1)
    assert not system.attempts(again.id)[0].usage_requested


def test_a_refusal_that_always_names_stream_options_is_asked_again_once(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    refused = {"status": 422, "error": {"message": {"detail": [{"loc": ["body", "stream_options"]}]}}}

    row = system.await_status(system.send(request(stream=True, fake=refused), max_attempts=3))
    own = system.await_status(
        system.send(request(stream=True, stream_options={"include_usage": True}, fake=refused), max_attempts=3)
    )

    assert (row.status, row.error_code, row.attempts) == ("failed", "bad_request", 2)
    assert (own.status, own.error_code, own.attempts) == ("failed", "bad_request", 1)
