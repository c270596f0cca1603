"""Which numeric addresses a webhook may connect to. Pure; `url` and, at every connect, `address_guard` ask it.

`ipaddress.is_global` is no such test: it lets 64:ff9b::/96, 2002::/16, ::/96, multicast and cloud metadata pass.
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
# IPv6 is allowed, not denied: what is not global unicast today may be anything tomorrow.
_IPV6_ALLOWED: Final = IPv6Network("2000::/3")
_IPV6_DENIED: Final = tuple(
    IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
# Where clouds keep the credentials of their machines: no setting opens these. The link-local networks are whole, since
# every cloud adds addresses of its own there (169.254.169.254, 169.254.170.2, 169.254.170.23, 169.254.42.42).
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
# Forms that carry an IPv4 address: NAT64's local prefix, 6to4, Teredo, SIIT, IPv4-compatible. Where such a packet comes
# out, and at whom, is known to a router and not to us, so that no setting opens them either.
_CARRIES_IPV4: Final = tuple(
    IPv6Network(text) for text in ("64:ff9b:1::/48", "2002::/16", "2001::/32", "::ffff:0:0:0/96", "::/96")
)
_IPV6_LOOPBACK: Final = IPv6Address("::1")


@dataclass(frozen=True, slots=True)
class Policy:
    """Where webhooks may go. `ports` hold for public addresses, `allow` opens addresses (and all their ports) that are
    otherwise refused, `deny` closes some and wins over `allow`. `nat64`: 64:ff9b::/96 is judged as the IPv4 it carries.
    """

    allow_http: bool = False
    ports: frozenset[int] = frozenset({HTTPS_PORT})
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    nat64: bool = False

    def is_allowed(self, address: str, port: int) -> bool:
        """Say whether a connection may go to a numeric address; what is no such address is refused."""
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
    """Make a policy of an operator's settings. 443 is always among the ports, 80 with `allow_http`.

    Raises ValueError, naming the network or the port, if one cannot be read.
    """
    standard = {HTTPS_PORT, HTTP_PORT} if allow_http else {HTTPS_PORT}
    extra = frozenset(ports)
    for port in sorted(extra):
        if not 1 <= port <= 65535:
            raise ValueError(f"{port} is no port a webhook can go to; name ports from 1 to 65535")
    return Policy(
        allow_http=allow_http,
        ports=extra | standard,
        allow=tuple(_network(text) for text in allow_cidrs),
        deny=tuple(_network(text) for text in deny_cidrs),
        nat64=nat64,
    )


def is_public(address: str) -> bool:
    """Say whether a numeric address is one that everybody can reach."""
    found = _read(address, nat64=False)
    return found is not None and _is_public(found)


def plain(address: str) -> str:
    """Return a numeric address in the one form that can be compared, IPv4 in IPv6 as IPv4; what is none as it is."""
    found = _read(address, nat64=True)
    return address if found is None else str(found)


def _network(text: Network | str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text} is no network; write one as 10.0.0.0/8, 192.168.1.7 or fd12::/16") from error


def _read(text: str, *, nat64: bool) -> Address | None:
    """Return the address that a packet to `text` reaches; None for what is never allowed, or no address at all."""
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
