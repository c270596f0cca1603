"""If an answer of a receiver quotes our request, the quoted part is not stored."""

import pytest

from worker.webhooks.core.outcome import DeliveryErrorCode, SendResult
from worker.webhooks.net.redaction import redact_result

URL = "https://hooks.example.com/in?token=geheim%2B0123456&a=1"
HEADERS = {"Authorization": "Bearer key-0123456789", "X-Team": "blue", "webhook-id": "msg_0123456789"}


def kept(text: str) -> str:
    """Return the stored form of a body that quotes `text`, and check that a header is stored the same way."""
    sent = SendResult(
        True, DeliveryErrorCode.http_error, 500, response_headers={"x-said": text}, response_body=text.encode()
    )
    clean = redact_result(sent, URL, HEADERS)
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
def test_secrets_of_a_request_are_not_kept_with_its_answer(said: str, stays: str) -> None:
    assert kept(said) == stays


def test_all_other_facts_of_an_attempt_stay() -> None:
    sent = SendResult(True, DeliveryErrorCode.http_error, 500, elapsed_s=0.5, response_body=b"no", peer="127.0.0.1")
    assert redact_result(sent, "https://hooks.example.com/in", {}) == sent
