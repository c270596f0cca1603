"""Settings, first step: the text of one setting to its value, or a ValueError that says what it must be."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlunsplit

from worker.settings.addresses import database_url, redis_url, split
from worker.settings.sentinels import by_sentinels

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
FERNET_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")  # 32 bytes, https://github.com/fernet/spec

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Reader:
    """How one kind of setting is read: `read` returns the value or raises ValueError; `expects` is for the page."""

    expects: str
    read: Callable[[str], Any]


def whole(low: int, high: int) -> Reader:
    """Read a whole number from `low` to `high`, both included."""
    expects = f"a whole number from {low} to {high}"

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"it must be {expects}")
        return int(text)

    return Reader(expects, read)


def seconds(low: float, high: float) -> Reader:
    """Read a number of seconds from `low` to `high`, both included."""
    expects = f"seconds from {low:g} to {high:.15g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"it must be a number of {expects}")
        return value

    return Reader(expects, read)


def choice(*words: str) -> Reader:
    """Read one of a few words."""
    expects = " or ".join(words)

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"it must be {expects}")
        return text

    return Reader(expects, read)


def _flag(text: str) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if text.lower() not in known:
        raise ValueError("it must be true or false")
    return known[text.lower()]


def completions_url(text: str) -> str:
    """Return the address requests are POSTed to.

    No path: `/v1/chat/completions` is added. A path that ends in `/chat/completions` is used as it is. Any other
    path is what OpenAI's clients call `base_url`: `/chat/completions` is added. A query stays where it is.
    """
    parts = split(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError("it must be an address such as https://api.example.com or http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it must not hold a user or password; a key belongs into the endpoint's key")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path or '/v1'}/chat/completions"
    return urlunsplit(parts._replace(path=path))


def _proxy(text: str) -> str:
    parts = split(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be the address of an HTTP proxy, as in http://proxy.example.com:3128")
    return text


def _egress_proxy(text: str) -> str:
    if not text.startswith("http://"):
        # The certificate of a proxy could not be told apart from a receiver's.
        raise ValueError("it must begin with http://, as in http://proxy.example.com:3128")
    return _proxy(text)


def _key(text: str) -> str:
    # It becomes a header's value: a line break in it would start a header of its own.
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", text):
        raise ValueError("it must be one word of printable ASCII characters")
    return text


def _endpoint_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("it must be up to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit")
    return text


def _schema(text: str) -> str:
    if not SCHEMA.fullmatch(text) or text.startswith("pg_"):
        raise ValueError("it must be a plain PostgreSQL name: a-z, 0-9 and '_', up to 63, not beginning with pg_")
    return text


def _listed(text: str) -> list[str]:
    # In a file of secrets people write one to a line.
    return [one for one in re.split(r"[,\s]+", text) if one]


def _secret_keys(text: str) -> tuple[str, ...]:
    keys = _listed(text)
    for place, one in enumerate(keys, 1):
        if not FERNET_KEY.fullmatch(one):
            raise ValueError(
                f"key {place} must be 32 bytes in URL-safe base64, 44 characters; "
                "make one with `openssl rand -base64 32 | tr +/ -_`"
            )
        if one in keys[: place - 1]:
            raise ValueError(f"key {place} stands there twice; keep its first place")
    if not keys:
        raise ValueError("it must hold at least one key")
    return tuple(keys)


def _networks(text: str) -> tuple[Network, ...]:
    found: list[Network] = []
    for one in _listed(text):
        try:
            found.append(ip_network(one))
        except ValueError as error:
            raise ValueError(f"{one!r} must be a network such as 10.1.0.0/16 or fd00::/8 ({error})") from error
    return tuple(found)


def _ports(text: str) -> tuple[int, ...]:
    found = _listed(text)
    for one in found:
        if not re.fullmatch(r"[0-9]{1,5}", one) or not 1 <= int(one) <= 65535:
            raise ValueError(f"{one!r} must be a port, a number from 1 to 65535, such as 8443")
    if not found:
        raise ValueError("it must hold at least one port, such as 8443")
    return tuple(sorted({int(one) for one in found}))


def _file(text: str) -> str:
    if not Path(text).is_file():
        raise ValueError("there is no such file")
    return text


FLAG = Reader("true or false", _flag)
DATABASE_URL = Reader("postgresql://user:password@host/name or sqlite:////path", database_url)
REDIS_URL = Reader("redis://host:6379/0, rediss://… or sentinel://host,host/name", by_sentinels(redis_url))
COMPLETIONS_URL = Reader("https://host, its base_url, or the whole address", completions_url)
PROXY = Reader("http://host:port", _proxy)
EGRESS_PROXY = Reader("http://host:port", _egress_proxy)
KEY = Reader("one word", _key)
ENDPOINT_NAME = Reader("a name", _endpoint_name)
SCHEMA_NAME = Reader("a name", _schema)
SECRET_KEYS = Reader("keys of 44 characters, the newest first, a comma between two", _secret_keys)
NETWORKS = Reader("networks such as 10.1.0.0/16, a comma between two", _networks)
PORTS = Reader("ports such as 8443, a comma between two", _ports)
FILE = Reader("path of a file", _file)
FOLDER = Reader("path of a folder", Path)
