"""An address means the same to every library that reads it; otherwise a sentence refuses it before the start."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection
from psycopg import conninfo
from sqlalchemy import make_url

from worker.celeryconfig import configure
from worker.settings import BadSettings, Settings, read
from worker.settings.addresses import database_url, redis_url
from worker.store import session

ONE = {"host": "h", "dbname": "d"}


def by_sqlalchemy(url: str) -> dict[str, Any]:
    """Return psycopg's arguments."""
    address = make_url(url)
    _, arguments = address.get_dialect()().create_connect_args(address)
    return {name: str(value) for name, value in arguments.items()}


def by_libpq(url: str) -> dict[str, Any]:
    """Return libpq's reading of the URL as the producers' package passes it on."""
    return {name: str(value) for name, value in conninfo.conninfo_to_dict(url.replace("+psycopg", "")).items()}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("postgresql://u:p@h/d", {"user": "u", "password": "p", **ONE}),
        ("postgresql://h:5433/d\n", {"port": "5433", **ONE}),
        ("postgresql://[::1]:5433/d", {"host": "::1", "port": "5433", "dbname": "d"}),
        ("postgresql:///d?host=/run/postgresql", {"host": "/run/postgresql", "dbname": "d"}),
        ("postgresql://u@/d?host=a,b&port=1,2", {"user": "u", "host": "a,b", "port": "1,2", "dbname": "d"}),
        ("postgresql://u@/d?host=a,b&port=1", {"user": "u", "host": "a,b", "port": "1,1", "dbname": "d"}),
        ("postgresql://u@/d?host=a:1&host=b:2", {"user": "u", "host": "a,b", "port": "1,2", "dbname": "d"}),
        (
            "postgresql://u@a:1,[::1]:2,c/d?target_session_attrs=read-write",
            {"user": "u", "host": "a,::1,c", "port": "1,2,", "dbname": "d", "target_session_attrs": "read-write"},
        ),
        ("postgresql://a,b/d", {"host": "a,b", "dbname": "d"}),
        ("postgresql://h/d%20e?application_name=a@b%20c", {**ONE, "dbname": "d e", "application_name": "a@b c"}),
        ("postgresql://h:1/d?passfile=/x@y", {**ONE, "port": "1", "passfile": "/x@y"}),
        *(
            (f"postgresql://u:{written}@h/d", {"user": "u", "password": password, **ONE})
            for written, password in [
                ("a@b", "a@b"), ("a%40b", "a@b"), ("a/b", "a/b"), ("a#1/2", "a#1/2"), ("a:b", "a:b"), ("a[b", "a[b"),
                ("a?b", "a?b"), ("a%zz", "a%zz"), ("a%2Fb", "a/b"), ("ü+&=", "ü+&="),
            ]
        ),
    ],
)  # fmt: skip
def test_a_database_is_the_same_to_sqlalchemy_and_libpq(given: str, meant: dict[str, str]) -> None:
    url = database_url(given)

    # An empty list of ports means libpq's default for each host.
    assert {name: value for name, value in by_sqlalchemy(url).items() if value.strip(",")} == meant
    assert by_libpq(url) == meant
    assert database_url(url) == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("postgresql://u:geheim@a#b/c?d@h/d", "where its password ends"),
        ("postgresql://u:geheim@h:99999/d", "at most 65535"),
        ("postgresql://u:geheim@h:54x/d", "host:port"),
        ("postgresql://u:geheim@h/d?sslmod=require", 'invalid connection option "sslmod"'),
        ("postgresql://u:geheim@h/d?sslmode=on", 'invalid sslmode value: "on"'),
        ("postgresql://u:geheim@h/d?target_session_attrs=writer", "target_session_attrs"),
        ("postgresql://u:geheim@h/d?connect_timeout=5s", "connect_timeout"),
        ("postgresql://u:geheim@a,b,c/d?port=1,2", "as many as there are hosts"),
        ("sqlite:////a.db?mode=ro", "'mode'"),
        ("sqlite:////a%00.db", "U+0000"),
    ],
)
def test_a_database_that_no_library_could_read_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(BadSettings) as caught:
        read({"AFTERWORD_DATABASE_URL": text})

    (error,) = caught.value.errors
    assert error.startswith("AFTERWORD_DATABASE_URL is (not shown); ")
    assert says in error
    assert "geheim" not in error


@pytest.mark.parametrize("name", ["a b.db", "a#%41.db", "ü?.db"])
def test_a_sqlite_file_is_found_by_its_encoded_path(name: str) -> None:
    from urllib.parse import quote

    assert make_url(database_url(f"sqlite:////tmp/{quote(name)}")).database == f"/tmp/{name}"


@pytest.mark.parametrize(
    ("given", "tls"),
    [
        ("redis://h/0", None),
        ("redis://:p%40%2F@h:1/3\n", None),
        ("redis://[::1]:6379/0", None),
        ("rediss://h/0", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("rediss://h/0?ssl_cert_reqs=CERT_NONE", {"ssl_cert_reqs": ssl.CERT_NONE}),
        ("rediss://h/0?ssl_cert_reqs=none", {"ssl_cert_reqs": ssl.CERT_NONE}),
        ("rediss://h/0?ssl_cert_reqs=CERT_REQUIRED", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("rediss://h/0?ssl_check_hostname=no", {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": False}),
    ],
)
def test_a_redis_is_the_same_to_redis_py_and_kombu(given: str, tls: dict[str, Any] | None) -> None:
    url = redis_url(given)
    pool = redis.ConnectionPool.from_url(url)
    ours = pool.make_connection()

    app = Celery(set_as_current=False)
    configure(app, Settings(redis_url=url))
    theirs: Connection = app.connection_for_read()
    assert (theirs.hostname, theirs.port or 6379, int(theirs.virtual_host or 0), theirs.password) == (
        ours.host, ours.port, ours.db, pool.connection_kwargs.get("password"),
    )  # fmt: skip
    # A missing parameter takes the default, and theirs equals ours: kombu's connections are redis-py's.
    parameters = theirs.ssl or {}
    assert isinstance(ours, redis.SSLConnection) == (tls is not None) == bool(parameters)
    if tls is not None:
        assert isinstance(ours, redis.SSLConnection)
        assert ours.cert_reqs == tls["ssl_cert_reqs"] == parameters.get("ssl_cert_reqs", ssl.CERT_REQUIRED)
        if "ssl_check_hostname" in tls:
            assert ours.check_hostname is tls["ssl_check_hostname"] is parameters["ssl_check_hostname"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rediss://:geheim@h/0?ssl_cert_reqs=maybe", "'maybe'"),
        ("redis://:geheim@h/0?ssl_cert_reqs=none", "rediss://"),
        ("redis://:geheim@h/0?socket_timeout=5", "'socket_timeout'"),
        ("redis://:geheim@h/0?db=3", "'db'"),
        ("rediss://:geheim@h/0?ssl_ca_certs=/no/such.pem", "no such file"),
        ("redis://:geheim#1@h/0", "%23"),
        ("redis://:geheim@h:99999/0", "65535"),
    ],
)
def test_a_redis_that_one_library_could_not_read_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(BadSettings) as caught:
        read({"AFTERWORD_REDIS_URL": text})

    (error,) = caught.value.errors
    assert error.startswith("AFTERWORD_REDIS_URL is (not shown); ")
    assert says in error
    assert "geheim" not in error


def test_a_line_break_at_the_end_is_no_part_of_a_setting(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfsk-1\r\n")
    settings = read(
        {
            "AFTERWORD_DATABASE_URL": "postgresql://h/d\n",
            "AFTERWORD_REDIS_URL": "redis://h/0\r\n",
            "AFTERWORD_ENDPOINT_URL": "http://h\n",
            "AFTERWORD_ENDPOINT_KEY_FILE": f"{tmp_path / 'key'}\n",
            "AFTERWORD_CONCURRENCY": "7\n",
        }
    )

    assert (settings.database_url, settings.redis_url) == ("postgresql+psycopg://h/d", "redis://h/0")
    assert (settings.concurrency, settings.endpoint and settings.endpoint.key) == (7, "sk-1")


def test_a_urls_connection_parameters_win_over_our_defaults() -> None:
    plain = session.arguments(make_url(database_url("postgresql://h/d")), reading=False)
    chosen = session.arguments(
        make_url(database_url("postgresql://h/d?connect_timeout=9&target_session_attrs=any&client_encoding=LATIN1")),
        reading=False,
    )

    assert (plain["connect_timeout"], plain["target_session_attrs"]) == (5, "read-write")
    assert not {"connect_timeout", "target_session_attrs"} & chosen.keys()
    # No other encoding could carry every answer.
    assert chosen["client_encoding"] == "UTF8"
