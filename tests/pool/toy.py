"""A Celery application with the worker's configuration; a test writes the part of each task.

`chat.run(row)` reads its part from the Redis hash `toy:parts` and appends its events to the list `toy:log`. It runs as
a real worker: `celery -A tests.pool.toy worker`.
"""

import asyncio
import json
import os
import time
from typing import Any

import redis
import redis.asyncio
from celery import Celery, current_task, signals
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from worker.celeryconfig import configure
from worker.pool.pool import TaskPool, async_task
from worker.pool.running_task import Reason, reason
from worker.settings import Settings

URL = os.environ["TOY_REDIS"]
SOFT = {"soft_time_limit": float(os.environ["TOY_SOFT"])} if "TOY_SOFT" in os.environ else {}
SIGNALS = ("task_received", "task_prerun", "task_postrun", "task_success", "task_failure", "task_revoked")

app = Celery("toy")
configure(
    app,
    Settings(
        redis_url=URL,
        concurrency=int(os.environ.get("TOY_SLOTS", "10")),
        webhook_slots=int(os.environ.get("TOY_WEBHOOK_SLOTS", "2")),
        drain_s=float(os.environ.get("TOY_DRAIN", "5")),
        lease_s=float(os.environ.get("TOY_LEASE", "60")),
        loop="uvloop" if os.environ.get("TOY_LOOP") == "uvloop" else "asyncio",
    ),
)
pools: list[TaskPool] = []
gates: dict[str, "asyncio.Task[None]"] = {}
clients: list["redis.asyncio.Redis"] = []
# Tests close the worker's connections and restart its Redis; the log must record events all the same.
PATIENT = {"client_name": "toy", "retry": Retry(ConstantBackoff(0.1), 100), "socket_timeout": 5}
writer = redis.Redis.from_url(URL, **PATIENT)


def tell(event: str, **facts: Any) -> None:
    """Append an event to the log; blocks."""
    writer.rpush("toy:log", json.dumps({"event": event, **facts}))


def client() -> "redis.asyncio.Redis":
    """Return the event loop's Redis client."""
    if not clients:
        patient = {**PATIENT, "retry": AsyncRetry(ConstantBackoff(0.1), 100)}
        pool = redis.asyncio.BlockingConnectionPool.from_url(URL, max_connections=20, timeout=60, **patient)
        clients.append(redis.asyncio.Redis(connection_pool=pool))
    return clients[0]


async def say(event: str, **facts: Any) -> None:
    """Append an event to the log, from the loop."""
    await client().rpush("toy:log", json.dumps({"event": event, **facts}))


@async_task(app, name="chat.run", bind=True, **SOFT)
async def chat_run(self: Any, row: str) -> str:
    part = json.loads(await client().hget("toy:parts", row) or "{}")
    await say("start", row=row, id=self.request.id, current=current_task.request.id)
    try:
        await play(row, part)
    except asyncio.CancelledError:
        await say("cancelled", row=row, reason=reason())
        if "swallow" not in part:
            raise
        await asyncio.sleep(part["swallow"])
        await say("put away", row=row)
    await say("end", row=row)
    return row


async def play(row: str, part: dict[str, Any]) -> None:
    """Play the part from the test: block, raise, exit, name the current task in child tasks, wait for a gate, abort,
    sleep.
    """
    match part.get("do"):
        case "block":
            time.sleep(part["seconds"])  # noqa: ASYNC251  that is its part
        case "raise":
            raise ValueError("as told")
        case "exit":
            raise SystemExit(3)
        case "children":
            await say("children", row=row, ids=await asyncio.gather(*(child_id() for _ in range(3))))
        case "gate":
            if part["gate"] not in gates:
                gates[part["gate"]] = asyncio.create_task(opened(part["gate"]))
            await asyncio.shield(gates[part["gate"]])
        case "abort":
            pools[0].abort(Reason.lease_lost)
    await asyncio.sleep(part.get("seconds", 0))


async def opened(gate: str) -> None:
    while not await client().exists(gate):  # noqa: ASYNC110  the test opens it, from another process
        await asyncio.sleep(0.01)


async def child_id() -> str:
    await asyncio.sleep(0)
    return str(current_task.request.id)


@app.task(name="webhook.deliver", bind=True)
def deliver(self: Any, row: str) -> None:
    """A synchronous task; it runs in a thread."""
    part = json.loads(writer.hget("toy:parts", row) or "{}")
    tell("start", row=row, id=self.request.id, current=current_task.request.id)
    while "gate" in part and not writer.exists(part["gate"]):
        time.sleep(0.01)
    tell("end", row=row)


async def clean_up() -> None:
    await say("cleaned up")


@signals.worker_ready.connect
def _ready(sender: Any, **_: Any) -> None:
    pools.append(sender.pool)
    if "TOY_CLEANUP" in os.environ:
        sender.pool.cleanups.append(clean_up)
    tell("ready", pid=os.getpid())


def receiver(name: str) -> Any:
    def receive(sender: Any = None, task_id: str | None = None, request: Any = None, **facts: Any) -> None:
        wanted = ("state", "retval", "exception", "terminated", "result")
        known = {key: str(facts[key]) for key in wanted if key in facts}
        tell(name, id=task_id or (request and request.id) or current_task.request.id, **known)

    return receive


if "TOY_SIGNALS" in os.environ:
    for _name in SIGNALS:
        getattr(signals, _name).connect(receiver(_name), weak=False)
