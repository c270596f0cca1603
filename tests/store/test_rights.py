"""Rights on PostgreSQL: a producer's role may insert into the three views and read the views, in any schema."""

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from afterword import Afterword
from tests.store.made import accept_all, entry
from worker.store import migrate, version
from worker.store.engine import open_engine
from worker.store.rights import open_schema

SCHEMAS = ("public", "after words")


@pytest.fixture(params=SCHEMAS)
def schema(request: pytest.FixtureRequest, postgresql_url: str) -> str:
    if request.param != "public":
        plain = open_engine(postgresql_url)
        migrate.downgrade(plain)
        migrate.upgrade(plain, schema=request.param)
        plain.dispose()
    return str(request.param)


@pytest.fixture
def engine(postgresql_url: str, schema: str) -> Iterator[Engine]:
    """Yield the engine of a worker."""
    opened = open_engine(postgresql_url, schema=None if schema == "public" else schema)
    yield opened
    opened.dispose()


@pytest.fixture
def producer(postgresql_url: str, schema: str) -> Iterator[Engine]:
    """Yield the engine of a role with INSERT on the three views and SELECT on jobs_v1."""
    role = f"p_{uuid.uuid4().hex[:12]}"
    owner = open_engine(postgresql_url)
    with owner.begin() as connection:
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            f'GRANT USAGE ON SCHEMA "{schema}" TO {role}',
            f'GRANT INSERT ON "{schema}".submit_v1, "{schema}".cancel_v1, "{schema}".replay_v1 TO {role}',
            f'GRANT SELECT ON "{schema}".jobs_v1 TO {role}',
        ):
            connection.execute(text(statement))
    url = make_url(postgresql_url).set(username=role, drivername="postgresql+psycopg")
    opened = create_engine(url)

    @event.listens_for(opened, "begin")
    def _look_there(connection: Connection) -> None:
        connection.exec_driver_sql(f'SET LOCAL search_path TO "{schema}"')

    yield opened
    opened.dispose()
    with owner.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {role} CASCADE"))
        connection.execute(text(f"DROP ROLE {role}"))
    owner.dispose()


def put(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def test_insert_on_submit_v1_is_all_that_submitting_needs(producer: Engine) -> None:
    put(producer, """INSERT INTO submit_v1 (job) VALUES ('{"request": {}}')""")

    with producer.connect() as connection:
        assert connection.execute(text("SELECT status FROM jobs_v1")).scalars().all() == ["queued"]


def test_insert_on_submit_v1_is_all_that_names_beside_the_text_need(producer: Engine) -> None:
    with producer.begin() as connection:
        Afterword().enqueue(connection, {}, batch="b")

    with producer.connect() as connection:
        assert connection.execute(text("SELECT batch FROM jobs_v1")).scalars().all() == ["b"]
        with pytest.raises(ProgrammingError, match="permission denied"):
            connection.execute(text("SELECT batch FROM submit_v1"))


def test_a_role_with_the_first_columns_of_submit_v1_enqueues_without_names(
    engine: Engine, producer: Engine, schema: str
) -> None:
    role = producer.url.username
    put(engine, f'REVOKE INSERT ON "{schema}".submit_v1 FROM {role}')
    put(engine, f'GRANT INSERT (id, job) ON "{schema}".submit_v1 TO {role}')

    with producer.begin() as connection:
        Afterword().enqueue(connection, {}, batch="b")

    with producer.connect() as connection:
        assert connection.execute(text("SELECT batch FROM jobs_v1")).scalars().all() == [None]


def test_rights_on_the_views_outlive_the_migration_that_changes_them(
    engine: Engine, producer: Engine, schema: str
) -> None:
    named = None if schema == "public" else schema
    known = version.known()
    plain = open_engine(producer.url.set(username="postgres").render_as_string(hide_password=False))
    migrate.downgrade(plain, schema=named, revision=known[known.index("0010") - 1])
    for view, right in (("submit_v1", "INSERT"), ("jobs_v1", "SELECT"), ("finished_v1", "SELECT")):
        put(engine, f'GRANT {right} ON "{schema}".{view} TO {producer.url.username}')

    migrate.upgrade(plain, schema=named)
    plain.dispose()

    put(producer, "INSERT INTO submit_v1 (job, batch) VALUES ('{}', 'b')")
    with producer.connect() as connection:
        assert connection.execute(text("SELECT batch FROM jobs_v1")).scalars().all() == ["b"]
        assert connection.execute(text("SELECT cursor FROM finished_v1")).all() == []


def test_insert_on_the_doors_is_all_that_orders_need(engine: Engine, producer: Engine) -> None:
    (accepted,) = accept_all(engine, entry())

    put(producer, "INSERT INTO cancel_v1 (id) VALUES (:id)", id=accepted.job_id)
    with producer.connect() as connection:
        assert connection.execute(text("SELECT status FROM jobs_v1")).scalars().all() == ["cancelled"]
    put(producer, "INSERT INTO replay_v1 (id) VALUES (:id)", id=accepted.job_id)

    with producer.connect() as connection:
        assert connection.execute(text("SELECT status FROM jobs_v1")).scalars().all() == ["queued"]


def test_without_a_right_on_the_doors_their_functions_are_of_no_use(
    engine: Engine, producer: Engine, schema: str
) -> None:
    (accepted,) = accept_all(engine, entry())
    put(engine, f'REVOKE ALL ON "{schema}".cancel_v1 FROM {producer.url.username}')

    with pytest.raises(ProgrammingError, match="permission denied for function"), producer.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE mine (id uuid)"))
        connection.execute(
            text("CREATE TRIGGER t BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION afterword_cancel_v1()")
        )
        connection.execute(text("INSERT INTO mine VALUES (:id)"), {"id": accepted.job_id})


def test_a_callers_temporary_table_is_not_taken_for_ours(engine: Engine, producer: Engine) -> None:
    (accepted,) = accept_all(engine, entry())

    with producer.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE afterword_jobs (LIKE jobs_v1)"))
        connection.execute(text("GRANT ALL ON afterword_jobs TO public"))
        connection.execute(text("INSERT INTO cancel_v1 (id) VALUES (:id)"), {"id": accepted.job_id})

    with producer.connect() as connection:
        assert connection.execute(text("SELECT status FROM jobs_v1")).scalars().all() == ["cancelled"]


def open_to(owner: Engine, schema: str) -> str | None:
    with owner.connect() as connection:
        return open_schema(connection, schema=None if schema == "public" else schema)


def test_a_schema_that_strangers_may_create_in_is_named_with_the_remedy(
    engine: Engine, producer: Engine, schema: str
) -> None:
    role = producer.url.username
    assert open_to(engine, schema) is None

    put(engine, f'GRANT CREATE ON SCHEMA "{schema}" TO {role}')

    sentence = open_to(engine, schema)
    assert sentence is not None
    assert f"the roles {role} may create objects in the schema" in sentence
    put(engine, sentence.partition("run: ")[2])
    assert open_to(engine, schema) is None


def test_a_schema_on_the_search_path_counts_as_ours(engine: Engine, producer: Engine, schema: str) -> None:
    # PostgreSQL looks for operators along the search path, in every schema there.
    put(engine, "GRANT CREATE ON SCHEMA public TO PUBLIC")

    assert str(producer.url.username) in str(open_to(engine, schema))

    put(engine, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert open_to(engine, schema) is None


def test_a_stranger_who_may_create_there_acts_as_the_owner(engine: Engine, producer: Engine, schema: str) -> None:
    # The reason why workers refuse to start: the trigger of a view would call an operator that fits the types better
    # than PostgreSQL's own.
    put(engine, f'GRANT CREATE ON SCHEMA "{schema}" TO {producer.url.username}')
    accept_all(engine, entry())
    put(
        producer,
        "CREATE FUNCTION is(a varchar, b varchar) RETURNS bool LANGUAGE plpgsql AS "
        "'BEGIN RAISE EXCEPTION ''called by %'', current_user; END'",
    )
    put(producer, f'CREATE OPERATOR "{schema}".= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = is)')

    with pytest.raises(DBAPIError, match=f"called by {engine.url.username}"):
        put(producer, "INSERT INTO cancel_v1 (id) SELECT id FROM jobs_v1")
