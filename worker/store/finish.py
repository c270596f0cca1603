"""The feed of finished jobs: every final move gets a number, in the order in which the moves become visible."""

from collections.abc import Iterable

from sqlalchemy import Connection, insert, update

from worker.store.tables import counters, finished

COUNTER = "finished"


def number(connection: Connection, job_ids: Iterable[str]) -> None:
    """Give each finished job its cursor; call it last in the transaction.

    The counter's row stays locked until the commit, so a smaller number is never seen after a larger one, and a
    reader that asks for `cursor > N` misses nothing. Last, so that the lock is held only for the commit itself.
    """
    ids = sorted(job_ids)
    if not ids:
        return
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
