"""What a receiver quotes of what it was sent is not kept of its answer."""

import pytest

from worker.webhooks.core.outcome import DeliveryErrorCode, SendResult
from worker.webhooks.net.redaction import unquoted

URL = "https://hooks.example.com/in?token=geheim%2B0123456&a=1"
HEADERS = {"Authorization": "Bearer key-0123456789", "X-Team": "blue", "webhook-id": "msg_0123456789"}


def kept(text: str) -> str:
    """Return what is kept of an answer that quotes a text in its body, and see that a header is kept so too."""
    sent = SendResult(
        True, DeliveryErrorCode.http_error, 500, response_headers={"x-said": text}, response_body=text.encode()
    )
    clean = unquoted(sent, URL, HEADERS)
    assert clean.response_headers == {"x-said": clean.response_body.decode()}
    return clean.response_body.decode()


@pytest.mark.parametrize(
    ("said", "stays"),
    [
        ("POST /in?token=geheim%2B0123456&a=1 failed", "POST /in?[redacted] failed"),
        ('{"token": "geheim+0123456"}', '{"token": "[redacted]"}'),
        ("Authorization: Bearer key-0123456789", "Authorization: [redacted]"),
        ("no such key: key-0123456789", "no such key: [redacted]"),
        ("msg_0123456789 of blue", "msg_0123456789 of blue"),
        ("", ""),
    ],
    ids=["query", "decoded", "header", "without its scheme", "no secrets", "nothing"],
)
def test_what_is_secret_of_a_request_is_not_kept_of_its_answer(said: str, stays: str) -> None:
    assert kept(said) == stays


def test_what_else_is_known_of_an_attempt_stays() -> None:
    sent = SendResult(True, DeliveryErrorCode.http_error, 500, elapsed_s=0.5, response_body=b"no", peer="127.0.0.1")
    assert unquoted(sent, "https://hooks.example.com/in", {}) == sent
