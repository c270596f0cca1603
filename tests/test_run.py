"""One attempt at a job, by its small context: a database, a writer and an endpoint are enough."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, delete

from tests.pool.workers import until
from tests.store.made import accept_all, claim_one, entry, job, one, rows, worker
from worker.core.endpoint import Endpoint
from worker.dev.fake_endpoint import FakeEndpoint
from worker.jobs.endpoint_monitor import EndpointMonitor
from worker.jobs.net.call import open_clients
from worker.pool.running_task import Call, Reason, enter
from worker.run import AttemptContext, attempt
from worker.store.group_commit import Batcher
from worker.store.tables import requests

JOB = "SELECT status, attempts, attempts_used, waiting_for, error_code FROM jobs_v1"


@pytest.fixture
def fake() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
def writer(engine: Engine) -> Iterator[Batcher]:
    made = Batcher(engine)
    made.start()
    yield made
    made.close(timeout_s=10.0)


class Heard:
    """The deliveries that an attempt announced, and the delays after which it woke the dispatcher."""

    def __init__(self) -> None:
        self.announced: list[tuple[str, ...]] = []
        self.woken: list[float] = []


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def context(engine: Engine, writer: Batcher, fake: FakeEndpoint, heard: Heard) -> AttemptContext:
    mine, endpoints = worker(engine), {"default": Endpoint("default", f"{fake.url}/v1/chat/completions")}
    monitor = EndpointMonitor(engine, writer, endpoints, wake=heard.woken.append)
    announce = lambda ids: heard.announced.append(tuple(ids))  # noqa: E731
    return AttemptContext(lambda: mine, writer, endpoints, {}, monitor, announce, heard.woken.append)


async def attempted(context: AttemptContext, job_id: str) -> None:
    context.clients.update(open_clients(context.endpoints.values(), kind="aiohttp"))
    try:
        await attempt(context, job_id)
    finally:
        for client in context.clients.values():
            await client.aclose()


def queued(engine: Engine, **request: Any) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], **request}
    (accepted,) = accept_all(engine, entry(job(request=body)))
    return str(accepted.job_id)


def test_a_claim_that_is_lost_leaves_everything_as_it_is(engine: Engine, context: AttemptContext, heard: Heard) -> None:
    taken = queued(engine)
    assert claim_one(engine, worker(engine), taken) is not None

    asyncio.run(attempted(context, taken))
    asyncio.run(attempted(context, str(uuid.uuid4())))

    assert len(rows(engine, "SELECT 1 FROM attempts_v1")) == 1
    assert one(engine, JOB).status == "in_progress"
    assert (heard.announced, heard.woken, taken in context.running) == ([], [], False)


def test_a_call_that_is_answered_completes_its_job(
    engine: Engine, context: AttemptContext, fake: FakeEndpoint, heard: Heard
) -> None:
    asyncio.run(attempted(context, queued(engine)))

    row = one(engine, JOB)
    assert (row.status, row.attempts, row.attempts_used, row.error_code) == ("completed", 1, 1, None)
    assert one(engine, "SELECT outcome, billed FROM attempts_v1")[:] == ("completed", "yes")
    assert fake.stats()["requests"] == 1
    assert (heard.announced, heard.woken) == ([()], [])


def test_a_call_that_fails_is_recorded_and_wakes_the_dispatcher_for_its_retry(
    engine: Engine, context: AttemptContext, heard: Heard
) -> None:
    asyncio.run(attempted(context, queued(engine, fake={"status": 500})))

    row = one(engine, JOB)
    assert (row.status, row.attempts_used, row.waiting_for) == ("queued", 1, "retry")
    assert one(engine, "SELECT error_code FROM attempts_v1").error_code == "server_error"
    assert [0.0 <= delay_s <= 0.5 for delay_s in heard.woken] == [True]


def test_an_endpoint_that_this_worker_does_not_know_is_waited_for(
    engine: Engine, context: AttemptContext, heard: Heard
) -> None:
    del context.endpoints["default"]  # type: ignore[attr-defined]

    asyncio.run(attempted(context, queued(engine)))

    row = one(engine, JOB)
    assert (row.status, row.attempts, row.attempts_used, row.waiting_for) == ("queued", 1, 0, "endpoint_paused")
    assert heard.woken == [30.0]


def test_a_job_whose_request_was_deleted_fails_unsent(
    engine: Engine, context: AttemptContext, fake: FakeEndpoint
) -> None:
    job_id = queued(engine)
    with engine.begin() as connection:
        connection.execute(delete(requests))

    asyncio.run(attempted(context, job_id))

    row = one(engine, JOB)
    assert (row.status, row.attempts_used, row.error_code) == ("failed", 0, "internal_error")
    assert fake.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("reason", "status", "error_code"),
    [
        (Reason.revoked, "cancelled", "cancelled"),
        (Reason.shutdown, "queued", "worker_lost"),
        (Reason.lease_lost, "in_progress", None),
    ],
)
def test_a_call_that_is_cut_is_recorded_by_the_reason_of_the_cut(
    engine: Engine, context: AttemptContext, fake: FakeEndpoint, reason: Reason, status: str, error_code: str | None
) -> None:
    job_id = queued(engine, fake={"latency_s": 30.0})

    async def cut() -> None:
        call = Call(asyncio.current_task())
        enter(call)
        context.running.loop = asyncio.get_running_loop()
        # From another thread, as the heartbeat does it.
        asyncio.get_running_loop().run_in_executor(None, cancel_when_sent)
        await attempted(context, job_id)

    def cancel_when_sent() -> None:
        until(lambda: fake.stats()["requests"] == 1, what="the request is on the wire")
        context.running.cancel([job_id], reason)

    asyncio.run(cut())

    row = one(engine, JOB)
    assert (row.status, row.attempts_used, row.error_code) == (status, 1, error_code)
    outcome = {"cancelled": "cancelled"}.get(status, "unknown")
    assert one(engine, "SELECT outcome, billed FROM attempts_v1")[:] == (outcome, "unknown")
    assert job_id not in context.running
