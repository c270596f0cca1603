"""submit writes the same message to Redis as a Celery client, and reports a Redis that fails."""

import base64
import json
import time
import uuid

import pytest
import redis
from celery import Celery

from afterword import Afterword, NotConfigured, SubmitError
from tests.producers.made import REQUEST, queued, silent_server
from worker.dev.redis import RedisServer, free_port


def test_a_submitted_job_lies_in_the_queue_under_its_id(queue: Afterword, redis_url: str) -> None:
    job_id = queue.submit(REQUEST, idempotency_key="order-7", priority=0)

    ((envelope, job),) = queued(redis_url)
    assert (envelope.task, envelope.id, envelope.ignored) == ("chat.submit", job_id, ())
    assert (job.id, job.idempotency_key, job.priority) == (job_id, "order-7", 0)
    assert json.loads(job.request) == REQUEST


def test_jobs_lie_in_the_order_of_submission(queue: Afterword, redis_url: str) -> None:
    ids = [queue.submit(REQUEST) for _ in range(3)]

    assert [job.id for _, job in queued(redis_url)] == ids


def test_the_message_is_the_one_that_celery_sends(queue: Afterword, redis_url: str) -> None:
    job_id = queue.submit(REQUEST)
    with Celery(broker=redis_url, set_as_current=False) as app:
        app.send_task("chat.submit", args=[{"version": 1, "request": REQUEST}], queue="chat.intake", task_id=job_id)
    with redis.Redis.from_url(redis_url) as client:
        celery, ours = (json.loads(entry) for entry in client.lrange("chat.intake", 0, -1))

    assert json.loads(base64.b64decode(ours["body"])) == json.loads(base64.b64decode(celery["body"]))
    assert set(ours["properties"]) <= set(celery["properties"])
    assert set(ours["headers"]) <= set(celery["headers"])
    for name in ("task", "id", "root_id", "parent_id", "retries", "eta", "expires", "timelimit"):
        assert ours["headers"][name] == celery["headers"][name]


def test_the_url_comes_from_the_environment_or_a_file(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = tmp_path_factory.mktemp("secrets") / "redis_url"
    secret.write_text(redis_url + "\n")

    monkeypatch.setenv("AFTERWORD_REDIS_URL", redis_url)
    with Afterword() as client:
        client.submit(REQUEST)
    monkeypatch.delenv("AFTERWORD_REDIS_URL")
    monkeypatch.setenv("AFTERWORD_REDIS_URL_FILE", str(secret))
    with Afterword() as client:
        client.submit(REQUEST)

    assert len(queued(redis_url)) == 2


def test_without_redis_the_remedy_is_said() -> None:
    with pytest.raises(NotConfigured, match="set AFTERWORD_REDIS_URL"):
        Afterword().submit(REQUEST)


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="the Redis URL begins with 'amqp'; give one that begins with"):
        Afterword("amqp://localhost").submit(REQUEST)


def test_a_closed_port_raises_an_error_that_carries_the_id() -> None:
    chosen = str(uuid.uuid4())

    with Afterword(f"redis://127.0.0.1:{free_port()}/0") as client, pytest.raises(SubmitError) as raised:
        client.submit(REQUEST, id=chosen)

    assert raised.value.id == chosen
    assert f"submit it again with id='{chosen}'" in str(raised.value)


def test_a_redis_that_never_answers_is_given_up_after_the_timeout() -> None:
    with silent_server() as (port, _):
        begun = time.monotonic()
        with Afterword(f"redis://127.0.0.1:{port}/0", timeout_s=0.2) as client, pytest.raises(SubmitError):
            client.submit(REQUEST)

    # Generous on purpose: the test proves that there is one timeout and not a series.
    assert time.monotonic() - begun < 2


def test_a_connection_that_died_while_idle_is_made_anew() -> None:
    server = RedisServer().start()
    try:
        with Afterword(server.url) as client:
            client.submit(REQUEST)
            server.stop(kill=True)
            server.start()

            client.submit(REQUEST)

        assert len(queued(server.url)) == 1
    finally:
        server.remove()


def test_a_redis_that_refuses_to_write_is_an_error(redis_url: str, queue: Afterword) -> None:
    with redis.Redis.from_url(redis_url) as admin:
        admin.config_set("maxmemory", 1)
        try:
            with pytest.raises(SubmitError, match="OutOfMemory"):
                queue.submit(REQUEST)
        finally:
            admin.config_set("maxmemory", 0)
