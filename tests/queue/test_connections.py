"""The rule for connections to Redis: any exception except an error reply closes its connection."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection
from redis._parsers.socket import SocketBuffer
from redis.exceptions import ResponseError

from tests.worker_modules import MODULES, name, place
from worker.queue.connections import RedisPool, ReplyTooLong
from worker.queue.nudges import connect, push_nudges


class Boom(Exception):
    """An exception that no library raises."""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as made:
        made.delete("a", "b", "list", "long")
        made.set("a", "A" * 5)
        made.set("b", "B" * 5)
        yield made


def only(client: redis.Redis) -> Any:
    """Return the client's only connection."""
    (connection,) = client.connection_pool._available_connections
    return connection


# Places in redis-py where an exception may occur, and the exceptions that it does not expect there.
PLACES = [
    ("while a reply is read", SocketBuffer, "_read_from_socket"),
    ("while a command is written", redis.Connection, "_host_error"),
    ("in the handshake", redis.Connection, "on_connect_check_health"),
    ("before a connection is used again", SocketBuffer, "can_read"),
]


@pytest.mark.parametrize("error", [MemoryError, RecursionError, Boom, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(("owner", "name"), [place[1:] for place in PLACES], ids=[place[0] for place in PLACES])
def test_after_an_exception_of_another_kind_every_answer_is_its_own_commands(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: type[BaseException]
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error("somewhere inside")

    for _ in range(3):
        if name == "on_connect_check_health":
            only(client).disconnect()
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, fail)
            with pytest.raises(error):
                client.get("a")
        assert only(client)._sock is None
        assert (client.get("b"), client.get("a")) == (b"BBBBB", b"AAAAA")


def test_bytes_that_were_read_and_lost_take_their_connection_along(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the buffer cannot grow: the bytes from recv() are gone."""
    client.set("long", "x" * 300_000)

    def losing(self: Any, *args: Any, **kwargs: Any) -> bool:
        self._sock.recv(1000)
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(SocketBuffer, "_read_from_socket", losing)
        with pytest.raises(MemoryError):
            client.get("long")

    assert client.get("a") == b"AAAAA"


def test_an_exception_among_the_replies_of_a_pipeline_takes_its_connection_along(client: redis.Redis) -> None:
    def fail(answer: Any, **options: Any) -> Any:
        raise Boom

    pipeline = client.pipeline(transaction=False)
    pipeline.set_response_callback("LLEN", fail)
    pipeline.llen("list").get("a").get("a").get("a")
    with pytest.raises(Boom):
        pipeline.execute()

    assert only(client)._sock is None
    assert client.get("b") == b"BBBBB"


def test_an_exception_between_a_command_and_its_reply_takes_its_connection_along(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise Boom

    with monkeypatch.context() as broken:
        broken.setattr(client, "parse_response", fail)
        with pytest.raises(Boom):
            client.get("a")

    assert client.get("b") == b"BBBBB"


def test_a_reply_that_is_an_error_keeps_its_connection(client: redis.Redis) -> None:
    before = only(client)._sock
    with pytest.raises(ResponseError):
        client.lpush("a", "x")
    with pytest.raises(ResponseError):
        push_nudges(client, "chat.run", [(77, b"x")], room=1)

    assert only(client)._sock is before is not None


def test_a_reply_longer_than_any_we_ask_for_is_not_read(redis_url: str) -> None:
    client = redis.Redis.from_pool(RedisPool.from_url(redis_url, longest=1000))
    client.set("long", "x" * 1001)

    with pytest.raises(ReplyTooLong, match="1001 bytes"):
        client.get("long")

    client.set("long", "x" * 1000)
    assert client.get("long") == b"x" * 1000
    client.delete("long")
    client.close()


def test_kombus_connections_obey_it_too(redis_url: str) -> None:
    with Connection(redis_url, transport="worker.queue.remote_control:Transport") as connection:
        channel: Any = connection.default_channel
        for pool in (channel.pool, channel.async_pool):
            made = pool.make_connection()
            assert isinstance(pool, RedisPool)
            assert "_ClosesOnError" in {one.__name__ for one in type(made).__mro__}


@pytest.mark.parametrize("path", [path for path in MODULES if place(path) != "dev"], ids=name)
def test_no_connection_of_the_worker_is_made_without_the_rule(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("Redis", "Redis.from_url", "ConnectionPool")
        ):
            raise AssertionError(f"{path}:{node.lineno} makes a client of Redis; use nudges.connect or RedisPool")


def test_a_listener_that_lost_bytes_is_made_again(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-py tries to keep a subscription's connection after every error while it reads a message."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError

    with connect(redis_url) as client:
        listener = client.pubsub()
        listener.subscribe("channel")
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        client.publish("channel", "lost")
        with monkeypatch.context() as broken:
            broken.setattr(SocketBuffer, "read", fail)
            with pytest.raises(MemoryError):
                listener.get_message(timeout=5)
        assert listener.connection._sock is None

        assert listener.get_message(timeout=5)["type"] == "subscribe"
        client.publish("channel", "heard")
        assert listener.get_message(timeout=5)["data"] == b"heard"
        listener.close()
