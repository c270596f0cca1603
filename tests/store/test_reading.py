"""What readers ask of the views costs what the answer costs, by the databases' own count, however many jobs there are.

The short form of the suite has 20,000 jobs beside ours, which a plan that reads them shows as well; the long form has
the million.
"""

from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, text

from tests.store.reads import ENDED, QUEUED, READS, UNREAD, fill, fill_ours, settle
from tests.store.test_scale import DEEPER, SIZES, cost

CROWDS = {"unread": ((UNREAD,),), "of all kinds": (ENDED, (QUEUED,), (UNREAD,))}
LONG_AGO_S = 400_000
# Twenty rows of a batch, each by its keys, are eighty pages, where all of a thousand jobs are thirty.
MORE = {"postgresql": 100, "sqlite": 1000}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crowd", CROWDS.values(), ids=CROWDS)
def test_a_question_to_the_views_costs_the_same_beside_a_crowd_of_jobs(
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


def test_every_question_finds_what_it_asks_for(engine: Engine) -> None:
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
    """PostgreSQL plans such a view apart from the question about it, and reads all of it."""
    from worker.store.engine import open_engine

    engine = open_engine(postgresql_url)
    used = text(
        "SELECT viewname, p.proname FROM pg_views, pg_proc p WHERE schemaname = 'public' AND provolatile = 'v' "
        r"AND definition ~ ('\m' || p.proname || '\(')"
    )
    with engine.connect() as connection:
        assert connection.execute(used).all() == []
    engine.dispose()
