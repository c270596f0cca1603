"""Sends a job by Redis: the Celery message of `send_task("chat.submit", args=[job])`, in one LPUSH.

Written without Celery: a producer needs no Celery, and its own current application stays untouched.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from typing import Any, cast

from afterword.errors import NotConfigured, SubmitError
from afterword.sentinel import Sentinels, is_sentinel, read_sentinels

QUEUE = "chat.intake"
TASK = "chat.submit"
SCHEMES = ("redis://", "rediss://", "unix://")


class Queue:
    """The list of jobs in Redis. The first push connects, and the connection is kept. Threads may share a Queue."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        if not (url.startswith(SCHEMES) or is_sentinel(url)):
            raise ValueError(f"the Redis URL begins with {url.split(':')[0]!r}; give one that begins with {SCHEMES}")
        self._client = _connect(url, timeout_s)

    def push(self, job_id: str, text: str) -> None:
        """Push a job message onto the list. Raises SubmitError if Redis does not confirm it in time."""
        import redis

        try:
            self._client.lpush(QUEUE, celery_message(job_id, text))
        except redis.RedisError as error:
            raise SubmitError(
                f"Redis did not confirm job {job_id} ({type(error).__name__}: {error}); "
                f"submit it again with id={job_id!r} (that never makes a second job), or use enqueue, without "
                "Redis",
                job_id,
            ) from error

    def close(self) -> None:
        """Close the connections. The next push connects again."""
        self._client.connection_pool.disconnect()


def celery_message(job_id: str, text: str) -> bytes:
    """Return a Celery task message with the job, a JSON text, as its only argument.

    Celery's message protocol 2: https://docs.celeryq.dev/en/stable/internals/protocol.html
    """
    body = f'[[{text}], {{}}, {{"callbacks": null, "errbacks": null, "chain": null, "chord": null}}]'
    message: dict[str, Any] = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": TASK,
            "id": job_id,
            "root_id": job_id,
            "parent_id": None,
            "group": None,
            "retries": 0,
            "eta": None,
            "expires": None,
            "timelimit": [None, None],
            "ignore_result": True,
        },
        "properties": {
            "correlation_id": job_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps(message).encode()


def _connect(url: str, timeout_s: float) -> Any:
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise NotConfigured("submit needs the Redis client; run: pip install 'redis>=4.2'") from error
    # Celery writes CERT_NONE, redis-py none.
    url = re.sub(r"(?<=ssl_cert_reqs=)CERT_\w+", lambda found: found[0][len("CERT_") :].lower(), url)
    options = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        # Reconnect once if an idle connection has died: a second push is harmless, because the id is the same. Do not
        # retry after a timeout: the caller waits no longer than timeout_s.
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }
    if is_sentinel(url):
        return _behind_sentinels(read_sentinels(url), options)
    return redis.Redis.from_url(url, **options)


def _behind_sentinels(sentinels: Sentinels, options: dict[str, Any]) -> Any:
    """Return a client of the Redis primary. It asks the sentinels for the primary's address at each connect."""
    from redis import connection, sentinel

    parse_url, watch_of = cast("Any", connection).parse_url, cast("Any", sentinel).Sentinel
    given: dict[str, Any] = dict(parse_url(sentinels.redis_url))
    login = {name: given.pop(name) for name in ("username", "password", "db") if name in given}
    # The remaining parameters are about TLS. The sentinels get them too.
    for name in ("host", "port"):
        given.pop(name, None)
    if given.pop("connection_class", None) is not None:
        given["ssl"] = True
    theirs = {"username": sentinels.username, "password": sentinels.password}
    watch = watch_of(list(sentinels.hosts), sentinel_kwargs={**theirs, **given, **options})
    return watch.master_for(sentinels.primary, **login, **given, **options)
