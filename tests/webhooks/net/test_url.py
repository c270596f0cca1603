"""The rules for the text of a receiver's URL, at registration and at every send. These tests resolve no name."""

import pytest

from tests.webhooks.net.receiver import shown
from worker.webhooks.net.address_policy import policy
from worker.webhooks.net.url import check, target_fault

STRICT = policy()
PLAIN = policy(allow_http=True)
INSIDE = policy(allow_http=True, allow_cidrs=["127.0.0.0/8", "10.0.0.0/8", "::1"])


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://example.com", "example.com", 443),
        ("https://example.com/hooks?token=a%2Fb", "example.com", 443),
        ("HTTPS://EXAMPLE.com:443/", "example.com", 443),
        ("https://example.com:/", "example.com", 443),
        ("https://a_b.example.com/", "a_b.example.com", 443),
        ("https://bücher.example/ü", "xn--bcher-kva.example", 443),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443),
        ("https://8.8.8.8/", "8.8.8.8", 443),
        ("https://[2606:4700::1]/", "2606:4700::1", 443),
    ],
    ids=shown,
)
def test_a_public_https_address_is_taken(url: str, host: str, port: int) -> None:
    assert target_fault(url, STRICT) is None
    target = check(url, STRICT)
    assert (target.host, target.port) == (host, port)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (None, "is not a string"),
        ("", "does not begin with https"),
        ("ftp://example.com/", "does not begin with https"),
        ("//example.com/", "does not begin with https"),
        (" https://example.com/", "does not begin with https"),
        ("https:example.com", "does not begin with https"),
        ("https://example.com/" + "a" * 2048, "2048 are allowed"),
        ("http://example.com/", "does not allow it; use https"),
        ("https://user:pw@example.com/", "a user or a password"),
        ("https://user@example.com/", "a user or a password"),
        ("https://@example.com/", "a user or a password"),
        ("https://example.com@127.0.0.1/", "a user or a password"),
        ("https://example.com/#top", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com#@127.0.0.1/", "fragment"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https://127.0.0.1\\.example.com/", "backslash"),
        ("https://example.com/a b", "a space"),
        ("https://example.com/\r\nHost: x", "a control character"),
        ("https://example.com/\t", "a control character"),
        ("https://example.com/\x00", "a control character"),
        ("https://exa\u00admple.com/", "a control character"),
        ("https://\u202eexample.com/", "a control character"),
        ("https:///hooks", "no host"),
        ("https://:443/", "no host"),
        ("https://example.com:https/", "cannot be read"),
        ("https://example.com:65536/", "cannot be read"),
        ("https://example.com:\uff14\uff14\uff13/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://[v1.a]/", "cannot be read"),
        ("https://256.1.1.1/", "cannot be read"),
        ("https://\uff11\uff12\uff17.0.0.1/", "cannot be read"),
        # Invalid Punycode, or Punycode for characters that no host name may have (errors of idna, not of urlsplit).
        ("https://xn--a.example/", "cannot be read"),
        ("https://xn--.example/", "cannot be read"),
        ("https://xn--zzzzzz99999999.example/", "cannot be read"),
        ("https://xn--xn--a.example/", "cannot be read"),
        ("https://xn--example-.example/", "cannot be read"),
        ("https://xn--ls8h.example/", "cannot be read"),
        ("https://xn--" + "a" * 59 + ".example/", "cannot be read"),
        ("https://xn--\u00fc.example/", "cannot be read"),
        ("https://\U0001f4a9.example/", "cannot be read"),
        ("https://example\u3002com/", "in two ways"),
        ("https://example.com./", "ends in a dot"),
        ("https://example.com../", "ends in a dot"),
        ("https://example..com/", "is not a host name"),
        ("https://.example.com/", "is not a host name"),
        ("https://-a.example.com/", "is not a host name"),
        ("https://a%00b.example.com/", "is not a host name"),
        ("https://127.0.0.1%2eexample.com/", "is not a host name"),
        ("https://a;b.example.com/", "is not a host name"),
        ("https://" + "a" * 64 + ".example.com/", "is not a host name"),
        ("https://" + "a." * 127 + "com/", "is not a host name"),
        ("https://2130706433/", "is a number"),
        ("https://0x7f000001/", "is a number"),
        ("https://0x7f.1/", "is a number"),
        ("https://127.1/", "is a number"),
        ("https://example.1/", "is a number"),
        ("https://localhost/", "internal network"),
        ("https://LOCALHOST/", "internal network"),
        ("https://redis/", "internal network"),
        ("https://a.localhost/", "internal network"),
        ("https://printer.local/", "internal network"),
        ("https://metadata.google.internal/", "internal network"),
        ("https://db.default.svc/", "internal network"),
        ("https://db.default.svc.cluster.example/", "internal network"),
        ("https://example.com:22/", "port is 22; 443 can be used"),
        ("https://example.com:80/", "port is 80; 443 can be used"),
        ("https://example.com:0/", "port is 0"),
        ("https://8.8.8.8:6379/", "port is 6379"),
        ("https://127.0.0.1/", "not public"),
        ("https://10.0.0.1/", "not public"),
        ("https://169.254.169.254/latest/meta-data", "not public"),
        ("https://[::1]/", "not public"),
        ("https://[::ffff:127.0.0.1]/", "not public"),
        ("https://[64:ff9b::7f00:1]/", "not public"),
        ("https://[fe80::1%25eth0]/", "not public"),
        ("https://[fe80::1%eth0]/", "not public"),
    ],
    ids=shown,
)
def test_an_invalid_address_is_refused_in_a_sentence(url: object, says: str) -> None:
    fault = target_fault(url, STRICT)
    assert fault is not None
    assert says in fault
    assert fault.startswith("The URL")


def test_a_sentence_quotes_no_url() -> None:
    fault = target_fault("https://user:hunter2@example.com/?token=hunter2", STRICT)
    assert fault is not None
    assert "hunter2" not in fault


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/hooks",
        "http://10.1.2.3:9/",
        "https://[::1]:8443/",
        "http://localhost:8000/",
        "http://receiver:8000/",
        "https://a.internal/",
    ],
)
def test_an_opened_target_is_accepted_on_every_port(url: str) -> None:
    assert target_fault(url, INSIDE) is None
    assert target_fault(url, PLAIN) is not None


@pytest.mark.parametrize("url", ["http://192.168.1.1/", "http://169.254.169.254/", "http://example.com:8000/"])
def test_a_target_that_is_not_opened_is_refused(url: str) -> None:
    assert target_fault(url, INSIDE) is not None


def test_ports_can_be_added() -> None:
    assert target_fault("https://example.com:8443/", policy(ports=[8443])) is None
    assert target_fault("http://example.com/", PLAIN) is None
    assert target_fault("http://example.com:8443/", PLAIN) == ("The URL's port is 8443; 80 and 443 can be used")
