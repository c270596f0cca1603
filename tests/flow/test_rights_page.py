"""ops/rights.md: a worker, producers and doctor work with exactly the rights that the page grants."""

import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis
from redis.exceptions import NoPermissionError
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from afterword import Afterword
from tests.flow.system import System, request
from tests.pool.workers import until
from tests.sentinels import Behind
from worker.dev.fake_endpoint import FakeEndpoint
from worker.dev.redis import RedisServer
from worker.queue.nudges import connect
from worker.store import migrate
from worker.store.engine import open_engine

ROOT = Path(__file__).parents[2]
ROLES = r"\b(?:afterword_(?:owner|worker|producer|reader|tenants)|acme)\b"
PASSWORD = "letters1and2digits"


def blocks(language: str) -> list[str]:
    page = (ROOT / "ops" / "rights.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


@dataclass
class Database:
    """A database with uniquely named roles, because roles belong to the whole server."""

    administrator: str
    name: str
    mark: str

    def named(self, statement: str) -> str:
        return re.sub(ROLES, lambda found: f"{found[0]}_{self.mark}", statement)

    def url(self, role: str) -> str:
        url = make_url(self.administrator).set(database=self.name, username=self.named(role))
        return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)

    def engine(self, role: str | None = None) -> Engine:
        url = make_url(self.administrator).set(database=self.name, drivername="postgresql+psycopg")
        return create_engine(self.url(role) if role else url)

    def run(self, block: str, role: str | None = None) -> None:
        engine = self.engine(role)
        try:
            with engine.begin() as connection:
                for statement in filter(str.strip, block.split(";")):
                    connection.exec_driver_sql(self.named(statement))
        finally:
            engine.dispose()


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    """Yield an empty database with the roles of the page, migrated by its owner."""
    made = Database(postgres_url, f"r_{uuid.uuid4().hex}", uuid.uuid4().hex[:8])
    administrator = create_engine(
        make_url(postgres_url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with administrator.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {made.name}"))
    superuser, owner, views, tenant = blocks("sql")
    made.run(superuser)
    engine = open_engine(made.url("afterword_owner"))
    migrate.upgrade(engine)
    engine.dispose()
    made.run(owner, "afterword_owner")
    made.run("CREATE SCHEMA afterword_tenants AUTHORIZATION afterword_owner; CREATE ROLE acme LOGIN")
    made.run(views + tenant, "afterword_owner")
    yield made
    with administrator.connect() as connection:
        connection.execute(text(f"DROP DATABASE {made.name} WITH (FORCE)"))
        for role in ("afterword_owner", "afterword_worker", "afterword_producer", "afterword_reader", "acme"):
            connection.execute(text(f"DROP ROLE {made.named(role)}"))
    administrator.dispose()


@pytest.fixture
def users(server: RedisServer) -> RedisServer:
    """Return a Redis server with the users of the page."""
    with Redis.from_url(server.url) as client:
        for line in blocks("redis")[0].splitlines():
            client.execute_command(*line.replace(">PASSWORD", f">{PASSWORD}").split())
    return server


def as_user(server: RedisServer, user: str) -> str:
    return server.url.replace("://", f"://{user}:{PASSWORD}@")


def doctor(system: System, **settings: str) -> str:
    found = subprocess.run(
        [sys.executable, "-m", "worker.cli", "doctor"],
        cwd=ROOT, env=system.environment(**settings), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return found.stdout + found.stderr


@pytest.fixture
def system(users: RedisServer, database: Database, fake: FakeEndpoint, tmp_path: Path) -> Iterator[System]:
    """Yield the parts as the worker's user; Celery sends as the producer's user."""
    engine = open_engine(database.url("afterword_worker"))
    made = System(as_user(users, "afterword_worker"), database.url("afterword_worker"), engine, fake, tmp_path)
    made.celery.close()
    made.celery = Celery(broker=as_user(users, "afterword_producer"), set_as_current=False)
    yield made
    made.close()
    engine.dispose()


def test_all_works_with_the_rights_of_the_page(system: System, users: RedisServer, database: Database) -> None:
    worker = system.start()
    producer, database_role = as_user(users, "afterword_producer"), database.engine("afterword_producer")
    with Afterword(producer) as client:
        made = [system.send(), system.send(priority=3), client.submit(request())]
        with database_role.begin() as connection:
            made.append(client.enqueue(connection, request()))
    database_role.dispose()
    system.await_all(made)
    for job_id in made:
        assert system.job(job_id).status == "completed"
    with Redis.from_url(users.url) as redis:
        redis.lpush("chat.run", b"rubbish")
        redis.set("chat.run\x06\x165", b"of another type")
    until(lambda: "redis.key_renamed" in worker.text(), what="the renaming of the key with another type")
    until(lambda: system.rows("SELECT 1 FROM afterword_dead_letters"), what="the dead letter")
    asked = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", "inspect", "ping"],
        cwd=ROOT, env=system.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "1 node online" in asked.stdout, asked.stdout + asked.stderr
    assert "ok      redis" in doctor(system)
    assert "ok      redis     version" in doctor(system, redis_url=as_user(users, "afterword_doctor"))
    worker.signal(15)
    worker.wait()
    with Redis.from_url(users.url) as redis:
        # Naming a connection, and searching for lists without a reader: the worker does without both.
        refused = {entry["object"].partition("|")[0] for entry in redis.acl_log()}
    assert refused <= {"client", "scan"}


def test_a_user_without_the_rights_to_remote_control_runs_jobs(system: System, users: RedisServer) -> None:
    (line, *_) = blocks("redis")[0].splitlines()
    words = line.replace(">PASSWORD", f">{PASSWORD}").split()
    rest = [word for word in words if not re.search("_kombu|pidbox|publish|psubscribe", word)]
    with Redis.from_url(users.url) as redis:
        redis.execute_command("ACL", "DELUSER", "afterword_worker")
        redis.execute_command(*rest)

    worker = system.start()

    assert system.await_status(system.send()).status == "completed"
    until(lambda: "control.refused" in worker.text(), what="the logged refusal")
    # Further turns of the hub do not ask again.
    for _ in range(5):
        system.await_status(system.send())
    assert worker.text().count('"control.refused"') == 1
    assert worker.text().count('"control.not_bound"') < 6
    worker.signal(15)
    worker.wait()
    assert "Traceback" not in worker.text()


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("afterword_worker", ["FLUSHALL"]),
        ("afterword_worker", ["GET", "another"]),
        ("afterword_worker", ["DEL", "another"]),
        ("afterword_worker", ["KEYS", "*"]),
        ("afterword_worker", ["CONFIG", "GET", "*"]),
        ("afterword_worker", ["PUBLISH", "/0.celery.pidbox", "x"]),
        ("afterword_producer", ["LRANGE", "chat.intake", "0", "-1"]),
        ("afterword_producer", ["RPOP", "chat.intake"]),
        ("afterword_producer", ["DEL", "chat.intake"]),
        ("afterword_producer", ["LPUSH", "chat.run", "x"]),
        ("afterword_producer", ["PUBLISH", "/0.afterword.pidbox", "x"]),
        ("afterword_producer", ["EVAL", "return 1", "0"]),
        ("afterword_doctor", ["LPUSH", "chat.intake", "x"]),
        ("afterword_doctor", ["DEL", "chat.intake"]),
        ("afterword_doctor", ["LRANGE", "another", "0", "-1"]),
    ],
)
def test_users_of_redis_have_no_other_rights(users: RedisServer, user: str, words: list[str]) -> None:
    with Redis.from_url(as_user(users, user)) as client, pytest.raises(NoPermissionError):
        client.execute_command(*words)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("afterword_worker", "CREATE TABLE mine (id int)"),
        ("afterword_worker", "ALTER TABLE afterword_jobs ADD COLUMN mine int"),
        ("afterword_worker", "DROP VIEW jobs_v1"),
        ("afterword_worker", "TRUNCATE afterword_jobs CASCADE"),
        ("afterword_producer", "SELECT 1 FROM jobs_v1"),
        ("afterword_producer", "SELECT 1 FROM submit_v1"),
        ("afterword_producer", "SELECT 1 FROM afterword_jobs"),
        ("afterword_producer", "DELETE FROM submit_v1"),
        ("afterword_producer", "CREATE TABLE mine (id int)"),
        ("afterword_reader", "INSERT INTO submit_v1 (job) VALUES ('{}')"),
        ("afterword_reader", "SELECT 1 FROM afterword_requests"),
        ("afterword_reader", "UPDATE afterword_jobs SET status = 'queued'"),
        ("acme", "SELECT 1 FROM public.jobs_v1"),
        ("acme", "SELECT 1 FROM public.afterword_jobs"),
        ("acme", "INSERT INTO public.submit_v1 (job) VALUES ('{}')"),
    ],
)
def test_roles_of_the_database_have_no_other_rights(database: Database, role: str, statement: str) -> None:
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        database.run(statement, role)


def test_readers_read_every_view_and_a_tenant_its_own_rows(database: Database, system: System) -> None:
    system.start()
    tenant = database.named("acme")
    theirs, others = system.send(tenant=tenant), system.send(tenant="another")
    system.await_all([theirs, others])

    reader, acme = database.engine("afterword_reader"), database.engine("acme")
    with reader.connect() as connection, acme.connect() as own:
        for view in ("jobs_v1", "attempts_v1", "usage_v1", "finished_v1"):
            statement = f"SELECT tenant FROM {{}}.{view} ORDER BY 1"
            assert set(connection.execute(text(statement.format("public"))).scalars()) == {tenant, "another"}
            assert set(own.execute(text(database.named(statement.format("afterword_tenants")))).scalars()) == {tenant}
        own.execute(text(database.named("SELECT * FROM afterword_tenants.webhook_deliveries_v1")))
        connection.execute(text("SELECT * FROM job_ids_v1, webhook_deliveries_v1"))
    reader.dispose(), acme.dispose()
    with Afterword(database=database.url("acme"), schema=database.named("afterword_tenants")) as client:
        assert client.get(theirs).status == "completed"
        assert client.get(others) is None


def test_the_user_on_a_sentinel_is_enough_for_workers_and_producers(tmp_path: Path) -> None:
    behind = Behind(tmp_path, sentinels=1)
    try:
        behind.start()
        (line,) = blocks("sentinel")[0].splitlines()
        with Redis(port=behind.ports[0]) as sentinel:
            sentinel.execute_command(*line.replace(">PASSWORD", f">{PASSWORD}").split())
            sentinel.execute_command("ACL", "SETUSER", "default", "off")
        url = f"{behind.url}?sentinel_username=afterword&sentinel_password={PASSWORD}"
        with connect(url) as client, Afterword(url) as producer:
            producer.submit(request())
            assert client.llen("chat.intake") == 1
            assert len(list(client.connection_pool.watch.servers())) == 2
    finally:
        behind.remove()
