"""Parts of a worker for tests that run them without a worker process."""

from collections.abc import Callable

from sqlalchemy import Engine

from afterword import Afterword
from tests.flow.system import request
from worker import settings
from worker.jobs.store import reclaim
from worker.store.heartbeat import HeldCalls, Lease, LeaseTimes

SLOTS = 5
LONG = LeaseTimes(30.0, 0.1)


def conf(database_url: str, redis_url: str, **more: str) -> settings.Settings:
    return settings.read(
        {
            "AFTERWORD_DATABASE_URL": database_url,
            "AFTERWORD_REDIS_URL": redis_url,
            "AFTERWORD_ENDPOINT_URL": "http://127.0.0.1:9",
            **{f"AFTERWORD_{name.upper()}": value for name, value in more.items()},
        }
    )


def fill(redis_url: str, number: int, *, size: int = 10) -> None:
    with Afterword(redis_url=redis_url) as client:
        for _ in range(number):
            client.submit(request("x" * size))


def leased(
    engine: Engine,
    times: LeaseTimes = LONG,
    *,
    on_lost: Callable[[], None] = lambda: None,
    ticked_at: Callable[[], float | None] = lambda: None,
) -> Lease:
    """Return a lease that has not started yet."""
    calls = HeldCalls(ticked_at, on_lost, reclaim.cancellations, lambda ids: None)
    return Lease(engine, times, calls, name="test", slots=SLOTS)
