"""Another team's Celery application on our Redis database; its settings would cause harm if we shared keys."""

import os
import time

import redis
from celery import Celery, signals

URL = os.environ["TOY_REDIS"]
app = Celery("neighbour", broker=URL)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    # Longer than its task. With shared keys, a shorter timeout of ours would restore the message while the task runs.
    broker_transport_options={"visibility_timeout": 3600},
)
writer = redis.Redis.from_url(URL)


@app.task(name="neighbour.long")
def long(name: str) -> None:
    writer.rpush("neighbour:starts", name)
    while not writer.exists("neighbour:gate"):
        time.sleep(0.02)
    writer.rpush("neighbour:ends", name)


@signals.worker_ready.connect
def _ready(**_: object) -> None:
    writer.rpush("neighbour:ready", 1)
