"""Redis behind Sentinel: the address, its connections, and the errors when no master is reachable."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from celery import Celery
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError
from sqlalchemy import create_engine

from afterword.sentinel import FORM, is_sentinel, read_sentinels
from tests.net.raw_server import Peer, RawServer
from tests.pool.workers import until
from tests.sentinels import NAME, Behind
from worker.celeryconfig import configure
from worker.dev.redis import RedisServer, free_port
from worker.log import secrets_of
from worker.queue.nudges import connect, push_nudges
from worker.queue.redis_check import trouble_of
from worker.queue.sentinel import UnknownPrimary, pool_of
from worker.settings import BadSettings, Settings, load
from worker.webhooks.net.own_servers import Server
from worker.webhooks.service import own_servers, watched_servers

Load = Callable[[str], Settings]


@pytest.fixture
def load_with(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that loads the settings with only this Redis address."""

    def load_settings(url: str) -> Settings:
        monkeypatch.setenv("AFTERWORD_REDIS_URL", url)
        return load()

    return load_settings


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    made = Behind(tmp_path_factory.mktemp("sentinel"), password="sentinels-secret")
    try:
        yield made.start()
    finally:
        made.remove()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sentinel://one/mymaster", "sentinel://one:26379/mymaster/0"),
        ("redis+sentinel://one:1,two,[::1]:3/my.master-1/2", "sentinel://one:1,two:26379,[::1]:3/my.master-1/2"),
        ("sentinel://user:p%40w%2Fd@one,two/m/0", "sentinel://user:p%40w%2Fd@one:26379,two:26379/m/0"),
        ("sentinel://:pw@one/m?sentinel_password=a%26b", "sentinel://:pw@one:26379/m/0?sentinel_password=a%26b"),
        ("rediss+sentinel://one/m?ssl_cert_reqs=none", "sentinels://one:26379/m/0?ssl_cert_reqs=none"),
        ("sentinels://one/m/1", "sentinels://one:26379/m/1"),
    ],
)
def test_an_address_is_read_in_each_of_its_spellings(load_with: Load, url: str, text: str) -> None:
    assert is_sentinel(url)
    assert read_sentinels(url).text() == text
    assert read_sentinels(text).text() == text
    assert load_with(url).redis_url == text


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://one",
        "sentinel://one/",
        "sentinel:///mymaster",
        "sentinel://one,/mymaster",
        "sentinel://one:26379;sentinel://two:26379/0",
        "sentinel://one:99999/mymaster",
        "sentinel://one:port/mymaster",
        "sentinel://one/mymaster/x",
        "sentinel://one/my master",
    ],
)
def test_an_address_that_leads_nowhere_ends_the_start_with_the_right_form(load_with: Load, url: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load_with(url)

    (error,) = caught.value.errors
    assert FORM in error


def test_all_passwords_of_an_address_are_kept_out_of_the_log(load_with: Load) -> None:
    settings = load_with("sentinel://u:first%40secret@one,two/m?sentinel_password=other/secret")

    assert {"first%40secret", "first@secret", "other/secret"} <= set(secrets_of(settings))


@pytest.mark.parametrize(
    "url", ["redis://u:a%3Bb%40c@one:6379/2", "redis://u:a;b%40c@one:6379/2", "sentinel://u:a;b%40c@one:6379/name/2"]
)
def test_celery_reads_the_login_and_the_database_of_an_address(load_with: Load, url: str) -> None:
    with Celery(set_as_current=False) as app:
        configure(app, load_with(url), queues=())
        read = app.connection_for_write()

    assert (read.hostname, read.userid, read.password, read.virtual_host) == ("one", "u", "a;b@c", "2")


def test_a_client_reaches_the_primary_and_not_a_replica(behind: Behind) -> None:
    with connect(behind.url) as client:
        assert client.info("replication")["role"] == "master"
        assert client.connection_pool.connection_kwargs["db"] == 0
        assert push_nudges(client, "chat.run", [(5, b"x")], room=10) == 1
        client.flushall()


def test_a_sentinel_that_is_away_is_passed_over(behind: Behind) -> None:
    with connect(behind.url.replace("://", f"://127.0.0.1:{free_port()},")) as client:
        assert client.ping()


def test_sentinels_that_know_no_such_primary_are_a_hopeless_start(behind: Behind) -> None:
    with connect(behind.url.replace(NAME, "another")) as client:
        with pytest.raises(UnknownPrimary, match="knows no 'another'"):
            client.ping()
        assert "AFTERWORD_REDIS_URL leads nowhere" in (trouble_of(client) or "")


def test_a_redis_in_the_place_of_a_sentinel_is_named(redis_server: RedisServer) -> None:
    with connect(f"sentinel://127.0.0.1:{redis_server.port}/mymaster") as client:
        assert "unknown command" in (trouble_of(client) or "")


def test_sentinels_that_are_away_are_an_outage() -> None:
    with connect(f"sentinel://127.0.0.1:{free_port()}/mymaster") as client:
        with pytest.raises(RedisConnectionError, match="no sentinel names the primary 'mymaster'"):
            client.ping()
        assert trouble_of(client) is None


def test_a_wrong_password_for_the_sentinels_is_said(behind: Behind) -> None:
    with connect(behind.url.partition("?")[0]) as client, pytest.raises(RedisConnectionError, match="uthentication"):
        client.ping()


def test_webhooks_go_neither_to_sentinels_nor_to_their_servers(
    behind: Behind, sqlite_url: str, load_with: Load
) -> None:
    settings, engine = load_with(behind.url), create_engine(sqlite_url)
    with connect(behind.url) as client:
        watched = watched_servers(client)

    assert {Server("127.0.0.1", port) for port in behind.ports} <= set(own_servers(engine, settings))
    assert sorted(one.port for one in watched) == sorted(server.port for server in behind.servers)


def test_a_redis_without_sentinels_has_no_servers_that_move(redis_url: str) -> None:
    with connect(redis_url) as client:
        assert watched_servers(client) == []


@pytest.mark.parametrize("by_script", [False, True], ids=["a command", "a script"])
def test_a_connection_to_a_primary_that_became_a_replica_is_not_kept(tmp_path: Path, by_script: bool) -> None:
    first, second = (RedisServer(folder=tmp_path / name).start() for name in ("first", "second"))

    class Watch:
        at = first.port

        def primary(self) -> tuple[str, int]:
            return "127.0.0.1", self.at

        def close(self) -> None:
            """Do nothing: there is nothing to close."""

    watch = Watch()
    with Redis.from_pool(pool_of(first.url, watch=watch)) as client, Redis.from_url(first.url) as old:
        client.set("where", "first")
        old.replicaof("127.0.0.1", str(second.port))
        watch.at = second.port

        with pytest.raises(ReadOnlyError) if not by_script else pytest.raises(Exception, match="READONLY"):
            client.eval("return redis.call('SET', 'a', 'b')", 0) if by_script else client.set("a", "b")

        client.set("where", "second")
        with Redis.from_url(second.url) as new:
            assert new.get("where") == b"second"
    first.remove(), second.remove()


def test_threads_that_ask_at_once_lose_no_sentinel(behind: Behind) -> None:
    with connect(behind.url) as client:
        watch = client.connection_pool.watch
        found: list[tuple[str, int]] = []
        threads = [threading.Thread(target=lambda: found.append(watch.primary())) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: not any(thread.is_alive() for thread in threads), what="the answers")
        assert len(found) == 8
        assert len(set(found)) == 1


def relay_to(port: int) -> Callable[[Peer], None]:
    """Return a function that carries bytes between a client and the server on this port."""

    def carry(peer: Peer) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            while data := peer.sock.recv(65536):
                server.sendall(data)
                peer.sock.sendall(server.recv(65536))

    return carry


def test_tls_is_for_the_sentinels_and_for_redis(
    redis_url: str, redis_server: RedisServer, tmp_path: Path, load_with: Load
) -> None:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    with RawServer(relay_to(redis_server.port), context=context) as redis:

        def names_it(peer: Peer) -> None:
            port = str(redis.port)
            answer = f"*2\r\n$9\r\n127.0.0.1\r\n${len(port)}\r\n{port}\r\n".encode()
            while data := peer.sock.recv(65536):
                peer.send(answer if b"GET-MASTER-ADDR-BY-NAME" in data else b"+OK\r\n")

        with RawServer(names_it, context=context) as sentinel:
            url = f"sentinels://127.0.0.1:{sentinel.port}/mymaster?ssl_ca_certs={tmp_path / 'ca.pem'}"
            with connect(url) as client:
                assert client.ping()
            with Celery(set_as_current=False) as app:
                configure(app, load_with(url), queues=())
                with app.connection_for_write() as control:
                    control.connect()
            distrustful = connect(url.partition("?")[0])
            with distrustful, pytest.raises(RedisConnectionError, match="CERTIFICATE_VERIFY"):
                distrustful.ping()
