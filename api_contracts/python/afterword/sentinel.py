"""Parses URLs of a Redis behind Sentinel: `sentinel://user:password@one:26379,two:26379,three:26379/mymaster/0`.

Redis defines no standard form. This is the form of the package redis-sentinel-url (its scheme: `redis+sentinel://`).
The scheme for TLS is `sentinels://` or `rediss+sentinel://`. User and password are for Redis; the parameters
`sentinel_username` and `sentinel_password` are for the sentinels. Other parameters are redis-py's, as in `redis://`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

PORT = 26379
FORM = "it must be sentinel://host:26379,host:26379/name-of-the-primary/0, or sentinels:// for TLS"
_REDIS = {"sentinel": "redis", "redis+sentinel": "redis", "sentinels": "rediss", "rediss+sentinel": "rediss"}
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")
# The characters that Sentinel allows in a name: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/
_PRIMARY = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Sentinels:
    """A parsed URL: the sentinels' addresses and the primary that they watch.

    `hosts`: pairs of host and port. `primary`: its name, such as mymaster.
    `redis_url`: redis:// or rediss:// with the login, database and parameters of Redis. Its host is the first
    sentinel's and only a placeholder, because the sentinels name the primary's address.
    `username`, `password`: the login at the sentinels.
    """

    hosts: tuple[tuple[str, int], ...]
    primary: str
    redis_url: str
    username: str | None = None
    password: str | None = None

    def text(self) -> str:
        """Return the URL in one normal spelling: `sentinel://` or `sentinels://`, with every port."""
        parts = urlsplit(self.redis_url)
        user, at, _ = parts.netloc.rpartition("@")
        hosts = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.hosts)
        login = {"sentinel_username": self.username, "sentinel_password": self.password}
        given = urlencode({name: value for name, value in login.items() if value is not None}, quote_via=quote)
        query = "&".join(filter(None, (parts.query, given)))
        scheme = "sentinels" if parts.scheme == "rediss" else "sentinel"
        return f"{scheme}://{user}{at}{hosts}/{self.primary}{parts.path}{query and '?'}{query}"


def is_sentinel(url: str) -> bool:
    """Return True if the URL's scheme is that of a Redis behind Sentinel."""
    return url.partition("://")[0].lower() in _REDIS


def read_sentinels(url: str) -> Sentinels:
    """Parse the URL of a Redis behind Sentinel. Raises ValueError with the expected form, without any password."""
    scheme, _, rest = url.strip().partition("://")
    address, _, parameters = rest.partition("?")
    authority, _, path = address.partition("/")
    user, at, places = authority.rpartition("@")
    hosts = tuple(_host(place) for place in places.split(","))
    primary, _, database = path.partition("/")
    if not _PRIMARY.fullmatch(unquote(primary)) or not re.fullmatch(r"[0-9]*", database):
        raise ValueError(FORM)
    pairs = parse_qsl(parameters, keep_blank_values=True)
    login = {name: value for name, value in pairs if name in ("sentinel_username", "sentinel_password")}
    query = urlencode([pair for pair in pairs if pair[0] not in login], quote_via=quote, safe="/:")
    scheme, place = _REDIS[scheme.lower()], f"{_bracketed(hosts[0][0])}:{hosts[0][1]}"
    return Sentinels(
        hosts=hosts,
        primary=unquote(primary),
        redis_url=f"{scheme}://{user}{at}{place}/{database or 0}{query and '?'}{query}",
        username=login.get("sentinel_username"),
        password=login.get("sentinel_password"),
    )


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found["port"] or PORT) if found else 0
    if found is None or not 0 < port <= 65535:
        raise ValueError(f"{FORM}; write /, ?, #, @ and % in a name or password as %2F, %3F, %23, %40 and %25")
    return found["v6"] or found["name"], port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
