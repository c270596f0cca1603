"""A query on the views costs as much as its answer, by the database's own count, however many jobs exist.

The short form inserts 20,000 more jobs, enough to expose a plan that reads them; the long form inserts a million.
"""

from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, text

from tests.store.costs import DEEPER, SIZES, cost
from tests.store.reads import ENDED, QUEUED, READS, UNREAD, fill, fill_ours, settle
from worker.store.engine import open_engine

CROWDS = {"unread": ((UNREAD,),), "of all kinds": (ENDED, (QUEUED,), (UNREAD,))}
LONG_AGO_S = 400_000
# Twenty rows of a batch, looked up by key, cost eighty pages. All of a thousand jobs are thirty pages.
MORE = {"postgresql": 100, "sqlite": 1000}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crowd", CROWDS.values(), ids=CROWDS)
def test_a_query_on_the_views_costs_the_same_beside_many_jobs(
    engine: Engine, crowd: Sequence[Sequence[str]], size: int
) -> None:
    fill_ours(engine)
    settle(engine)
    few = {name: cost(engine, ask) for name, ask in READS.items()}

    for tag, statements in enumerate(crowd, start=2):
        fill(engine, *statements, rows=size, name=f"crowd-{tag}", tag=tag, age_s=LONG_AGO_S)
    settle(engine)

    many = {name: cost(engine, ask) for name, ask in READS.items()}
    dearer = {
        name: (few[name], many[name]) for name in few if many[name] > few[name] * DEEPER + MORE[engine.dialect.name]
    }
    assert dearer == {}


def test_every_query_finds_its_rows(engine: Engine) -> None:
    fill_ours(engine)
    with engine.begin() as connection:
        found = {name: ask(connection) for name, ask in READS.items() if name != "doctor's counts of deliveries"}

    assert [name for name, answer in found.items() if not answer] == []
    assert found["doctor's counts of jobs"] == {
        "queued": 1000, "completed": 980, "failed": 20, "inbox": 1000, "dead_letters": 0,
    }  # fmt: skip
    assert found["failures of the last hour"] == [("bad_request", 20)]
    assert [tuple(row) for row in found["a day's usage"]] == [("default", "m", 20, 100)]


def test_no_view_calls_a_volatile_function(postgresql_url: str) -> None:
    """PostgreSQL plans such a view separately from the query on it and reads the whole view."""
    engine = open_engine(postgresql_url)
    used = text(
        "SELECT viewname, p.proname FROM pg_views, pg_proc p WHERE schemaname = 'public' AND provolatile = 'v' "
        r"AND definition ~ ('\m' || p.proname || '\(')"
    )
    with engine.connect() as connection:
        assert connection.execute(used).all() == []
    engine.dispose()
