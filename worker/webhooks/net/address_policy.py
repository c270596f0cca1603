"""Policy for the numeric addresses that a webhook may connect to. Pure; `url` and `address_guard` use it.

`ipaddress.is_global` is not enough: it lets 64:ff9b::/96, 2002::/16, ::/96, multicast and cloud metadata pass.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HTTPS_PORT: Final = 443
HTTP_PORT: Final = 80

# IANA's special-purpose registry (RFC 6890 and later), multicast, the reserved end, and Azure's WireServer.
_IPV4_DENIED: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",
    )
)
# IPv6 has a list of allowed networks, because a network outside global unicast may get any meaning later.
_IPV6_ALLOWED: Final = IPv6Network("2000::/3")
_IPV6_DENIED: Final = tuple(
    IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
# Clouds serve the credentials of their machines here: no setting opens these. The link-local networks are listed whole,
# because each cloud adds its own addresses there (169.254.169.254, 169.254.170.2, 169.254.170.23, 169.254.42.42).
_NEVER: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fe80::/10",
        "fd00:ec2::/32",
        "fd20:ce::/64",
        "fd00:42::42/128",
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
# Forms that carry an IPv4 address: NAT64's local prefix, 6to4, Teredo, SIIT, IPv4-compatible. No setting opens them,
# because only a router knows the final destination of such a packet.
_CARRIES_IPV4: Final = tuple(
    IPv6Network(text) for text in ("64:ff9b:1::/48", "2002::/16", "2001::/32", "::ffff:0:0:0/96", "::/96")
)
_IPV6_LOOPBACK: Final = IPv6Address("::1")


@dataclass(frozen=True, slots=True)
class Policy:
    """Addresses and ports that webhooks may use.

    `ports` apply to public addresses. `allow` opens addresses (and all their ports) that are otherwise refused; `deny`
    closes addresses and wins over `allow`. `nat64`: 64:ff9b::/96 is judged by the IPv4 address inside it.
    """

    allow_http: bool = False
    ports: frozenset[int] = frozenset({HTTPS_PORT})
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    nat64: bool = False

    def is_allowed(self, address: str, port: int) -> bool:
        """Say whether a connection may go to a numeric address; any other text is refused."""
        found = _read(address, nat64=self.nat64)
        if found is None or _is_in(found, _NEVER) or _is_in(found, self.deny):
            return False
        return _is_in(found, self.allow) or (port in self.ports and _is_public(found))

    def is_opened(self, address: str) -> bool:
        """Say whether `allow` opens a numeric address, on every port."""
        found = _read(address, nat64=self.nat64)
        return found is not None and _is_in(found, self.allow) and not _is_in(found, (*_NEVER, *self.deny))


def policy(
    *,
    allow_http: bool = False,
    allow_cidrs: Iterable[Network | str] = (),
    deny_cidrs: Iterable[Network | str] = (),
    ports: Iterable[int] = (),
    nat64: bool = False,
) -> Policy:
    """Make a policy from an operator's settings. Port 443 is always allowed, port 80 with `allow_http`.

    Raises ValueError with the network or the port that is invalid.
    """
    standard = {HTTPS_PORT, HTTP_PORT} if allow_http else {HTTPS_PORT}
    extra = frozenset(ports)
    for port in sorted(extra):
        if not 1 <= port <= 65535:
            raise ValueError(f"{port} is not a port number; use ports from 1 to 65535")
    return Policy(
        allow_http=allow_http,
        ports=extra | standard,
        allow=tuple(_network(text) for text in allow_cidrs),
        deny=tuple(_network(text) for text in deny_cidrs),
        nat64=nat64,
    )


def is_public(address: str) -> bool:
    """Say whether a numeric address is on the public internet."""
    found = _read(address, nat64=False)
    return found is not None and _is_public(found)


def plain(address: str) -> str:
    """Return a numeric address in its canonical form, IPv4 in IPv6 as IPv4; return any other text unchanged."""
    found = _read(address, nat64=True)
    return address if found is None else str(found)


def _network(text: Network | str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text} is not a network; write it as 10.0.0.0/8, 192.168.1.7 or fd12::/16") from error


def _read(text: str, *, nat64: bool) -> Address | None:
    """Return the address that a packet to `text` reaches; None for no address, or for a form that is never allowed."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id is not None:
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF) if nat64 else None
    return None if address != _IPV6_LOOPBACK and _is_in(address, _CARRIES_IPV4) else address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not _is_in(address, _IPV4_DENIED)
    return address in _IPV6_ALLOWED and not _is_in(address, _IPV6_DENIED)


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
