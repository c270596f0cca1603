"""A worker that freezes in the middle of a transaction blocks other workers only for a short time."""

import uuid

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError

from tests.pool.workers import until
from tests.store.made import worker
from worker.jobs.store import finished_feed
from worker.store import leases
from worker.store.engine import is_away, is_busy, open_engine
from worker.store.tables import counters


def numbered(engine: Engine) -> bool:
    """Number a job in the feed; that needs the row that every end of a job locks."""
    try:
        with engine.begin() as connection:
            finished_feed.append_to_feed(connection, [str(uuid.uuid4())])
    except DBAPIError as error:
        assert is_busy(error)
        return False
    return True


def test_jobs_end_although_a_worker_froze_while_it_held_the_feeds_lock(postgresql_url: str) -> None:
    frozen, living = open_engine(postgresql_url), open_engine(postgresql_url)
    with frozen.connect() as connection:
        finished_feed.append_to_feed(connection, [str(uuid.uuid4())])  # the worker freezes here

        until(lambda: numbered(living), what="the other worker's job ends", seconds=30)

        # When it wakes up, it learns that its transaction is gone and repeats it.
        with pytest.raises(DBAPIError) as caught:
            connection.execute(select(counters))
    assert is_away(caught.value)
    assert numbered(frozen)
    frozen.dispose()
    living.dispose()


def test_registering_twice_is_registering_once(engine: Engine) -> None:
    mine = worker(engine)

    # The commit succeeded but its answer was lost. A starting worker cannot know that, so it registers again.
    with engine.begin() as connection:
        leases.register(connection, mine, name="test", slots=10, lease_s=30.0)

    with engine.begin() as connection:
        assert leases.living_workers(connection) == {mine: 10}
