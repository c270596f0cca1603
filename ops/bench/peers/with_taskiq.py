"""The same job with taskiq: one asyncio process.

Worker: `taskiq worker with_taskiq:broker --workers 1 --max-async-tasks 200`. Jobs: `python with_taskiq.py submit N`.
"""

import asyncio
import sys
from typing import Any

import httpx
from answers import ENDPOINT_URL, HEADERS, IN_FLIGHT, REDIS_URL, REQUEST, driven_by, new_id, row, table
from sqlalchemy.ext.asyncio import create_async_engine
from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import ListQueueBroker

# A list without acknowledgements is taskiq's cheapest broker.
broker = ListQueueBroker(REDIS_URL)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_all(state: TaskiqState) -> None:
    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    state.client = httpx.AsyncClient(headers=HEADERS, timeout=60.0, limits=limits)
    state.engine = create_async_engine(driven_by("asyncpg"), pool_size=20, max_overflow=0)


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_all(state: TaskiqState) -> None:
    await state.client.aclose()
    await state.engine.dispose()


@broker.task(task_name="complete")
async def complete(job_id: str, request: dict[str, Any]) -> None:
    state = broker.state
    response = await state.client.post(ENDPOINT_URL, json=request, headers={"Idempotency-Key": job_id})
    response.raise_for_status()
    async with state.engine.begin() as connection:
        await connection.execute(table.insert(), row(job_id, response.json()))


async def submit(jobs: int) -> None:
    await broker.startup()
    for _ in range(jobs):
        await complete.kiq(new_id(), REQUEST)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(submit(int(sys.argv[2])))
