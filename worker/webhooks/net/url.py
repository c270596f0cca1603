"""Parses and checks a receiver's URL, at registration and at every send. Resolves no name."""

import functools
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import httpx

from worker.webhooks.net.address_policy import HTTP_PORT, HTTPS_PORT, Policy

MAX_CHARS: Final = 2048
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
# Resolvers read these as an IPv4 address: 2130706433, 127.1, 0x7f000001 (WHATWG URL Standard, "ends in a number").
_NUMBER: Final = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII)
_INTERNAL: Final = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "svc")


class UnusableUrl(ValueError):
    """A URL that no webhook can use. The text is a sentence that does not quote the URL."""


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """A parsed URL. `host` is ASCII, without brackets; `literal`: the host is a numeric address."""

    url: httpx.URL
    host: str
    port: int
    literal: bool

    @property
    def is_internal(self) -> bool:
        """The name resolves only inside a network: it has a single label, or a suffix that is not for registration."""
        labels = self.host.split(".")
        return not self.literal and (len(labels) == 1 or labels[-1] in _INTERNAL or "svc" in labels)


def target_fault(url: object, policy: Policy) -> str | None:
    """Return a sentence why a webhook cannot go to `url`, or None if its text is fine.

    `webhooks.net.address_guard` checks the resolved addresses at every connect.
    """
    if not isinstance(url, str):
        return "The URL is not a string; send a string that begins with https://"
    try:
        check(url, policy)
    except UnusableUrl as fault:
        return str(fault)
    return None


def check(url: str, policy: Policy) -> WebhookUrl:
    """Parse `url` and check its text against the policy. Raises UnusableUrl."""
    target = _read(url)
    if target.url.scheme == "http" and not policy.allow_http:
        raise UnusableUrl("The URL begins with http://, but this service does not allow it; use https://")
    opened = target.literal and policy.is_opened(target.host)
    # An internal name may resolve to an address that the operator allows; the guard checks the addresses.
    may_be_opened = bool(policy.allow) and target.is_internal
    if target.is_internal and not may_be_opened:
        raise UnusableUrl("The URL's host is a name of an internal network; use a public host name")
    if target.port not in policy.ports and not opened and not may_be_opened:
        raise UnusableUrl(f"The URL's port is {target.port}; {_ports(policy)} can be used")
    if target.literal and not policy.is_allowed(target.host, target.port):
        raise UnusableUrl("The URL's address is not public; webhooks only go to public addresses")
    return target


@functools.lru_cache(maxsize=1024)
def _read(url: str) -> WebhookUrl:
    if fault := _text_fault(url):
        raise UnusableUrl(fault)
    try:
        return _parse(url)
    except UnusableUrl:
        raise
    except (ValueError, httpx.InvalidURL) as error:
        # httpx decodes an xn-- name only when `host` is read, so this error may come after parsing. idna's errors are
        # UnicodeErrors, a subclass of ValueError.
        raise UnusableUrl("The URL cannot be read; check its host and its port") from error


def _parse(url: str) -> WebhookUrl:
    split, parsed = urlsplit(url), httpx.URL(url)
    split_port = split.port
    if "@" in split.netloc or parsed.userinfo:
        raise UnusableUrl("The URL holds a user or a password; send credentials in a header of the receiver")
    if not split.hostname or not parsed.host:
        raise UnusableUrl("The URL has no host; send for example https://example.com/hooks")
    host = parsed.raw_host.decode("ascii")
    if (
        split.scheme != parsed.scheme
        or split.hostname != _raw_host(parsed, split.hostname)
        or _ports_differ(parsed, split_port)
    ):
        raise UnusableUrl("The URL's host or port can be read in two ways; write it in its plain form")
    literal = _is_literal(host)
    if not literal and (fault := _name_fault(host)):
        raise UnusableUrl(fault)
    standard = HTTPS_PORT if parsed.scheme == "https" else HTTP_PORT
    return WebhookUrl(parsed, host, parsed.port if parsed.port is not None else standard, literal)


def _text_fault(url: str) -> str | None:
    if len(url) > MAX_CHARS:
        return f"The URL has {len(url)} characters; {MAX_CHARS} are allowed"
    if not url.lower().startswith(("https://", "http://")):
        return "The URL does not begin with https://"
    if not url.isprintable() or any(char.isspace() for char in url) or "\\" in url:
        return "The URL holds a backslash, a space or a control character; encode it with %"
    if "#" in url:
        return "The URL holds a fragment (#), but fragments are never sent; remove it"
    return None


def _raw_host(parsed: httpx.URL, hostname: str) -> str:
    """Return httpx's host in urlsplit's form: as written, in lower case; an xn-- name stays an xn-- name."""
    return parsed.raw_host.decode("ascii") if hostname.isascii() else parsed.host


def _ports_differ(parsed: httpx.URL, port: int | None) -> bool:
    standard = HTTPS_PORT if parsed.scheme == "https" else HTTP_PORT
    return (standard if parsed.port is None else parsed.port) != (standard if port is None else port)


def _is_literal(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def _name_fault(host: str) -> str | None:
    if host.endswith("."):
        return "The URL's host ends in a dot; remove the dot"
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "The URL's host is not a host name; use letters, digits, hyphens and dots"
    if _NUMBER.fullmatch(labels[-1]):
        return "The URL's host is a number; write an IPv4 address as four decimal numbers"
    return None


def _ports(policy: Policy) -> str:
    return " and ".join(str(port) for port in sorted(policy.ports))
