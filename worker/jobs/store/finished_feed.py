"""The feed of finished jobs: numbers every final move in the order of commit, and writes its webhook events."""

from collections.abc import Iterable

from sqlalchemy import Connection, insert, update

from worker.store.tables import counters, finished
from worker.webhooks.store.emit import emit_events

COUNTER = "finished"


def append_to_feed(connection: Connection, job_ids: Iterable[str]) -> dict[str, list[str]]:
    """Give each finished job its cursor and write its events; return the deliveries that may start now, by job.

    Every transaction that ends jobs must call this, and must call it last.

    The counter's row stays locked until the commit. So a smaller cursor never appears after a larger one, and a reader
    that asks for `cursor > N` misses nothing. Called last, the lock is held only for the commit itself.
    """
    ids = sorted(job_ids)
    if not ids:
        return {}
    statement = (
        update(counters)
        .where(counters.c.name == COUNTER)
        .values(value=counters.c.value + len(ids))
        .returning(counters.c.value)
    )
    last = connection.execute(statement).scalar_one()
    first = last - len(ids) + 1
    rows = [{"cursor": first + offset, "job_id": job_id} for offset, job_id in enumerate(ids)]
    connection.execute(insert(finished), rows)
    return emit_events(connection, ids)
