"""A worker survives trouble with Redis: killed connections, restarts, a failover, silence, full memory."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from kombu.asynchronous import Hub
from redis import Redis

from tests.pool.workers import Toy, until
from worker.dev.redis import RedisServer, free_port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Yield a Redis server for this test alone."""
    server = RedisServer(folder=tmp_path / "redis")
    yield server
    server.remove()


@pytest.fixture
def own(server: RedisServer, tmp_path: Path) -> Iterator[Toy]:
    toy = Toy(server.url, tmp_path)
    yield toy
    toy.close()


def kill_clients(redis: Redis) -> None:
    """Close all connections of the worker: kombu's for control and ours for the queues."""
    me = redis.client_id()
    for client in redis.client_list():
        if int(client["id"]) != me and client["name"] != "toy":
            redis.client_kill_filter(_id=client["id"])


def test_killed_connections_are_made_again_and_running_calls_go_on(toy: Toy) -> None:
    child = toy.start(SLOTS="3")
    held = toy.row(do="gate", gate="gate")
    toy.push(held)
    toy.await_events("start", 1)

    for number in range(5):
        kill_clients(toy.redis)
        toy.push(toy.row())
        toy.await_events("end", number + 1)

    toy.open("gate")
    toy.await_events("end", 6)
    assert len(toy.events("start")) == 6
    assert len(toy.events("ready")) == 1
    assert not child.ended()


def test_slots_stay_counted_over_reconnects(toy: Toy) -> None:
    toy.start(SLOTS="3")
    toy.push(*(toy.row(do="gate", gate="gate") for _ in range(10)))
    toy.await_events("start", 3)

    kill_clients(toy.redis)
    until(lambda: toy.redis.pubsub_numpat() == 1, what="the reconnection")
    kill_clients(toy.redis)
    until(lambda: toy.redis.pubsub_numpat() == 1, what="the reconnection")
    assert len(toy.events("start")) == 3

    toy.open("gate")
    toy.await_events("end", 10)
    assert len(toy.events("start")) == 10


def test_a_restarted_redis_is_found_again(server: RedisServer, own: Toy) -> None:
    server.start()
    child = own.start()
    own.push(own.row())
    own.await_events("end", 1)

    server.stop(kill=True)
    until(lambda: "broker.unreachable" in child.text(), what="the outage")
    server.start()

    own.push(own.row())
    own.await_events("end", 1)
    assert not child.ended()


def test_a_worker_started_before_its_redis_waits_for_it(server: RedisServer, own: Toy) -> None:
    child = own.start(ready=False)
    until(lambda: "broker.unreachable" in child.text() or child.ended(), what="the first attempt")

    server.start()

    own.await_events("ready", 1)
    own.push(own.row())
    own.await_events("end", 1)


def test_a_worker_without_redis_obeys_a_stop_signal(server: RedisServer, own: Toy) -> None:
    server.start()
    child = own.start()
    server.stop(kill=True)
    until(lambda: "broker.unreachable" in child.text(), what="the outage")

    child.signal(signal.SIGTERM)

    child.wait()


def test_a_change_of_roles_ends_nothing(server: RedisServer, own: Toy) -> None:
    server.start()
    child = own.start()

    own.redis.replicaof("127.0.0.1", str(free_port()))
    until(lambda: "window.unreadable" in child.text(), what="the refusal")
    own.redis.replicaof("NO", "ONE")

    own.push(own.row())
    own.await_events("end", 1)
    assert not child.ended()


def refuse_writes(redis: Redis) -> None:
    redis.replicaof("127.0.0.1", str(free_port()))


def accept_writes(redis: Redis) -> None:
    redis.replicaof("NO", "ONE")


def fill_up(redis: Redis) -> None:
    redis.config_set("maxmemory", 1)


def make_room(redis: Redis) -> None:
    redis.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    ("refuse", "accept"), [(refuse_writes, accept_writes), (fill_up, make_room)], ids=["read-only", "full"]
)
def test_a_redis_that_refuses_the_control_connection_is_asked_again_at_leisure(
    server: RedisServer, own: Toy, refuse: Callable[[Redis], None], accept: Callable[[Redis], None]
) -> None:
    server.start()
    refuse(own.redis)
    child = own.start(ready=False)

    until(lambda: child.text().count("broker.lost") > 5 or child.ended(), what="it is refused repeatedly")
    accept(own.redis)

    own.await_events("ready", 1)
    own.push(own.row())
    own.await_events("end", 1)
    until(lambda: own.redis.pubsub_numpat() == 1, what="the control connection")
    assert "Frequent restarts" not in child.text()
    assert not child.ended()


def test_a_control_connection_that_is_lost_is_made_again_without_a_restart_even_on_a_full_redis(
    server: RedisServer, own: Toy
) -> None:
    server.start()
    child = own.start()
    fill_up(own.redis)
    kill_clients(own.redis)

    until(lambda: "control.lost" in child.text(), what="the loss")
    until(lambda: own.redis.pubsub_numpat() == 1, what="the control connection")
    make_room(own.redis)

    own.push(own.row())
    own.await_events("end", 1)
    assert "broker.lost" not in child.text()
    assert len(own.events("ready")) == 1


def test_a_control_connection_that_ends_behind_a_message_is_made_again_without_a_restart(
    server: RedisServer, own: Toy
) -> None:
    server.start()
    child = own.start()

    # A busy worker finds both in one turn of the hub: messages, and the closed connection behind them.
    child.signal(signal.SIGSTOP)
    own.redis.publish("/0.afterword.pidbox", b"no command")
    kill_clients(own.redis)
    child.signal(signal.SIGCONT)

    until(lambda: "control.lost" in child.text(), what="the loss")
    until(lambda: own.redis.pubsub_numpat() == 1, what="the control connection")
    own.push(own.row())
    own.await_events("end", 1)
    assert "broker.lost" not in child.text()
    assert len(own.events("ready")) == 1


def test_a_full_redis_is_still_emptied_and_rejects_wait_until_there_is_room(server: RedisServer, own: Toy) -> None:
    server.start()
    child = own.start(SLOTS="1")
    held = own.row(do="gate", gate="gate")
    own.push(held)
    own.await_events("start", 1)
    own.redis.lpush("chat.run", b"rubbish")
    own.push(own.row())
    own.open("gate")
    own.redis.config_set("maxmemory", 1)

    until(lambda: not own.redis.llen("chat.run"), what="the pop")
    until(lambda: "window.unreadable" in child.text(), what="the refusal")
    own.redis.config_set("maxmemory", 0)

    until(lambda: len(own.rejected()) == 1, what="the reject")
    assert not child.ended()


def test_a_closed_connection_leaves_nothing_in_the_hub(redis_url: str) -> None:
    hub = Hub()
    with Connection(redis_url, transport="worker.queue.remote_control:Transport") as connection:
        connection.connect()
        connection.transport.register_with_event_loop(connection.connection, hub)
        assert len(hub.on_tick) == 1

    assert hub.on_tick == set()
    hub.close()


class Line:
    """A TCP relay that can fall silent, like a peer behind a broken router."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._silent = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets = [socket.create_server(("127.0.0.1", self.port))]
        self._run(self._accept)

    def fall_silent(self) -> None:
        """Stop forwarding on the existing connections; new connections work."""
        self._silent.set()
        self._silent = threading.Event()

    def close(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for one in self._sockets:
            one.close()

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._sockets[0].accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                self._run(self._carry, near, far, self._silent)
                self._run(self._carry, far, near, self._silent)

    def _carry(self, source: socket.socket, target: socket.socket, silent: threading.Event) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                if not silent.is_set():
                    target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


def test_a_silent_peer_is_given_up_within_seconds(server: RedisServer, tmp_path: Path) -> None:
    server.start()
    line = Line(server.port)
    through, direct = Toy(f"redis://127.0.0.1:{line.port}/0", tmp_path), Toy(server.url, tmp_path)
    try:
        through.start()
        line.fall_silent()

        direct.push(*(direct.row() for _ in range(3)))

        # The server gave one nudge to the BRPOP of the dead connection. It is lost, which nudges may be.
        direct.await_events("end", 2)
    finally:
        through.close()
        direct.close()
        line.close()
