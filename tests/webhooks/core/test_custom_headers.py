"""A receiver's custom headers: no name with a meaning for us, HTTP or a proxy, and no line break."""

from typing import Any

import pytest

from worker.webhooks.core.custom_headers import custom_header_fault


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer abc.def"),
        ("X-Team", "a b\tc"),
        ("x-api-key", "~"),
        ("Cookie", "a=b; c=d"),
        ("a" * 128, "v" * 4096),
    ],
)
def test_headers_that_are_taken(name: str, value: str) -> None:
    assert custom_header_fault(name, value) is None


@pytest.mark.parametrize(
    "name",
    [
        "webhook-id",
        "Webhook-Signature",
        "WEBHOOK-TIMESTAMP",
        "webhook_signature",
        "webhook-anything",
        "svix-id",
        "X-Afterword-Attempt",
        "Host",
        "Content-Length",
        "content_length",
        "Content-Type",
        "Content-Encoding",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Accept-Encoding",
        "Expect",
        "Upgrade",
        "TE",
        "Trailer",
        "Proxy-Authorization",
        "User-Agent",
    ],
)
def test_headers_that_are_ours(name: str) -> None:
    fault = custom_header_fault(name, "x")
    assert fault is not None
    assert "is set by this service" in fault


@pytest.mark.parametrize(
    "name", ["", " x", "x ", "x y", "x:", "x:y", "x\r\n", "x\n", "x\0", "ü", "x\u00adb", "a" * 129, None, 5, b"x"]
)
def test_names_that_are_no_header_name(name: Any) -> None:
    fault = custom_header_fault(name, "x")
    assert fault is not None
    assert "is not a header name" in fault
    assert "\n" not in fault


@pytest.mark.parametrize(
    "value",
    [
        "",
        " x",
        "x ",
        "x\r\nHost: evil",
        "x\n",
        "x\r",
        "x\0y",
        "x\x7f",
        "x\x1b",
        "sécret",
        "\ud800",
        "v" * 4097,
        None,
        5,
    ],
)
def test_values_that_cannot_be_sent_are_not_quoted(value: Any) -> None:
    fault = custom_header_fault("X-Secret", value)
    assert fault is not None
    assert "the header x-secret cannot be sent" in fault
    assert "evil" not in fault
