"""The addresses that webhooks may connect to: every class of the tables, every form that hides an IPv4 address."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.webhooks.net.address_policy import Policy, policy

STRICT = policy()
EVERYTHING = policy(allow_cidrs=["0.0.0.0/0", "::/0"])
BEHIND_NAT64 = policy(nat64=True)
# The special-purpose table again: first and last address of each range, and their neighbours outside.
REFUSED_IPV4 = [
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.31.196.0", "192.31.196.255"),
    ("192.52.193.0", "192.52.193.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("192.175.48.0", "192.175.48.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "239.255.255.255"),
    ("240.0.0.0", "255.255.255.255"),
    ("168.63.129.16", "168.63.129.16"),
]
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:42::42",
    "fe80::a9fe:a9fe",
    "::ffff:169.254.169.254",
]
ipv4 = st.integers(0, 2**32 - 1).map(IPv4Address)
low_32 = st.integers(0, 2**32 - 1)
low_80 = st.integers(0, 2**80 - 1)


def allows(address: object, under: Policy = STRICT, port: int = 443) -> bool:
    return under.is_allowed(str(address), port)


@pytest.mark.parametrize(("first", "last"), REFUSED_IPV4, ids=[first for first, _ in REFUSED_IPV4])
def test_special_purpose_ipv4_is_refused_from_its_first_address_to_its_last(first: str, last: str) -> None:
    low, high = IPv4Address(first), IPv4Address(last)
    assert not allows(low)
    assert not allows(IPv4Address((int(low) + int(high)) // 2))
    assert not allows(high)
    for neighbour in (int(low) - 1, int(high) + 1):
        inside = any(IPv4Address(a) <= IPv4Address(neighbour % 2**32) <= IPv4Address(b) for a, b in REFUSED_IPV4)
        assert allows(IPv4Address(neighbour % 2**32)) is not inside


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450::1", "3ffe::1"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert allows(address)


@pytest.mark.parametrize(
    "address",
    [
        "::",
        "::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "100::1",
        "5f00::1",
        "4000::1",
        "1fff::1",
        "2001::1",
        "2001:1ff::1",
        "2001:db8::1",
        "2002:808:808::1",
        "2620:4f:8000::1",
        "3fff::1",
        "64:ff9b::808:808",
        "64:ff9b:1::808:808",
        "::808:808",
        "::ffff:0:8.8.8.8",
    ],
)
def test_ipv6_beyond_global_unicast_is_refused(address: str) -> None:
    assert not allows(address)


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "8.8.8.8:443", "[2606:4700::1]", "8.8.8.8/32"],
)
def test_an_address_that_is_not_numeric_is_refused(text: str) -> None:
    assert not allows(text)
    assert not allows(text, EVERYTHING)


@pytest.mark.parametrize("text", ["fe80::1%2", "fe80::1%eth0", "2606:4700::1%1", "::1%lo"])
def test_scope_ids_are_refused_under_any_policy(text: str) -> None:
    assert not allows(text, EVERYTHING)


@pytest.mark.parametrize("address", METADATA)
def test_metadata_is_refused_under_any_policy(address: str) -> None:
    plain = address.removeprefix("::ffff:")
    exactly = policy(allow_cidrs=["0.0.0.0/0", "::/0", str(ip_network(plain))])
    assert not allows(address)
    assert not allows(address, exactly)
    assert not exactly.is_opened(address)


@given(ipv4)
def test_a_mapped_address_is_judged_as_the_ipv4_it_is(address: IPv4Address) -> None:
    for under in (STRICT, EVERYTHING, policy(allow_cidrs=["10.0.0.0/8"])):
        assert allows(f"::ffff:{address}", under) is allows(address, under)


@given(ipv4)
def test_nat64_is_refused_or_with_nat64_enabled_judged_by_its_ipv4_address(address: IPv4Address) -> None:
    form = IPv6Address((0x64FF9B << 96) | int(address))
    assert not allows(form)
    assert not allows(form, EVERYTHING)
    assert allows(form, BEHIND_NAT64) is allows(address)


@given(ipv4, low_80, low_32)
def test_no_other_form_that_carries_an_ipv4_address_is_ever_allowed(address: IPv4Address, rest: int, low: int) -> None:
    number = int(address)
    forms = {
        "6to4": (0x2002 << 112) | (number << 80) | rest,
        "teredo's server": (0x2001_0000 << 96) | (number << 64) | (rest & (2**64 - 1)),
        "teredo's client": (0x2001_0000 << 96) | (low << 64) | (number ^ 0xFFFF_FFFF),
        "siit": (0xFFFF << 48) | number,
        "compatible": number if number != 1 else 2,
        "nat64's local prefix": (0x64_FF9B_0001 << 80) | rest,
    }
    for name, form in forms.items():
        for under in (STRICT, BEHIND_NAT64, EVERYTHING):
            assert not allows(IPv6Address(form), under), name


@given(st.integers(0, 2**128 - 1).map(IPv6Address))
def test_an_allowed_ipv6_address_is_global_unicast(address: IPv6Address) -> None:
    if allows(address):
        assert address in ip_network("2000::/3")
        assert address.is_global
    mapped = address.ipv4_mapped
    assert mapped is None or allows(address) is allows(mapped)


@given(ipv4)
def test_an_allowed_ipv4_address_is_global(address: IPv4Address) -> None:
    if allows(address):
        assert address.is_global
        assert not address.is_multicast


@given(ipv4, st.integers(1, 65535))
def test_opened_networks_open_all_ports_and_nothing_else(address: IPv4Address, port: int) -> None:
    under = policy(allow_cidrs=["10.1.0.0/16"])
    opened = address in IPv4Network("10.1.0.0/16")
    assert allows(address, under, port) is (opened or allows(address, STRICT, port))


def test_public_addresses_are_reached_on_the_configured_ports_only() -> None:
    assert [port for port in (22, 80, 443, 6379, 8443) if allows("8.8.8.8", STRICT, port)] == [443]
    plain = policy(allow_http=True, ports=[8443])
    assert [port for port in (22, 80, 443, 6379, 8443) if allows("8.8.8.8", plain, port)] == [80, 443, 8443]


def test_loopback_can_be_opened_in_both_families() -> None:
    under = policy(allow_cidrs=["127.0.0.0/8", "::1"])
    assert allows("127.0.0.1", under, 8000)
    assert allows("::ffff:127.0.0.1", under, 8000)
    assert allows("::1", under, 8000)
    assert not allows("10.0.0.1", under, 8000)


def test_a_denied_network_wins_over_an_allowed_one() -> None:
    under = policy(allow_cidrs=["10.0.0.0/8"], deny_cidrs=["10.9.0.0/16", "8.8.8.0/24"])
    assert allows("10.8.0.1", under)
    assert not allows("10.9.0.1", under)
    assert not allows("::ffff:10.9.0.1", under)
    assert not allows("8.8.8.8", under)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "example.com", "", "fd00::/129"])
def test_a_bad_network_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a network; write it as"):
        policy(allow_cidrs=[text])


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_bad_port_is_named(port: int) -> None:
    with pytest.raises(ValueError, match=f"{port} is not a port number"):
        policy(ports=[port])
