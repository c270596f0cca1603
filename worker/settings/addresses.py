"""Reads the URLs of the database and of Redis and rewrites them, so all libraries understand the same.

SQLAlchemy, libpq and SQLite read the database URL; redis-py and kombu read the Redis URL. They differ in lists of
hosts, in characters of passwords, and in the names and spelling of parameters.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

ENCODE: Final = "write /, ?, #, @ and % in a name or password as %2F, %3F, %23, %40 and %25"
# The harmless parameters of https://docs.sqlalchemy.org/en/21/dialects/sqlite.html
_SQLITE: Final = frozenset({"timeout", "check_same_thread", "cached_statements"})
# Parameters that both redis-py and kombu know; https://redis.readthedocs.io/en/stable/connections.html
_TLS: Final = frozenset(
    {
        "ssl_cert_reqs",
        "ssl_check_hostname",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
    }
)
_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_CERT_REQS: Final = ("none", "optional", "required")
_FALSE: Final = frozenset({"0", "f", "false", "n", "no"})  # redis-py's words; kombu knows `false` only
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]*))?")
_HOSTS: Final = r"(\[[^\]]*\]|[^:]*)(:[0-9]*)?"
# A folder without a server socket: libpq checks all parameters, then fails to connect.
_NOWHERE: Final = "/nonexistent"


def database_url(text: str) -> str:
    """Return a database URL for SQLAlchemy: `postgres://u@h/d` gives `postgresql+psycopg://u@h/d`.

    Raises ValueError with the fault and the remedy, without the password.
    """
    scheme, _, rest = text.strip().partition("://")
    if scheme in ("sqlite", "sqlite+pysqlite"):
        return _sqlite(rest)
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        return _postgresql(rest)
    raise ValueError("it must begin with postgresql:// (psycopg 3 is used) or sqlite:////")


def _sqlite(rest: str) -> str:
    path, _, parameters = rest.partition("?")
    if unknown := dict(parse_qsl(parameters, keep_blank_values=True)).keys() - _SQLITE:
        raise ValueError(f"SQLite knows no parameter {min(unknown)!r}; write a ? in the file's name as %3F")
    if len(path) < 2 or not path.startswith("/") or path == "/:memory:":
        raise ValueError("all processes must open the same file: write an absolute path, sqlite:////path/afterword.db")
    if "\0" in unquote(path):
        raise ValueError("its path has the character U+0000; a file name cannot contain it")
    return f"sqlite://{rest}"


def _postgresql(rest: str) -> str:
    user, place = _without_user(rest)
    address, _, parameters = place.partition("?")
    hosts, slash, name = address.partition("/")
    if re.search(r"[@#]", address):
        raise ValueError(f"it is unclear where its password ends; {ENCODE}")
    query = _query(parameters)
    found = [_host(text) for text in hosts.split(",")] if hosts else []
    if len(found) > 1:
        query = _listed(found) | query
    single = "".join(f"{_bracketed(host)}{port and ':'}{port}" for host, port in found) if len(found) == 1 else ""
    _check_with_libpq(unquote(name), query)
    login = f"{user}@" if user is not None else ""
    # libpq does not read + as a space.
    tail = f"?{urlencode(query, quote_via=quote, safe='/,:[]')}" if query else ""
    return f"postgresql+psycopg://{login}{single}{slash}{quote(unquote(name), safe='')}{tail}"


def _without_user(rest: str) -> tuple[str | None, str]:
    """Return `user:password` percent-encoded (None if there is no user), and the rest of the URL after it."""
    authority = re.match(r"[^/?#]*", rest)[0]  # type: ignore[index]  # it matches anything
    if "@" in authority:
        user, _, place = authority.rpartition("@")
        place += rest[len(authority) :]
    elif "@" in rest and not re.fullmatch(f"{_HOSTS}(,{_HOSTS})*", authority):
        # The text after the colon is not a port, so it is a password, and this password contains / ? or #.
        user, _, place = rest.partition("@")
    else:
        return None, rest
    name, colon, password = user.partition(":")
    return f"{_encoded(name)}{colon}{_encoded(password)}", place


def _encoded(text: str) -> str:
    return quote(unquote(text, errors="surrogateescape"), safe="", errors="surrogateescape")


def _host(text: str) -> tuple[str, str]:
    found = _HOST.fullmatch(text)
    if found is None or not 0 <= int(found["port"] or 0) <= 65535:
        raise ValueError(
            "each host must be host, host:port or [IPv6 address]:port, with a port of at most 65535; separate hosts by"
            f" commas, as in postgresql://user:password@one:5432,two:5432/name; {ENCODE}"
        )
    return unquote(found["v6"] or found["name"]), found["port"] or ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe="")


def _query(text: str) -> dict[str, str]:
    """Return the parameters by name; SQLAlchemy's `host=a:1&host=b:2` becomes libpq's `host=a,b`, `port=1,2`."""
    pairs = parse_qsl(text, keep_blank_values=True)
    query = dict(pairs)
    hosts = [value for name, value in pairs if name == "host"]
    if len(hosts) > 1 or any(re.fullmatch(r"[A-Za-z0-9.-]+:[0-9]+", host) for host in hosts):
        query |= _listed([_host(host) for host in hosts])
    number = len(query["host"].split(",")) if "host" in query else 1
    ports = query.get("port", "").split(",")
    if len(ports) not in (1, number) or not all(re.fullmatch(r"[0-9]{0,5}", port) for port in ports):
        raise ValueError("its parameter port must be one number, or as many as there are hosts, separated by commas")
    if number > len(ports) and ports != [""]:
        # libpq takes one port for all hosts; SQLAlchemy wants a port for each.
        query["port"] = ",".join(ports * number)
    return query


def _listed(hosts: list[tuple[str, str]]) -> dict[str, str]:
    """Return hosts as parameters for libpq and SQLAlchemy: `[("a", "1"), ("b", "2")]` gives host `a,b`, port `1,2`."""
    ports = ",".join(port for _, port in hosts)
    return {"host": ",".join(host for host, _ in hosts)} | ({"port": ports} if ports.strip(",") else {})


def _check_with_libpq(name: str, query: dict[str, str]) -> None:
    """Let libpq check the names of the parameters, and the values it has a list of; raise ValueError."""
    from psycopg import Error, conninfo, pq

    given = {**query, "dbname": name, "host": _NOWHERE, "port": "", "user": "", "password": ""}
    try:
        conninfo.timeout_from_conninfo(dict(query))
        text = conninfo.make_conninfo("", **{key: value for key, value in given.items() if key != "hostaddr"})
    except Error as error:
        raise ValueError(f"libpq cannot read its parameters ({_first_line(str(error))})") from None
    connection = pq.PGconn.connect_start(text.encode())
    try:
        message = connection.error_message.decode(errors="replace")
    finally:
        connection.finish()
    if message and _NOWHERE not in message:
        raise ValueError(f"libpq cannot read its parameters ({_first_line(message)})")


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0].rstrip(".")


def split(text: str) -> SplitResult:
    """Split a URL; raise ValueError if its host cannot be a DNS name or its port is not a number from 0 to 65535."""
    parts = urlsplit(text)
    host = parts.hostname or ""
    try:
        if not host.isascii():
            import idna  # httpx uses it too; ASCII names need no encoding

            idna.encode(host)
    except UnicodeError:
        raise ValueError("its host is not a valid name; write it in ASCII, as in xn--bcher-kva.example") from None
    try:
        parts.port  # noqa: B018  the property raises for a bad port
    except ValueError:
        raise ValueError("its port must be a number from 0 to 65535") from None
    return parts


def redis_url(text: str) -> str:
    """Return a Redis URL that redis-py and kombu read alike; raise ValueError with the fault and the remedy."""
    try:
        parts = split(text.strip())
    except ValueError as error:
        raise ValueError(f"{error}; {ENCODE}") from None
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.fragment:
        raise ValueError(f"it must be redis://host:6379/0, or rediss:// for TLS; {ENCODE}")
    if not re.fullmatch(r"/?[0-9]*", parts.path):
        raise ValueError("its path must be the number of a database, as in redis://host:6379/0")
    query = _tls(parse_qsl(parts.query, keep_blank_values=True), is_tls=parts.scheme == "rediss")
    # redis-py and kombu both decode the value of a parameter once; / and : need no encoding.
    return parts._replace(query=urlencode(query, safe="/:")).geturl()


def _tls(pairs: Iterable[tuple[str, str]], *, is_tls: bool) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in pairs:
        if name not in _TLS:
            raise ValueError(f"its parameter {name!r} is not known to both redis-py and kombu; leave it out")
        if not is_tls:
            raise ValueError(f"its parameter {name!r} is for TLS; begin with rediss://")
        if name in _FILES and not Path(value).exists():
            raise ValueError(f"its parameter {name} is {value!r}, but there is no such file")
        query[name] = value
    if (given := query.get("ssl_cert_reqs")) is not None:
        # CERT_NONE is Celery's spelling.
        query["ssl_cert_reqs"] = given.lower().removeprefix("cert_")
        if query["ssl_cert_reqs"] not in _CERT_REQS:
            raise ValueError(f"its ssl_cert_reqs is {given!r}; it must be none, optional or required")
    if (checked := query.get("ssl_check_hostname")) is not None:
        query["ssl_check_hostname"] = "false" if checked.lower() in _FALSE else "true"
    return query
