"""The feed of finished jobs: every final move gets a number, in the order of commit, and those it concerns are told."""

from collections.abc import Iterable

from sqlalchemy import Connection, insert, update

from worker.store.tables import counters, finished
from worker.webhooks.store.emit import emit_events

COUNTER = "finished"


def append_to_feed(connection: Connection, job_ids: Iterable[str]) -> dict[str, list[str]]:
    """Give each finished job its cursor and write its event; return the deliveries that may go at once, by job.

    Call it last in the transaction that ends the jobs: the one way in which a job's end becomes known.

    The counter's row stays locked until the commit, so a smaller number is never seen after a larger one, and a
    reader that asks for `cursor > N` misses nothing. Last, so that the lock is held only for the commit itself.
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
    rows = [{"cursor": first + place, "job_id": job_id} for place, job_id in enumerate(ids)]
    connection.execute(insert(finished), rows)
    return emit_events(connection, ids)
