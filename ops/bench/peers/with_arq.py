"""The same job with arq: one asyncio process.

Worker: `arq with_arq.Worker`. Jobs: `python with_arq.py submit N`.
"""

import asyncio
import sys
from typing import Any, ClassVar

import httpx
from answers import ENDPOINT_URL, HEADERS, IN_FLIGHT, REDIS_URL, REQUEST, driven_by, new_id, row, table
from arq import create_pool
from arq.connections import RedisSettings
from sqlalchemy.ext.asyncio import create_async_engine


async def complete(ctx: dict[str, Any], job_id: str, request: dict[str, Any]) -> None:
    response = await ctx["client"].post(ENDPOINT_URL, json=request, headers={"Idempotency-Key": job_id})
    response.raise_for_status()
    async with ctx["engine"].begin() as connection:
        await connection.execute(table.insert(), row(job_id, response.json()))


async def open_all(ctx: dict[str, Any]) -> None:
    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    ctx["client"] = httpx.AsyncClient(headers=HEADERS, timeout=60.0, limits=limits)
    ctx["engine"] = create_async_engine(driven_by("asyncpg"), pool_size=20, max_overflow=0)


async def close_all(ctx: dict[str, Any]) -> None:
    await ctx["client"].aclose()
    await ctx["engine"].dispose()


class Worker:
    functions: ClassVar = [complete]
    on_startup, on_shutdown = open_all, close_all
    redis_settings = RedisSettings.from_dsn(REDIS_URL)
    max_jobs = IN_FLIGHT
    job_timeout = 60
    keep_result = 0
    # arq's default, 0.5 s, leaves slots empty between two polls.
    poll_delay = 0.05


async def submit(jobs: int) -> None:
    pool = await create_pool(RedisSettings.from_dsn(REDIS_URL))
    for _ in range(jobs):
        await pool.enqueue_job("complete", new_id(), REQUEST)
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(submit(int(sys.argv[2])))
