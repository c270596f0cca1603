"""A worker with a mistyped address exits with one sentence; a worker whose database is not up yet waits and logs the
reason.
"""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from tests.flow.system import System
from tests.pool.workers import Child, celery_worker, until

pytestmark = pytest.mark.timeout(60)


def started(system: System, folder: Path, **settings: str) -> Child:
    return celery_worker("worker.app", log=folder / "log", environment=system.environment(**settings))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"database": "no_such"}, 'database "no_such" does not exist'),
        ({"username": "no_such", "password": "hunter2secret"}, 'role "no_such" does not exist'),
        ({"query": {"host": "no-such-host.invalid"}}, "no-such-host.invalid"),
    ],
)
def test_a_mistyped_address_ends_the_start_in_one_sentence(
    postgres_system: System, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    url = make_url(postgres_system.database_url).set(**change)  # type: ignore[arg-type]
    child = started(postgres_system, tmp_path, database_url=url.render_as_string(hide_password=False))

    assert child.wait(50) == 1
    (line,) = [line for line in child.text().splitlines() if line.startswith("afterword: ")]
    assert "AFTERWORD_DATABASE_URL" in line
    assert says in line
    assert "Traceback" not in child.text()
    assert "hunter2secret" not in child.text()


def test_a_server_that_is_not_up_yet_is_waited_for_with_a_reason(postgres_system: System, tmp_path: Path) -> None:
    child = started(postgres_system, tmp_path, database_url="postgresql://u:hunter2secret@127.0.0.1:1/x")
    try:
        until(lambda: child.text().count("database.away") > 1 or child.ended(), what="the worker waits")
        lines = [line for line in child.text().splitlines() if "database.away" in line]
        assert "Connection refused" in lines[0]
        assert "hunter2secret" not in child.text()
        assert not child.ended()
    finally:
        child.kill()


def test_a_schema_that_strangers_may_create_in_ends_the_start_and_every_command_says_so(
    postgres_system: System, tmp_path: Path
) -> None:
    system, role = postgres_system, f"stranger_{uuid.uuid4().hex[:8]}"
    execute(system, f"CREATE ROLE {role} LOGIN", f"GRANT CREATE ON SCHEMA public TO {role}")
    try:
        child = started(system, tmp_path)
        assert child.wait(50) == 1
        said = {"worker": child.text()}
        for words in (["db", "upgrade"], ["doctor"]):
            command = [sys.executable, "-m", "worker.cli", *words]
            done = subprocess.run(command, env=system.environment(), capture_output=True, text=True)
            said[words[-1]] = done.stdout + done.stderr
            assert done.returncode == (1 if words == ["doctor"] else 0)
        for text_ in said.values():
            assert f"run: REVOKE CREATE ON SCHEMA public FROM PUBLIC, {role}" in text_
    finally:
        execute(system, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def execute(system: System, *statements: str) -> None:
    with system.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
