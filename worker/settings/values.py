"""Settings, first step: turns the text of a setting into its value, or raises ValueError with the expected form."""

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
    """Reads one kind of setting. `read` returns the value or raises ValueError; `expects` is for ops/settings.md."""

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
    """Read one of these words."""
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
    """Return the URL for the POST of a chat completion. A query stays.

    Without a path, `/v1/chat/completions` is added. A path that ends in `/chat/completions` stays. Any other path is
    the `base_url` of OpenAI's clients: `https://h/api` gives `https://h/api/chat/completions`.
    """
    parts = split(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError("it must be an address such as https://api.example.com or http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it must not have a user or password; put a key into the endpoint's key")
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
        # With https:// the proxy's certificate could not be distinguished from a receiver's.
        raise ValueError("it must begin with http://, as in http://proxy.example.com:3128")
    return _proxy(text)


def _key(text: str) -> str:
    # The key becomes a header value: a line break in it would start another header.
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
    # In a file of keys, people write a key per line.
    return [word for word in re.split(r"[,\s]+", text) if word]


def _secret_keys(text: str) -> tuple[str, ...]:
    keys = _listed(text)
    for place, key in enumerate(keys, 1):
        if not FERNET_KEY.fullmatch(key):
            raise ValueError(
                f"key {place} must be 32 bytes in URL-safe base64, 44 characters; "
                "make one with `openssl rand -base64 32 | tr +/ -_`"
            )
        if key in keys[: place - 1]:
            raise ValueError(f"key {place} repeats an earlier key; keep only the first")
    if not keys:
        raise ValueError("it must hold at least one key")
    return tuple(keys)


def _networks(text: str) -> tuple[Network, ...]:
    found: list[Network] = []
    for network in _listed(text):
        try:
            found.append(ip_network(network))
        except ValueError as error:
            raise ValueError(f"{network!r} must be a network such as 10.1.0.0/16 or fd00::/8 ({error})") from error
    return tuple(found)


def _ports(text: str) -> tuple[int, ...]:
    found = _listed(text)
    for port in found:
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            raise ValueError(f"{port!r} must be a port, a number from 1 to 65535, such as 8443")
    if not found:
        raise ValueError("it must hold at least one port, such as 8443")
    return tuple(sorted({int(port) for port in found}))


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
SECRET_KEYS = Reader("keys of 44 characters, separated by commas, the newest first", _secret_keys)
NETWORKS = Reader("networks such as 10.1.0.0/16, separated by commas", _networks)
PORTS = Reader("ports such as 8443, separated by commas", _ports)
FILE = Reader("path of a file", _file)
FOLDER = Reader("path of a folder", Path)
